"""Pipelines on judged queries: what each is worth, and what each of its stages takes."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.bench.ranking.compared import compare_on_sets
from retriever.experiments.cross_fit import split_model
from retriever.experiments.pipeline_tuning import CrossFitted, cross_fitted
from retriever.rank.learned import find_model, query_marks
from retriever.rank.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.eval.data.dataset import Dataset
    from retriever.eval.significance import Interval
    from retriever.search.retriever import Retriever
    from retriever.types import Query

__all__ = ["Measured", "RankRow", "measure_pipelines", "rank_rows"]

TOP_K = 10
WARM_UP = 5


class Measured(NamedTuple):
    """What a pipeline gives on one set: the nDCG@10 of each judged query, and the milliseconds of some queries.

    stage: of its last stage, whole: of the search, one query after the other; of a mode alone both are of the search.
    """

    values: dict[str, float]
    stage: list[float]
    whole: list[float]


class RankRow(NamedTuple):
    """A pipeline: its nDCG@10 on each set and on their mean, the difference to the first one, with its 95 % interval.

    stage_ms, whole_ms: medians over the timed queries of all sets, of its last stage and of the search; NaN untimed.
    """

    pipeline: str
    values: tuple[float, ...]
    mean: float
    difference: float
    interval: Interval
    stage_ms: float
    whole_ms: float


def measure_pipelines(
    retriever: Retriever, data: Dataset, pipelines: Sequence[Pipeline], *, kind: str = "auto", timed: int = 50
) -> dict[str, Measured]:
    """Rank the judged queries by each pipeline, and time so many of them.

    One that ends in `rescore` uses the index's own model where that was learnt behind the same stages, from other
    queries; else each query is ranked by a model of a kind (see `learn`) learnt from the other four fifths.

    Raises:
        UserError: less than 5 judged queries, or a stage that the index cannot run.
    """
    ready: dict[Pipeline, CrossFitted] = {}
    for _, group in groupby(sorted(pipelines, key=_mode), key=_mode):
        together = list(group)
        own = [_with_own_model(retriever, data, pipeline) for pipeline in together]
        ready |= dict(zip(together, cross_fitted(retriever, data, own, kind=kind), strict=True))
    times = {str(one): _times(retriever, data.queries, ready[one].pipeline, timed) for one in pipelines}
    return {str(one): Measured(ready[one].values, *times[str(one)]) for one in pipelines}


def rank_rows(found: Sequence[Mapping[str, Measured]]) -> list[RankRow]:
    """Return the table of all pipelines, in their order; the first is what the others are compared with.

    found: of each set, as `measure_pipelines` gives it.
    """
    first = next(iter(found[0])) if found else ""
    compared = compare_on_sets([{name: one.values for name, one in of.items()} for of in found], first)
    return [
        RankRow(
            name,
            *row,
            _median([of[name].stage for of in found]),
            _median([of[name].whole for of in found]),
        )
        for name, row in compared.items()
    ]


def _median(parts: Sequence[list[float]]) -> float:
    times = [time for part in parts for time in part]
    return float(np.median(times)) if times else float("nan")


def _with_own_model(retriever: Retriever, data: Dataset, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with the index's model in its last stage, if that may be measured by these judgements."""
    before, rescore = split_model(pipeline)
    model = find_model(retriever.reader.commit_data.note)
    if rescore is None or model is None or model.pipeline != str(before) or not model.seen:
        return pipeline
    if set(model.seen) & set(query_marks(data.queries)):
        return pipeline
    return before.then(replace(rescore, model=model))


def _mode(pipeline: Pipeline) -> str:
    return pipeline.mode


def _times(
    retriever: Retriever, queries: Sequence[Query], pipeline: Pipeline, timed: int
) -> tuple[list[float], list[float]]:
    """Time queries spread evenly over all of them, one at a time, after some that are not counted."""
    if not timed:
        return [], []
    places = np.linspace(0, len(queries) - 1, min(timed, len(queries))).astype(int).tolist()
    stages, whole = [], []
    for query in [*queries[:WARM_UP], *(queries[place] for place in places)]:
        started = perf_counter()
        [found] = retriever.rank_pipeline([query], TOP_K, pipeline=pipeline)
        whole.append((perf_counter() - started) * 1000)
        stages.append(found.milliseconds[-1] if found.milliseconds else whole[-1])
    return stages[WARM_UP:], whole[WARM_UP:]
