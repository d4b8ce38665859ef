"""Pipelines fitted to judgements, models of their last stage included, and what they are worth on other queries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.significance import Interval, bootstrap_interval, paired_differences
from retriever.experiments.cross_fit import candidates_on, chosen_by_others, held_out, highest, split_model
from retriever.experiments.tuning import FOLDS
from retriever.rank.grammar import alternatives
from retriever.rank.learned import ListModel, query_marks
from retriever.rank.pipeline import Pipeline
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.eval.data.dataset import Dataset
    from retriever.search.retriever import Retriever
    from retriever.types import Query

__all__ = ["CrossFitted", "PipelineTuning", "candidates", "cross_fitted", "tune_pipeline"]

MOST = 500
"""Pipelines that are compared at once."""


class PipelineTuning(NamedTuple):
    """What tuning found; every figure is a mean nDCG@10 over the judged queries.

    pipeline: the best candidate on all queries; fitted: its value on these same queries, which flatters the choice.
    before: the value of the mode alone, which is a candidate, too. cross_validated: the value where each query is
    ranked by the candidate that is best on the other folds. gain: cross_validated - before; interval: of the gain, at
    95 %. values: of each candidate, on all queries; one that ends in `rescore` ranks each by a model of the other
    folds. model: of the best candidate, learnt from all queries, if it ends in `rescore`.
    """

    pipeline: str
    queries: int
    before: float
    cross_validated: float
    gain: float
    interval: Interval
    fitted: float
    values: dict[str, float]
    model: ListModel | None = None


class CrossFitted(NamedTuple):
    """A pipeline, with the model of all judged queries if it learns one, and the nDCG@10 of each of these queries.

    values: with a model, each query is ranked by one that was learnt, its kind included, from the other four fifths.
    """

    pipeline: Pipeline
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
    retriever: Retriever, data: Dataset, *, pipelines: Sequence[Pipeline], kind: str = "auto", seed: int = 0
) -> PipelineTuning:
    """Choose among pipelines of one mode and the mode alone, and cross-validate the choice in 5 folds drawn by `seed`.

    What several pipelines begin with runs once. Of equals the first is taken, so the mode alone if nothing is better.
    A pipeline may end in `rescore`, whose model is learnt here: neither is a query ranked nor a choice made for it by
    models that have seen it. kind: of these models, see `learn`; "auto" makes each of the three a candidate.

    Raises:
        UserError: less than 5 judged queries, several modes, a stage that the index cannot run, `rescore` before other
            stages, or more than 40 pipelines that end in it.
    """
    alone = Pipeline(pipelines[0].mode)
    fold = _folds(data, seed)
    found = candidates_on(retriever, data, [alone, *(one for one in pipelines if one != alone)], kind, fold)
    values = np.array([held_out(candidate, fold) for candidate in found]).T  # (queries, candidates)
    validated = chosen_by_others(found, fold)
    differences = paired_differences(validated, values[:, 0])
    means, best = values.mean(axis=0), highest(values)
    model = found[best].model()
    return PipelineTuning(
        pipeline=str(found[best].pipeline),
        queries=len(values),
        before=float(means[0]),
        cross_validated=float(validated.mean()),
        gain=float(differences.mean()),
        interval=bootstrap_interval(differences),
        fitted=float(means[best]),
        values={candidate.name: mean for candidate, mean in zip(found, means.tolist(), strict=True)},
        model=None if model is None else replace(model, seen=query_marks(_judged(data))),
    )


def cross_fitted(
    retriever: Retriever, data: Dataset, pipelines: Sequence[Pipeline], *, kind: str = "auto", seed: int = 0
) -> list[CrossFitted]:
    """Measure pipelines of one mode; those that end in `rescore` learn its model.

    Raises:
        UserError: as `tune_pipeline`.
    """
    fold, ids = _folds(data, seed), [query.query_id for query in _judged(data)]
    found = candidates_on(retriever, data, pipelines, kind, fold)
    fitted = []
    for pipeline in pipelines:
        own = [candidate for candidate in found if candidate.pipeline == pipeline]
        values = dict(zip(ids, chosen_by_others(own, fold).tolist(), strict=True))
        best = highest(np.array([held_out(candidate, fold) for candidate in own]).T)
        fitted.append(CrossFitted(_with_model(pipeline, own[best].model()), values))
    return fitted


def _with_model(pipeline: Pipeline, model: ListModel | None) -> Pipeline:
    before, rescore = split_model(pipeline)
    return pipeline if rescore is None else before.then(replace(rescore, model=model))


def _judged(data: Dataset) -> list[Query]:
    return [query for query in data.queries if data.qrels.get(query.query_id)]


def _folds(data: Dataset, seed: int) -> NDArray[np.int64]:
    count = len(_judged(data))
    if count < FOLDS:
        raise UserError(f"found {count} judged queries, need {FOLDS} or more to cross-validate; judge more")
    return np.random.default_rng(seed).permutation(count) % FOLDS
