"""Settings of a pipeline's stages fitted to judgements, and what they are worth on queries not used to fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.evaluator import evaluate_run
from retriever.eval.significance import Interval, bootstrap_interval, paired_differences
from retriever.experiments.tuning import DEPTH, FOLDS, MEASURE
from retriever.rank.grammar import alternatives
from retriever.rank.pipeline import Alternatives, Pipeline
from retriever.rank.rescore import Rescore
from retriever.ranking import separate_ties
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.eval.data.dataset import Dataset
    from retriever.search.retriever import Retriever
    from retriever.types import Run

__all__ = ["PipelineTuning", "candidates", "tune_pipeline"]

MOST = 500
"""Pipelines that are compared at once."""


class PipelineTuning(NamedTuple):
    """What tuning found; every figure is a mean nDCG@10 over the judged queries.

    pipeline: the best candidate on all queries; fitted: its value on these same queries, which flatters it. before: the
    value of the mode alone, which is a candidate, too. cross_validated: the value where each query is ranked by the
    candidate that is best on the other folds. gain: cross_validated - before; interval: of the gain, at 95 %. values:
    of each candidate, on all queries.
    """

    pipeline: str
    queries: int
    before: float
    cross_validated: float
    gain: float
    interval: Interval
    fitted: float
    values: dict[str, float]


def candidates(line: str) -> list[Pipeline]:
    """Return the pipelines that a line with alternatives ("weight=0.5|1") stands for.

    Raises:
        UserError: more than 500, or a line that cannot be read.
    """
    lines = alternatives(line)
    if len(lines) > MOST:
        raise UserError(f"pipeline {line!r}: stands for {len(lines)} pipelines, at most {MOST} are compared; try fewer")
    return list(dict.fromkeys(map(Pipeline.parse, lines)))


def tune_pipeline(
    retriever: Retriever, data: Dataset, *, pipelines: Sequence[Pipeline], seed: int = 0
) -> PipelineTuning:
    """Choose among pipelines of one mode and the mode alone, and cross-validate the choice in 5 folds drawn by `seed`.

    What several pipelines begin with runs once. Of equals the first is taken, so the mode alone if nothing is better.

    Raises:
        UserError: less than 5 judged queries, several modes, a stage that the index cannot run, or `rescore`: its model
            was learned from all queries at once, so that no fold would be unseen.
    """
    if any(isinstance(stage, Rescore) for pipeline in pipelines for stage in pipeline.stages):
        raise UserError("rescore cannot be tuned, its model has seen judgements; learn and cross-validate by --model")
    alone = Pipeline(pipelines[0].mode)
    pipelines = [alone, *(pipeline for pipeline in pipelines if pipeline != alone)]
    asked = [query for query in data.queries if data.qrels.get(query.query_id)]
    if len(asked) < FOLDS:
        raise UserError(f"found {len(asked)} judged queries, need {FOLDS} or more to cross-validate; judge more")
    runs: list[Run] = [{} for _ in pipelines]
    for query_id, _, _, lists in retriever.rank_pipeline(
        asked, DEPTH, pipeline=Alternatives(tuple(pipelines)), exclude_self=data.exclude_self
    ):
        for place, run in enumerate(runs):
            run[query_id] = separate_ties(lists[str(place)][:DEPTH])
    values = np.array([_values(data, run) for run in runs]).T  # (queries, pipelines)
    fold = np.random.default_rng(seed).permutation(len(values)) % FOLDS
    chosen = np.array([_best(values[fold != left_out]) for left_out in range(FOLDS)])[fold]
    validated = values[np.arange(len(values)), chosen]
    differences = paired_differences(validated, values[:, 0])
    means, best = values.mean(axis=0), _best(values)
    return PipelineTuning(
        pipeline=str(pipelines[best]),
        queries=len(values),
        before=float(means[0]),
        cross_validated=float(validated.mean()),
        gain=float(differences.mean()),
        interval=bootstrap_interval(differences),
        fitted=float(means[best]),
        values=dict(zip(map(str, pipelines), means.tolist(), strict=True)),
    )


def _values(data: Dataset, run: Run) -> Sequence[float]:
    qrels = {query_id: data.qrels[query_id] for query_id in run}
    return [found[MEASURE] for found in evaluate_run(run, qrels, measures=[MEASURE]).per_query.values()]


def _best(values: NDArray[np.float64]) -> int:
    """Return the column with the highest mean, the first of equals."""
    return int(np.argmax(np.round(values.mean(axis=0), 12)))
