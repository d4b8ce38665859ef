"""A leg of a shard that is open in actors, as searches run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.cluster.server import Filtered
from retriever.search.leg import LEGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.cluster.remote_shard import RemoteShard
    from retriever.index.chunks import ScoredChunk
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegQuery
    from retriever.types import Encoder, Ranking, Span, TermMatch

__all__ = ["RemoteLeg"]


class RemoteLeg:
    """A leg of a shard that is open elsewhere."""

    def __init__(self, shard: RemoteShard, name: str) -> None:
        self._shard, self._name, self.cost = shard, name, LEGS[name].cost

    def run(self, query: LegQuery, depth: int, selection: Filtered | None = None) -> Ranking:
        """Return the best `depth` hits."""
        return self._shard.run(self._name, [query], depth, selection)[0]

    def run_several(self, queries: Sequence[LegQuery], depth: int, selection: Filtered | None = None) -> list[Ranking]:
        """Return the best `depth` hits of each query, for one message."""
        return self._shard.run(self._name, queries, depth, selection)

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks of documents."""
        found: list[ScoredChunk] = self._shard.of_leg(self._name, "chunks", query, dict(documents))
        return found

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the terms that a query shares with a chunk of a document."""
        found: list[TermMatch] = self._shard.of_leg(self._name, "explain", query, doc_id, chunk, vocabulary)
        return found

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the characters of a text that the query's terms find: here, where the encoder is."""
        return LEGS[self._name].highlight(self, query, text, encoder)  # type: ignore[arg-type]  # it reads `reader` alone

    @property
    def reader(self) -> RemoteShard:
        """Return what reads the words of a text."""
        return self._shard
