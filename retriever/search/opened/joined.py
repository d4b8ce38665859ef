"""The legs of an index in several shards: each searches all of them side by side, and merges what they find."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from retriever.ranking import order
from retriever.search.leg import BatchLeg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.chunks import ScoredChunk
    from retriever.index.shards.joined import JoinedReader
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegQuery, OpenLeg
    from retriever.types import Encoder, Ranking, Span, TermMatch

__all__ = ["JoinedLeg", "joined_legs"]


class JoinedLeg:
    """Does what a leg does, over shards that have it each.

    A document is in one shard, and its score does not depend on which (BM25 knows the statistics of all of them): the
    best of the whole are among the best of the parts.
    """

    def __init__(self, reader: JoinedReader, legs: Sequence[OpenLeg]) -> None:
        self.reader, self._legs = reader, legs
        self.cost = legs[0].cost

    def run(self, query: LegQuery, depth: int, selection: Sequence[Any] | None = None) -> Ranking:
        """Return the best `depth` hits, by (score descending, id ascending), within the selection if there is one."""
        parts = list(zip(self._legs, selection or [None] * len(self._legs), strict=True))
        found = self.reader.pairs(lambda _, part: part[0].run(query, depth, part[1]), parts)
        return found[0] if len(found) == 1 else order(chain.from_iterable(found), top_k=depth)

    def run_several(
        self, queries: Sequence[LegQuery], depth: int, selection: Sequence[Any] | None = None
    ) -> list[Ranking]:
        """Return the best `depth` hits of each query: every shard is asked once."""
        parts = list(zip(self._legs, selection or [None] * len(self._legs), strict=True))
        found = self.reader.pairs(lambda _, part: _several(part[0], queries, depth, part[1]), parts)
        return [order(chain.from_iterable(own), top_k=depth) for own in zip(*found, strict=True)]

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks of these documents, of those that it finds."""
        held = self.reader.by_shard(documents)
        return [
            chunk
            for leg, own in zip(self._legs, held, strict=True)
            if own
            for chunk in leg.chunks(query, {doc_id: documents[doc_id] for doc_id in own})
        ]

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the terms that the query shares with a chunk of a document."""
        for leg, own in zip(self._legs, self.reader.by_shard([doc_id]), strict=True):
            if own:
                return leg.explain(query, doc_id, chunk, vocabulary)
        return []

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the characters of a text that the query's terms find."""
        return self._legs[0].highlight(query, text, encoder)


def _several(leg: OpenLeg, queries: Sequence[LegQuery], depth: int, selection: Any) -> list[Ranking]:
    if isinstance(leg, BatchLeg):
        return leg.run_several(queries, depth, selection)
    return [leg.run(query, depth, selection) for query in queries]


def joined_legs(reader: JoinedReader, legs: Sequence[Mapping[str, OpenLeg]]) -> dict[str, OpenLeg]:
    """Return the legs of an index. legs: of each of its shards."""
    return {name: JoinedLeg(reader, [own[name] for own in legs]) for name in legs[0]}
