"""The systems that one index gives, a mode of search with a query mode each: their rankings and their latency."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.report.results import Percentiles, SparseCosts
from retriever.experiments.learning import warn_of_seen
from retriever.experiments.leg_runs import BOTH_VIEWS, LegRun, find_legs, timed_places
from retriever.rank.pipeline import pipeline_of
from retriever.ranking import without_self
from retriever.search.leg import LEGS, views_of
from retriever.search.modes import CANDIDATES, HYBRID, Plan, legs_named
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from retriever.eval.data.dataset import Dataset
    from retriever.rank.pipeline import Pipeline
    from retriever.search.leg import View
    from retriever.types import Encoder, Ranking, Run

__all__ = ["LegRuns", "RankedSystem", "SystemPlan", "bytes_per_document", "plan_systems", "search_legs"]


class SystemPlan(NamedTuple):
    """What to measure: a mode of search and how queries become sparse terms, "" where no leg of it reads these.

    pipeline: what follows the fusion.
    """

    name: str
    mode: str
    query_mode: str
    plan: Plan
    pipeline: Pipeline | None = None


class RankedSystem(NamedTuple):
    """The run of a system, and the latency of each of its parts."""

    run: Run
    latency: dict[str, Percentiles]


def plan_systems(
    retriever: Retriever, encoder: Encoder, modes: Sequence[str], query_modes: Sequence[str], notes: list[str]
) -> list[SystemPlan]:
    """Return the systems that an index can answer as; for what it cannot, add the reason to `notes`.

    query_modes: none for the encoder's own; systems carry it in their names where there are several.
    """
    offered = encoder.query_modes
    name = encoder.identity.name
    missing = [query_mode for query_mode in query_modes if query_mode not in offered]
    if missing and any(map(_by_query_mode, retriever.legs)):
        notes.append(f"{name} has no query mode {', '.join(missing)}")
    wanted = [query_mode for query_mode in dict.fromkeys(query_modes) if query_mode in offered]
    found = []
    lacking: dict[str, list[str]] = {}
    for mode, pipeline in zip(modes, map(pipeline_of, modes), strict=True):
        first = pipeline.mode if pipeline else mode
        missing_legs = [leg for leg in legs_named(first) if leg not in retriever.legs]
        if missing_legs:
            lacking.setdefault(missing_legs[0], []).append(mode)
            continue
        try:
            plan = retriever.plan(first)
        except UserError as error:
            notes.append(f"{name}: {error}")
            continue
        same = [other for other in modes if other != mode == HYBRID and _legs_alone(other) == plan.legs]
        if same:
            notes.append(f"{name}: {mode} is left out, it would be {same[0]} again")
        elif not any(map(_by_query_mode, plan.legs)):
            found.append(SystemPlan(mode, mode, "", plan, pipeline))
        elif not query_modes:
            found.append(SystemPlan(mode, mode, encoder.query_mode, plan, pipeline))
        else:
            several = len(set(query_modes)) > 1
            found += [SystemPlan(f"{mode}@{one}" if several else mode, mode, one, plan, pipeline) for one in wanted]
    notes += [f"{name} has no {leg} leg: {', '.join(left_out)} left out" for leg, left_out in lacking.items()]
    return found


def _legs_alone(mode: str) -> tuple[str, ...]:
    """Return the legs of a mode without stages."""
    return () if pipeline_of(mode) else legs_named(mode)


def _by_query_mode(leg: str) -> bool:
    return LEGS[leg].by_query_mode()


def _variant(leg: str, query_mode: str) -> tuple[str, str]:
    """Name one run of a leg: a leg that reads sparse terms has one for each query mode."""
    return leg, query_mode if _by_query_mode(leg) else ""


class LegRuns:
    """The runs of an index's legs for a data set, by leg and query mode."""

    def __init__(
        self,
        runs: Mapping[tuple[str, str], LegRun],
        data: Dataset,
        depth: int,
        open_index: Callable[[str], Retriever],
    ) -> None:
        self._runs, self._data, self._depth, self._open = runs, data, depth, open_index

    def rank(self, system: SystemPlan) -> RankedSystem:
        """Fuse the legs as the system's plan says, without the query itself among its hits where the data set says so.

        It is dropped before the fusion: the score of a query against itself would be the top of every scale.
        """
        legs = {leg: self._of(leg, system) for leg in system.plan.legs}
        if system.pipeline is not None:
            return self._rank_pipeline(system, system.pipeline, legs)
        run: dict[str, Ranking] = {}
        fusion = []
        for query in self._data.queries:
            rankings = {leg: self._others(found.run[query.query_id], query.query_id) for leg, found in legs.items()}
            started = perf_counter()
            run[query.query_id] = system.plan.fuse(rankings).ranking[: self._depth]
            fusion.append((perf_counter() - started) * 1000)
        chosen = [fusion[place] for place in timed_places(len(fusion))]
        return RankedSystem(run, _latency({leg: found.times for leg, found in legs.items()}, chosen))

    def _rank_pipeline(self, system: SystemPlan, pipeline: Pipeline, legs: Mapping[str, LegRun]) -> RankedSystem:
        """Search with an open index; the time of its legs and its encoding is that of the legs alone."""
        run: dict[str, Ranking] = {}
        times: list[Sequence[float]] = []
        with self._open(system.query_mode) as searcher:
            warn_of_seen(searcher, self._data, pipeline)
            for query_id, ranking, milliseconds, _ in searcher.rank_pipeline(
                self._data.queries, self._depth, pipeline=pipeline, exclude_self=self._data.exclude_self
            ):
                run[query_id] = ranking
                times.append(milliseconds)
        chosen = [times[place] for place in timed_places(len(times))]
        stages = {
            f"{place}. {stage.name}": [one[place - 1] if len(one) >= place else 0.0 for one in chosen]
            for place, stage in enumerate(pipeline.stages, start=1)
        }
        return RankedSystem(
            run, _latency({leg: found.times for leg, found in legs.items()}, [0.0] * len(chosen), stages)
        )

    def costs(self, encoder: str, retriever: Retriever) -> list[SparseCosts]:
        """Return how dense queries and documents are in the sparse view, for each query mode."""
        documents = retriever.reader.sparse_terms_per_document()
        return [
            SparseCosts(encoder, query_mode, found.terms_per_query, documents, found.flops)
            for query_mode, found in {mode: found for (_, mode), found in self._runs.items() if mode}.items()
        ]

    def _of(self, leg: str, system: SystemPlan) -> LegRun:
        return self._runs[_variant(leg, system.query_mode)]

    def _others(self, ranking: Ranking, query_id: str) -> Ranking:
        return without_self(ranking, query_id, exclude=self._data.exclude_self)


def search_legs(
    retriever: Retriever,
    encoder: Encoder,
    systems: Sequence[SystemPlan],
    data: Dataset,
    top_k: int,
    *,
    fresh: bool = False,
) -> LegRuns:
    """Search each leg that the systems need once, or take it from the cache of an earlier evaluation."""
    depth = max(top_k, CANDIDATES) + data.exclude_self
    needed = list(dict.fromkeys(leg for system in systems for leg in system.plan.legs))
    runs: dict[tuple[str, str], LegRun] = {}
    query_modes = list(dict.fromkeys(system.query_mode for system in systems if system.query_mode)) or ["encoder"]

    def open_index(query_mode: str) -> Retriever:
        mode = query_mode or None
        return Retriever.open(retriever.reader.path, encoder, query_mode=mode, fusion=retriever.fusion)

    for query_mode in query_modes:
        legs = [leg for leg in needed if _variant(leg, query_mode) not in runs]
        with Retriever.open(retriever.reader.path, encoder, query_mode=query_mode) as searcher:
            found = find_legs(searcher, data.queries, legs, depth, query_mode=query_mode, fresh=fresh)
        runs |= {_variant(leg, query_mode): run for leg, run in found.items()}
    return LegRuns(runs, data, top_k, open_index)


def bytes_per_document(retriever: Retriever, legs: Sequence[str]) -> float:
    """Return the size of the parts of an index that a search in these legs reads, texts included."""
    sizes = retriever.reader.sizes()
    parts = {"lucene"}.union(*(LEGS[leg].folders for leg in legs))  # where the texts are, and what the legs read
    return sum(sizes.get(part, 0) for part in parts) / max(retriever.reader.num_documents, 1)


def _latency(
    times: Mapping[str, Sequence[Mapping[str, float]]],
    fusion: Sequence[float],
    stages: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Percentiles]:
    """Return the percentiles of each part and of their sum; a query is encoded once for all legs."""
    parts = {leg: [found[leg] for found in of_leg] for leg, of_leg in times.items()}
    needed = views_of(times)
    if needed:
        parts = {"encoding": _encoding(needed, times)} | parts
    if len(times) > 1:
        parts["fusion"] = list(fusion)
    parts |= {stage: list(taken) for stage, taken in (stages or {}).items()}
    parts["total"] = np.sum(list(parts.values()), axis=0).tolist()
    return {part: _percentiles(values) for part, values in parts.items()}


def _encoding(needed: Set[View], times: Mapping[str, Sequence[Mapping[str, float]]]) -> list[float]:
    """Return the milliseconds that one encoding of these views takes, from a leg that was timed with all of them."""
    alone = (leg for leg in times if views_of([leg]) == needed)
    leg = next(alone, None)
    if leg is not None:
        return [found["encoding"] for found in times[leg]]
    return next([found[BOTH_VIEWS] for found in one] for one in times.values() if BOTH_VIEWS in one[0])


def _percentiles(values: Sequence[float]) -> Percentiles:
    p50, p95, p99 = np.percentile(values, [50, 95, 99]).tolist()
    return Percentiles(p50, p95, p99, len(values))
