"""From rankings to hits: which of them are shown, and what of each document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.files import VERIFY, damaged
from retriever.ranking import RowRanking
from retriever.search.leg import views_of
from retriever.search.showing.passages import Passages, best_passages
from retriever.types import Hit, LegPart, PartialHits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from retriever.ranking import Showing
    from retriever.search.fusion.fusion import Fused
    from retriever.search.leg import LegQuery
    from retriever.search.modes import Plan
    from retriever.search.opened.commit_view import CommitView
    from retriever.search.steps import Ranked
    from retriever.types import Encoder, Ranking, Span

__all__ = ["show"]


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
    fused = plan.fuse(rankings, showing.end if ranked is None else None)
    shown = showing.cut(fused.ranking if ranked is None else ranked.found.ranking)
    stored = view.reader.stored(hit.doc_id for hit in shown)
    if view.lost:
        shown = [hit for hit in shown if hit.doc_id in stored]
    if len(stored) < len(shown):
        raise damaged(view.reader.path, "what was found is not stored", VERIFY)
    passages = dict.fromkeys(stored, Passages((), {}))
    if view.reader.settings.chunking is not None:
        passages = best_passages(view.chunks(plan.legs, asked, stored), stored, plan)
    parts = _parts(rankings, fused, shown)
    named = encoder() if (showing.explain or showing.highlight) and views_of(plan.legs) else None

    def found_in(text: str) -> tuple[Span, ...]:
        return view.highlights(plan.legs, asked, text, named) if showing.highlight and text else ()

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
            highlights=found_in(document.text),
            title_highlights=found_in(document.title),
            stages=() if ranked is None else ranked.parts.get(doc_id, ()),
        )

    hits = [hit(rank, *found) for rank, found in enumerate(shown, start=showing.offset + 1)]
    return PartialHits(hits, view.lost) if view.lost else hits


def _parts(rankings: Mapping[str, Ranking], fused: Fused, shown: Ranking) -> dict[str, dict[str, LegPart]]:
    """Return what each leg says about the documents that are shown."""
    parts: dict[str, dict[str, LegPart]] = {hit.doc_id: {} for hit in shown}
    found = {leg: values for leg, values in (fused.values or {}).items() if len(values)}
    of_rows = {leg: ranking for leg in found if isinstance(ranking := rankings[leg], RowRanking)}
    if isinstance(shown, RowRanking) and found and len(of_rows) == len(found):
        for leg, ranking in of_rows.items():
            values = found[leg]
            counted = ranking.rows[: len(values)]
            places, which = (counted[:, None] == shown.rows).nonzero()
            own = zip(
                which.tolist(), places.tolist(), ranking.scores[places].tolist(), values[places].tolist(), strict=True
            )
            for hit, place, score, value in own:
                parts[shown[hit].doc_id][leg] = LegPart(place + 1, score, value)
        return parts
    for leg, ranking in rankings.items():
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            if doc_id in parts and doc_id in fused.normalised[leg]:  # what stands deep in a leg did not count
                parts[doc_id][leg] = LegPart(rank, score, fused.normalised[leg][doc_id])
    return parts
