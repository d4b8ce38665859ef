"""A mode of search and the stages that follow it, run within budgets, each with its time and what it said."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

from retriever.names import HYBRID
from retriever.rank.grammar import parse_line, read_file
from retriever.rank.stage import Budget, OutOfTimeError, Stage
from retriever.search.modes import legs_named
from retriever.search.steps import Ranked
from retriever.search.time_limit import OverdueError
from retriever.types import StagePart, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retriever.search.steps import Found, SearchAt
    from retriever.types import Ranking

__all__ = ["Alternatives", "Pipeline", "pipeline_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pipeline:
    """What a search does: a mode, then stages in order. Used by any number of searches and threads.

    >>> str(Pipeline.parse("bm25+dense > mmr(0.7)"))
    'bm25+dense > mmr'
    """

    mode: str = HYBRID
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        legs_named(self.mode)

    @classmethod
    def parse(cls, line: str) -> Pipeline:
        """Read a pipeline from a line such as "bm25+dense+sparse > rerank(cross-encoder:NAME, depth=50) > mmr(0.7)".

        Raises:
            UserError: it cannot be read, or names a mode, stage or setting that does not exist.
        """
        return cls(*parse_line(line))

    @classmethod
    def read(cls, path: str | Path) -> Pipeline:
        """Read a pipeline from a YAML file with `mode` and `stages`; raise UserError as `parse`."""
        return cls(*read_file(path))

    def then(self, *stages: Stage) -> Pipeline:
        """Return this pipeline with more stages behind it."""
        return Pipeline(self.mode, (*self.stages, *stages))

    def __str__(self) -> str:
        """Return the line that `parse` reads."""
        return " > ".join([self.mode, *map(str, self.stages)])

    @property
    def reads(self) -> int:
        """Return how many of the first hits the deepest stage reads."""
        return max((stage.reads for stage in self.stages), default=0)

    def run(self, found: Found, at: SearchAt, *, explain: int = 0) -> Ranked:
        """Run the stages.

        explain: let them say why, for so many of the first hits of the last one.

        Raises:
            UserError: a stage failed or ran out of time whose `on_error` is "fail".
        OverdueError: the time for the whole search is over.
        """
        ran: list[_Ran] = []
        for stage in self.stages:
            started = perf_counter()
            after = _step(stage, found, at)
            if after is not None:
                ran.append(_Ran(stage, found, after, (perf_counter() - started) * 1000))
                found = after
        shown = {hit.doc_id for hit in found.ranking[:explain]}
        parts: dict[str, tuple[StagePart, ...]] = {}
        for one in ran:
            for rank, (doc_id, score) in enumerate(one.after.ranking, start=1):
                matches = one.stage.explain(one.before, one.after, at, doc_id) if doc_id in shown else ()
                part = StagePart(one.stage.name, rank, score, one.milliseconds, matches)
                parts[doc_id] = (*parts.get(doc_id, ()), part)
        return Ranked(found, parts)


@dataclass(frozen=True)
class Alternatives:
    """Several pipelines of one mode, run together: what they have in common runs once. To be compared, not searched.

    The ranking of the last one is given, those of all are in the lists, by their places: "0", "1", ..., and what led to
    them as "0/bm25", "0/fusion", ...
    """

    pipelines: tuple[Pipeline, ...]

    def __post_init__(self) -> None:
        modes = {pipeline.mode for pipeline in self.pipelines}
        if len(modes) != 1:
            raise UserError(f"found the modes {', '.join(sorted(modes)) or 'none'}, need one; tune each by itself")

    @property
    def mode(self) -> str:
        """Return the mode of search that comes first."""
        return self.pipelines[0].mode

    @property
    def reads(self) -> int:
        """Return how many of the first hits the deepest stage reads."""
        return max(pipeline.reads for pipeline in self.pipelines)

    def run(self, found: Found, at: SearchAt, *, explain: int = 0) -> Ranked:
        """Run all stages; nothing is explained."""
        known: dict[tuple[Stage, ...], Found] = {(): found}
        rankings: dict[str, Ranking] = {}
        for place, pipeline in enumerate(self.pipelines):
            for number, stage in enumerate(pipeline.stages):
                before, stages = pipeline.stages[:number], pipeline.stages[: number + 1]
                if stages not in known:
                    known[stages] = _step(stage, known[before], at) or known[before]
            last = known[pipeline.stages]
            rankings[str(place)] = last.ranking
            rankings |= {f"{place}/{name}": ranking for name, ranking in last.lists.items()}
        return Ranked(known[self.pipelines[-1].stages]._replace(lists=rankings), {})


def pipeline_of(mode: str) -> Pipeline | None:
    """Return the pipeline that a mode's name is, None for a mode alone.

    >>> pipeline_of("hybrid"), str(pipeline_of("hybrid > feedback"))
    (None, 'hybrid > feedback')
    """
    return Pipeline.parse(mode) if ">" in mode else None


@dataclass(frozen=True)
class _Ran:
    """A stage that ran: what it was given, what it made of it, and the milliseconds that it took."""

    stage: Stage
    before: Found
    after: Found
    milliseconds: float


def _step(stage: Stage, found: Found, at: SearchAt) -> Found | None:
    """Run a stage, whose ranking is then among the lists; None where it is passed over."""
    after = _guarded(stage, found, at)
    if after is None:
        return None
    return after._replace(lists={**after.lists, _free(stage.name, found.lists): after.ranking})


def _free(name: str, taken: Mapping[str, Ranking]) -> str:
    """Return a name for a list, numbered where a stage of that name gave one before."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(one for one in names if one not in taken)


def _guarded(stage: Stage, found: Found, at: SearchAt) -> Found | None:
    """Run a stage; None where it failed or ran out of time, and that is to be passed over."""
    budget = Budget(stage.budget_ms)
    budget.check()
    try:
        return stage.run(found, at, budget)
    except OverdueError:
        raise
    except OutOfTimeError:
        problem = f"{stage.name} needs more than its {stage.budget_ms:g} ms"
        remedy = "give it a smaller depth, a larger budget_ms, or on_error=pass"
    except Exception as error:
        if stage.on_error == "fail":
            raise
        problem, remedy = f"{stage.name} failed ({error})", ""
    if stage.on_error == "fail":
        raise UserError(f"{problem}; {remedy}")
    log.warning("%s: the ranking that it was given is passed on", problem)
    return None
