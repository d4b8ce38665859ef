"""From rankings to hits: which of them are shown, and what of each document."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retriever.index.files import VERIFY, damaged
from retriever.index.reader import check_top_k
from retriever.search.leg import views_of
from retriever.search.passages import Passages, best_passages
from retriever.types import Hit, LegPart, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from retriever.search.commit_view import CommitView
    from retriever.search.fusion import Fused
    from retriever.search.leg import LegQuery
    from retriever.search.modes import Plan
    from retriever.search.steps import Ranked
    from retriever.types import Document, Encoder, MetadataValue, Ranking

__all__ = ["Showing", "show"]


@dataclass(frozen=True)
class Showing:
    """Which hits of a ranking are shown, and what of them, as `Retriever.search` takes it.

    Raises:
        UserError: top_k is below 1, offset below 0, or min_score no number.
    """

    top_k: int
    offset: int = 0
    min_score: float | None = None
    fields: Sequence[str] | None = None
    explain: bool = False
    highlight: bool = False

    def __post_init__(self) -> None:
        check_top_k(self.top_k)
        if self.offset < 0:
            raise UserError(f"offset is {self.offset}; need 0 or more")
        if self.min_score is not None and math.isnan(self.min_score):
            raise UserError("min_score is not a number; give one, or leave it out")
        if isinstance(self.fields, str):
            raise UserError(f"fields is the text {self.fields!r}; give a list of names, as in [{self.fields!r}]")

    @property
    def end(self) -> int:
        """Return how many hits are needed."""
        return self.offset + self.top_k

    def cut(self, ranking: Ranking) -> Ranking:
        """Return the hits that are shown."""
        shown = ranking[self.offset : self.end]
        return shown if self.min_score is None else [hit for hit in shown if hit.score >= self.min_score]

    def metadata(self, document: Document) -> Mapping[str, MetadataValue]:
        """Return those fields of a document that are shown."""
        if self.fields is None:
            return document.metadata
        return {name: document.metadata[name] for name in self.fields if name in document.metadata}


def show(
    view: CommitView,
    plan: Plan,
    asked: LegQuery,
    rankings: Mapping[str, Ranking],
    showing: Showing,
    *,
    encoder: Callable[[], Encoder],
    ranked: Ranked | None = None,
) -> list[Hit]:
    """Fuse the rankings of a plan's legs for one query and return the hits that are shown, with their texts.

    encoder: gives the one of the index; called where terms are to be named or found in a text.
    ranked: what the stages of a pipeline made of the fused ranking.
    """
    fused = plan.fuse(rankings)
    shown = showing.cut(fused.ranking if ranked is None else ranked.found.ranking)
    stored = view.reader.stored(hit.doc_id for hit in shown)
    if len(stored) < len(shown):
        raise damaged(view.reader.path, "what was found is not stored", VERIFY)
    passages = dict.fromkeys(stored, Passages((), {}))
    if view.reader.settings.chunking is not None:
        passages = best_passages(view.chunks(plan.legs, asked, stored), stored, plan)
    parts = _parts(rankings, fused, set(stored))
    named = encoder() if (showing.explain or showing.highlight) and views_of(plan.legs) else None

    def hit(rank: int, doc_id: str, score: float) -> Hit:
        document, (chunks, best) = stored[doc_id].document, passages[doc_id]
        return Hit(
            rank=rank,
            doc_id=doc_id,
            score=score,
            title=document.title,
            text=document.text,
            metadata=showing.metadata(document),
            parts=parts[doc_id],
            terms=view.explain(plan.legs, asked, doc_id, named, best) if showing.explain else (),
            chunks=chunks,
            highlights=view.highlights(plan.legs, asked, document.text, named) if showing.highlight else (),
            stages=() if ranked is None else ranked.parts.get(doc_id, ()),
        )

    return [hit(rank, *found) for rank, found in enumerate(shown, start=showing.offset + 1)]


def _parts(rankings: Mapping[str, Ranking], fused: Fused, shown: set[str]) -> dict[str, dict[str, LegPart]]:
    """Return what each leg says about the documents that are shown."""
    parts: dict[str, dict[str, LegPart]] = {doc_id: {} for doc_id in shown}
    for leg, ranking in rankings.items():
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            if doc_id in shown and doc_id in fused.normalised[leg]:  # what stands deep in a leg did not count
                parts[doc_id][leg] = LegPart(rank, score, fused.normalised[leg][doc_id])
    return parts
