"""One commit of an index, searched leg by leg."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.search.backends import Lucene
from retriever.types import Encoded, Query, Ranking, TermMatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor

    from scipy.sparse import csr_matrix

    from retriever.index.chunks import ScoredChunk
    from retriever.index.reader import FolderReader
    from retriever.index.stored import StoredDocument
    from retriever.search.backends import SparseBackend

__all__ = ["Legs"]


class Legs:
    """Runs the legs of one reader, all within one filter, for queries that are encoded already."""

    def __init__(self, reader: FolderReader, filter: str | None = None, sparse: SparseBackend | None = None) -> None:
        self.reader = reader
        self._sparse = sparse or Lucene(reader)
        self._selection = None if filter is None else reader.select(filter)

    def run(self, leg: str, text: str, encoded: Encoded | None, row: int, depth: int) -> Ranking:
        """Return the best `depth` hits of one leg for `text`, which is the given row of `encoded`."""
        if leg == "bm25":
            return self.reader.bm25(text, depth, self._selection)
        assert encoded is not None
        if leg == "sparse":
            return self._sparse.search(_row(encoded, row), depth, self._selection)
        assert encoded.dense is not None
        return self.reader.dense(encoded.dense[row : row + 1], depth, self._selection)[0]

    def run_batch(
        self, leg: str, batch: Sequence[Query], encoded: Encoded | None, depth: int, pool: Executor
    ) -> list[Ranking]:
        """Search one leg for each query of a batch, several at a time."""
        return list(pool.map(lambda row: self.run(leg, batch[row].text, encoded, row, depth), range(len(batch))))

    def chunks(
        self, legs: Sequence[str], query: str, encoded: Encoded | None, documents: Mapping[str, StoredDocument]
    ) -> dict[str, list[ScoredChunk]]:
        """Return for each leg the scores of the chunks of these documents, for the query (row 0 of `encoded`)."""
        found: dict[str, list[ScoredChunk]] = {}
        if "bm25" in legs:
            found["bm25"] = self.reader.bm25_chunks(query, list(documents))
        if "sparse" in legs and encoded is not None:
            found["sparse"] = self.reader.sparse_chunks(_row(encoded, 0), list(documents))
        if "dense" in legs and encoded is not None and encoded.dense is not None:
            found["dense"] = self.reader.dense_chunks(encoded.dense[0], documents)
        return found

    def explain(
        self,
        legs: Sequence[str],
        query: str,
        encoded: Encoded | None,
        doc_id: str,
        vocabulary: Sequence[str],
        best: Mapping[str, int],
    ) -> tuple[TermMatch, ...]:
        """Return the terms that the query (row 0 of `encoded`) shares with a document; a vector has none.

        best: for each leg the number of the chunk that counts, the first one if it is not named.
        """
        terms: list[TermMatch] = []
        if "bm25" in legs:
            terms += self.reader.explain_bm25(query, doc_id, best.get("bm25", 0))
        if "sparse" in legs and encoded is not None:
            found = self.reader.explain_sparse(_row(encoded, 0), doc_id, best.get("sparse", 0))
            terms += [match._replace(term=vocabulary[int(match.term)]) for match in found]
        return tuple(terms)


def _row(encoded: Encoded, row: int) -> csr_matrix:
    assert encoded.sparse is not None
    return encoded.sparse[row]
