"""The leg of vectors: the inner product of two unit vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.ranking import order
from retriever.search.leg import Candidates, Leg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.chunks import ScoredChunk
    from retriever.index.contract import Selection
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegQuery
    from retriever.types import Encoded, Ranking

__all__ = ["DenseLeg"]


class DenseLeg(Leg):
    """Searched by FAISS or exactly; a vector has no terms to explain a hit by."""

    name = "dense"
    views = ("dense",)
    folders = ("lucene", "rows", "dense")
    weight = 0.4
    colour = "#0072b2"

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        """Return the nearest documents; a text without tokens has none."""
        return self.reader.dense(query.vector, depth, selection)[0]

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks."""
        return self.reader.dense_chunks(query.vector[0], documents)

    def rank_candidates(self, texts: Sequence[str], encoded: Encoded | None, candidates: Candidates) -> list[Ranking]:
        """Rank by unrounded vectors."""
        assert encoded is not None and candidates.encoded is not None
        assert encoded.dense is not None and candidates.encoded.dense is not None
        products = encoded.dense @ candidates.encoded.dense.T  # (queries, candidates)
        return [order(zip(candidates.ids, row.tolist(), strict=True)) for row in products]
