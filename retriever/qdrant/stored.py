"""What a collection has stored of documents: texts, vectors, and why a chunk has its scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.index.chunks import ScoredChunk
from retriever.index.reading.explained import explained
from retriever.index.stored import read_stored
from retriever.index.vectors.row_formats import inner_products
from retriever.index.vectors.rows import TokenRecords
from retriever.qdrant.bm25 import exact_scores
from retriever.qdrant.engine import Has, SparseVector
from retriever.qdrant.points import chunk_id, token_bytes
from retriever.qdrant.scan import pages
from retriever.qdrant.search import scored_chunks, word_scores
from retriever.types import Encoded, Span, TermMatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.settings import IndexSettings
    from retriever.index.stored import StoredDocument
    from retriever.qdrant.bm25 import Collection, QueryWords
    from retriever.qdrant.engine import Engine, Record
    from retriever.types import Document, FloatArray

__all__ = ["StoredChunks"]

SMALLEST_NORM = 1e-12


class StoredChunks:
    """Gives what is stored under ids, and the scores of chunks by id: the half of a reader that does not search."""

    def __init__(self, path: str, engine: Engine, settings: IndexSettings, collection: Collection) -> None:
        self.path, self.engine, self.settings, self.collection = path, engine, settings, collection

    def _counts(self, text: str) -> Counter[str]:
        raise NotImplementedError

    def words_of(self, weights: Mapping[str, float]) -> tuple[QueryWords, list[str]]:
        """Return the terms of a query with their weights in BM25, and their names."""
        raise NotImplementedError

    def stored(self, ids: Iterable[str]) -> dict[str, StoredDocument]:
        """Return the documents of these ids with their chunks; unknown ids are left out."""
        wanted = {doc_id: chunk_id(doc_id, 0) for doc_id in ids}
        found = self.engine.get(list(wanted.values()), ["raw"]) if wanted else {}
        return {
            doc_id: read_stored(self.path, found[own].payload["raw"]) for doc_id, own in wanted.items() if own in found
        }

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents of these ids; unknown ids are left out."""
        return {doc_id: stored.document for doc_id, stored in self.stored(ids).items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Return those of the ids that the index does not have."""
        wanted = {doc_id: chunk_id(doc_id, 0) for doc_id in ids}
        found = self.engine.get(list(wanted.values()), ["chunk"]) if wanted else {}
        return [doc_id for doc_id, own in wanted.items() if own not in found]

    def chunk_texts(self, doc_id: str) -> list[str]:
        """Return title and text of each chunk of a document; raise KeyError for an unknown id."""
        stored = self.stored([doc_id])[doc_id]
        spans = stored.chunks or (Span(0, len(stored.document.text)),)
        return [chunk.contents for chunk in stored.document.split(spans)]

    def stored_tokens(self, ids: Sequence[str]) -> list[TokenRecords]:
        """Return the vectors of the tokens of each document, chunk by chunk; raise KeyError for an unknown id."""
        firsts = [chunk_id(doc_id, 0) for doc_id in ids]
        found = self.engine.get(firsts, ["chunks", "late"])
        others = {
            doc_id: [chunk_id(doc_id, number) for number in range(1, found[first].payload["chunks"])]
            for doc_id, first in zip(ids, firsts, strict=True)
        }
        if more := [own for part in others.values() for own in part]:
            found |= self.engine.get(more, ["late"])
        record = self.settings.row_format.token_record
        tokens = []
        for doc_id, first in zip(ids, firsts, strict=True):
            parts = [np.frombuffer(token_bytes(found[own].payload), record) for own in (first, *others[doc_id])]
            tokens.append(TokenRecords(np.concatenate(parts), np.array([len(part) for part in parts], np.int64)))
        return tokens

    def _chunks(self, ids: Sequence[str], vectors: str) -> list[Record]:
        """Return the chunks of documents with their vectors of this name."""
        found: list[Record] = []
        for page in pages(self.engine, Has("id", tuple(ids)), ["id", "chunk", "length", "mean"], [vectors]):
            found += page
        return found

    def _chunk(self, doc_id: str, chunk: int, vectors: str) -> Record | None:
        own = chunk_id(doc_id, chunk)
        return self.engine.get([own], ["length", "mean"], [vectors]).get(own)

    def bm25_chunks(self, text: str, ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the BM25 scores of the chunks of documents, of those that hold a term of the query."""
        return self.bm25_words_chunks(self._counts(text), ids)

    def bm25_words_chunks(self, weights: Mapping[str, float], ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the scores of the chunks of documents as `bm25_words` gives them, of those that hold a term."""
        words, _ = self.words_of(weights)
        if not len(words.indices) or not ids:
            return []
        return scored_chunks(
            self._chunks(ids, "bm25"), lambda record: exact_scores(word_scores(words, record, self.collection))
        )

    def sparse_chunks(self, terms: csr_matrix, ids: Sequence[str]) -> list[ScoredChunk]:
        """Return the sparse scores above 0 of the chunks of documents, for query terms (1, vocab_size)."""
        weights = np.zeros(self.settings.encoder.vocab_size, np.float32)
        weights[terms.indices] = terms.data

        def score(record: Record) -> float:
            vector = record.vectors.get("sparse")
            if not isinstance(vector, SparseVector):
                return 0.0
            return exact_scores(weights[vector.indices] * vector.values) / self.settings.impact_scale

        return scored_chunks(self._chunks(ids, "sparse"), score) if ids else []

    def dense_chunks(self, vector: FloatArray, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the dense scores of the chunks of documents, for a query vector (dense_dim,); a zero one has none."""
        if not vector.any() or not documents:
            return []
        records = self._chunks(list(documents), "dense")
        return [
            ScoredChunk(
                record.payload["id"],
                record.payload["chunk"],
                float(inner_products(self._dense(record)[None], vector)[0]),
            )
            for record in records
        ]

    def _dense(self, record: Record) -> FloatArray:
        """Return the vector of a chunk, zeros for one that has none."""
        vector = record.vectors.get("dense")
        return vector if isinstance(vector, np.ndarray) else np.zeros(self.settings.encoder.dense_dim, np.float32)

    def explain_bm25(self, text: str, doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return the analysed terms that a query shares with a chunk; the contributions add up to its score."""
        return self.explain_words(self._counts(text), doc_id, chunk)

    def explain_words(self, weights: Mapping[str, float], doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return what `explain_bm25` does for analysed terms with weights."""
        words, names = self.words_of(dict.fromkeys(weights, 1.0))
        record = self._chunk(doc_id, chunk, "bm25")
        if record is None or not names:
            return []
        scores = word_scores(words, record, self.collection).tolist()
        return explained({name: weights[name] for name in names}, dict(zip(names, scores, strict=True)))

    def explain_sparse(self, terms: csr_matrix, doc_id: str, chunk: int = 0) -> list[TermMatch]:
        """Return the vocabulary ids, as decimal terms, that query terms (1, vocab_size) share with a chunk."""
        record = self._chunk(doc_id, chunk, "sparse")
        vector = None if record is None else record.vectors.get("sparse")
        if not isinstance(vector, SparseVector):
            return []
        impacts = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
        matches = [
            TermMatch("sparse", str(term), own, weight, own * weight)
            for term, own in zip(terms.indices.tolist(), terms.data.tolist(), strict=True)
            if own > 0 and (weight := impacts.get(term, 0.0) / self.settings.impact_scale) > 0
        ]
        return sorted(matches, key=lambda match: (-match.contribution, match.term))

    def views(self, stored: StoredDocument) -> Encoded:
        """Return what is stored of a document's views, those of all its chunks together, one row."""
        encoder = self.settings.encoder
        dense = self.stored_vectors([stored]) if encoder.dense_dim else None
        sparse = self.stored_impacts([stored]) if encoder.vocab_size else None
        return Encoded(dense, sparse, np.zeros(1, bool))

    def stored_vectors(self, documents: Sequence[StoredDocument]) -> FloatArray:
        """Return float32 (n, dense_dim): of each document the mean of its chunks' vectors, of unit length."""
        totals = np.zeros((len(documents), self.settings.encoder.dense_dim), np.float32)
        for row, records in enumerate(self._of_each(documents, "dense")):
            for record in records:
                totals[row] += self._dense(record)
        lengths = np.linalg.norm(totals, axis=1, keepdims=True)
        unit: FloatArray = (totals / np.maximum(lengths, SMALLEST_NORM)).astype(np.float32)
        return unit

    def stored_impacts(self, documents: Sequence[StoredDocument]) -> csr_matrix:
        """Return float32 csr (n, vocab_size): of each document the largest weight that a term has in its chunks."""
        from scipy.sparse import csr_matrix

        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        for row, records in enumerate(self._of_each(documents, "sparse")):
            largest: dict[int, float] = {}
            for record in records:
                vector = record.vectors.get("sparse")
                if isinstance(vector, SparseVector):
                    for term, impact in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
                        largest[term] = max(impact, largest.get(term, 0.0))
            rows += [row] * len(largest)
            columns += sorted(largest)
            values += [largest[term] for term in sorted(largest)]
        shape = (len(documents), self.settings.encoder.vocab_size)
        impacts = csr_matrix((np.array(values, np.float32), (rows, columns)), shape=shape, dtype=np.float32)
        impacts.data /= np.float32(self.settings.impact_scale)
        return impacts

    def _of_each(self, documents: Sequence[StoredDocument], vectors: str) -> list[list[Record]]:
        """Return the chunks of each document, in their order, with their vectors of this name."""
        found: dict[str, list[Any]] = defaultdict(list)
        if documents:
            for record in self._chunks([one.document.doc_id for one in documents], vectors):
                found[record.payload["id"]].append(record)
        return [sorted(found[one.document.doc_id], key=lambda record: record.payload["chunk"]) for one in documents]
