"""What an index has stored of its documents' views: vectors, impacts, and the vectors of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.index.chunks import ScoredChunk
from retriever.index.postings.row_impacts import row_impacts
from retriever.types import Encoded, TermMatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.lucene.source import LuceneSource
    from retriever.index.postings.sparse import Postings
    from retriever.index.reading.document_rows import DocumentRows
    from retriever.index.settings import IndexSettings
    from retriever.index.stored import StoredDocument
    from retriever.index.vectors.rows import RowReader
    from retriever.types import FloatArray

__all__ = ["StoredViews"]

SMALLEST_NORM = 1e-12
"""Of a vector; that of a text without tokens is zero."""


class StoredViews:
    """Reads the views of documents back, those of all chunks of one together.

    places: where documents stand in the rows. postings: None in an old index, of which Lucene has the impacts alone.
    """

    def __init__(
        self,
        settings: IndexSettings,
        rows: RowReader,
        places: DocumentRows,
        postings: Postings | None,
        source: LuceneSource,
    ) -> None:
        self._settings, self._rows, self._places = settings, rows, places
        self._postings, self._source = postings, source

    def of(self, stored: StoredDocument) -> Encoded:
        """Return both views of a document, one row; None for a view that the index has not."""
        encoder = self._settings.encoder
        dense = self.vectors([stored]) if encoder.dense_dim else None
        sparse = self.impacts([stored]) if encoder.vocab_size else None
        return Encoded(dense, sparse, np.zeros(1, bool))

    def vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return float32 (n, dense_dim): of each document the mean of its chunks' vectors, of unit length."""
        vectors = self._rows.vectors
        assert vectors is not None
        totals = np.array([vectors[slice(*self._places.span(one))].sum(axis=0) for one in documents], np.float32)
        totals = totals.reshape(-1, self._settings.encoder.dense_dim)
        lengths = np.linalg.norm(totals, axis=1, keepdims=True)
        unit: FloatArray = (totals / np.maximum(lengths, SMALLEST_NORM)).astype(np.float32)
        return unit

    def impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return float32 csr (n, vocab_size): of each document the largest weight that a term has in its chunks."""
        from scipy.sparse import csr_matrix, vstack

        empty = csr_matrix(np.zeros((0, self._settings.encoder.vocab_size), np.int32))
        rows = [self._impacts(range(*self._places.span(one))) for one in documents]
        rows = [row if row.shape[0] == 1 else row.max(axis=0).tocsr() for row in rows]
        impacts = csr_matrix(vstack([empty, *rows], "csr"), dtype=np.float32)
        impacts.data /= np.float32(self._settings.impact_scale)
        return impacts

    def _impacts(self, rows: range) -> csr_matrix:
        from scipy.sparse import vstack

        size = self._settings.encoder.vocab_size
        if self._postings is None:  # an old index; reading all of Lucene's takes a microsecond each
            found: csr_matrix = self._source.lucene.terms("impact", (len(self._places), size))[rows.start : rows.stop]
        else:
            each = [row_impacts(self._postings, row, size) for row in rows]
            found = each[0] if len(each) == 1 else vstack(each, "csr")
        return found

    def dense_chunks(self, vector: FloatArray, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the dense scores of the chunks of documents, for a query vector (dense_dim,); a zero one has none."""
        vectors = self._rows.vectors
        if vectors is None or not vector.any():
            return []
        found = []
        for doc_id, stored in documents.items():
            first = self._places.first(doc_id)
            scores = vectors.scores(slice(first, first + len(stored.chunks)), vector).tolist()
            found += [ScoredChunk(doc_id, number, score) for number, score in enumerate(scores)]
        return found

    def explain(self, terms: csr_matrix, doc_id: str, chunk: int) -> list[TermMatch]:
        """Return the vocabulary ids, as decimal terms, that query terms (1, vocab_size) share with a chunk."""
        matches = []
        impacts = self._impacts_of(terms.indices.tolist(), doc_id, chunk)
        for term, query_weight in zip(terms.indices.tolist(), terms.data.tolist(), strict=True):
            weight = impacts.get(term, 0) / self._settings.impact_scale
            if weight > 0 and query_weight > 0:
                matches.append(TermMatch("sparse", str(term), query_weight, weight, query_weight * weight))
        return sorted(matches, key=lambda match: (-match.contribution, match.term))

    def _impacts_of(self, terms: Sequence[int], doc_id: str, chunk: int) -> dict[int, float]:
        """Return the impacts of a chunk by vocabulary id, of those of these terms that it has."""
        if self._postings is None:  # an old index; a Java call each
            return {term: self._source.lucene.impact_of(str(term), doc_id, chunk) for term in terms}
        try:
            row = self._places.first(doc_id) + chunk
        except KeyError:
            return {}
        found = row_impacts(self._postings, row, self._settings.encoder.vocab_size, terms)
        return dict(zip(found.indices.tolist(), found.data.tolist(), strict=True))
