"""What stages that follow the fusion are given, and what they give back: `retriever.rank` has the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from retriever.ranking import without_self
from retriever.search.leg import views_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from retriever.search.leg import LegQuery
    from retriever.search.modes import Plan
    from retriever.search.opened.commit_view import CommitView
    from retriever.types import Encoder, Ranking, StagePart, TermMatch

__all__ = ["Found", "Ranked", "SearchAt", "Stages"]


class Found(NamedTuple):
    """Where a search stands: the query as the legs read it, what each leg found, and the ranking so far.

    lists: every ranking that there was, by name: of the legs, of "fusion", and of the stages.
    """

    query: LegQuery
    rankings: Mapping[str, Ranking]
    ranking: Ranking
    lists: Mapping[str, Ranking]


class Ranked(NamedTuple):
    """What stages make of what was found. parts: of each document what each stage said, in the order of the stages."""

    found: Found
    parts: Mapping[str, tuple[StagePart, ...]]


@dataclass(frozen=True)
class SearchAt:
    """Where a stage searches, and how.

    view: the commit, within the filter. plan: the legs of the mode and their fusion. encoder: gives that of the index,
    loaded with the first call. pool: runs legs side by side. depth: how many hits are taken of each leg. without: the
    document that is the query itself, which is left out.
    """

    view: CommitView
    plan: Plan
    encoder: Callable[[], Encoder]
    pool: Executor
    depth: int
    without: str | None = None

    def search(self, query: LegQuery, known: Mapping[str, Ranking] | None = None) -> Found:
        """Run the legs with a query, and fuse what they find. known: what some legs find, which are not run."""
        found = dict(known or {})
        asked = [leg for leg in self.plan.legs if leg not in found]
        found |= self.view.run_side_by_side(asked, query, self.depth, self.pool)
        own, exclude = self.without or "", self.without is not None
        rankings = {leg: without_self(found[leg], own, exclude=exclude) for leg in self.plan.legs}
        fused = self.plan.fuse(rankings).ranking
        return Found(query, rankings, fused, {**rankings, "fusion": fused})

    def explain(self, query: LegQuery, doc_id: str) -> tuple[TermMatch, ...]:
        """Return the terms that a query shares with the first chunk of a document."""
        encoder = self.encoder() if views_of(self.plan.legs) else None
        return self.view.explain(self.plan.legs, query, doc_id, encoder, {})


class Stages(Protocol):
    """What follows the fusion, one stage after the other: `retriever.rank.pipeline.Pipeline`."""

    @property
    def mode(self) -> str:
        """Return the mode of search that comes first."""
        ...

    @property
    def reads(self) -> int:
        """Return how many of the first hits the deepest stage reads."""
        ...

    def run(self, found: Found, at: SearchAt, *, explain: int = 0) -> Ranked:
        """Run the stages; explain: let them say why, for so many of the first hits."""
        ...
