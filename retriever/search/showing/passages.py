"""The passages that speak for a document: its best chunks, as all legs of a search see them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from retriever.ranking import order
from retriever.types import ChunkHit, ScoredDoc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.chunks import ScoredChunk
    from retriever.index.stored import StoredDocument
    from retriever.search.modes import Plan

__all__ = ["Passages", "best_passages"]

SHOWN = 3
"""Chunks of a document that a hit has."""


class Passages(NamedTuple):
    """The best chunks of a document, best first, and for each leg the number of the one that it likes most."""

    chunks: tuple[ChunkHit, ...]
    best: Mapping[str, int]


def best_passages(
    scored: Mapping[str, Sequence[ScoredChunk]], documents: Mapping[str, StoredDocument], plan: Plan
) -> dict[str, Passages]:
    """Return the passages of each document; the plan fuses the legs' scores of all these chunks as it fuses documents.

    scored: the chunks of the documents, as each leg of the plan scores them.
    """
    names = {f"{at} {doc_id}": (doc_id, at) for doc_id, stored in documents.items() for at in range(len(stored.chunks))}
    rankings = {
        leg: order(ScoredDoc(f"{chunk.number} {chunk.doc_id}", chunk.score) for chunk in chunks)
        for leg, chunks in scored.items()
    }
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    best: dict[str, dict[str, int]] = defaultdict(dict)
    for leg, ranking in rankings.items():
        for name, score in ranking:
            doc_id, number = names[name]
            scores[name][leg] = score
            best[doc_id].setdefault(leg, number)
    hits: dict[str, list[ChunkHit]] = defaultdict(list)
    for name, _ in plan.fuse(rankings).ranking:
        doc_id, number = names[name]
        if len(hits[doc_id]) < SHOWN:
            document, spans = documents[doc_id]
            start, end = spans[number]
            hits[doc_id].append(ChunkHit(start, end, document.text[start:end], scores[name]))
    return {doc_id: Passages(tuple(hits[doc_id]), best[doc_id]) for doc_id in documents}
