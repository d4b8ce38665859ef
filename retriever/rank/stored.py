"""What the index stores of documents that were found: vectors, sparse terms, words. Nothing is encoded.

A document that is split has the mean of its chunks' vectors, and of each term the largest weight.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from retriever.search.showing.passages import best_passages
from retriever.types import Span, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegQuery
    from retriever.search.steps import SearchAt
    from retriever.types import FloatArray

__all__ = ["impacts", "texts", "unit_vectors", "vectors", "words"]


def vectors(at: SearchAt, ids: Sequence[str]) -> FloatArray:
    """Return the vectors of documents, float32 (n, dense_dim), of unit length, zero for a text without tokens."""
    return at.view.reader.stored_vectors(_stored(at, ids))


def impacts(at: SearchAt, ids: Sequence[str]) -> csr_matrix:
    """Return the weights of the sparse terms of documents, float32 csr (n, vocab_size)."""
    return at.view.reader.stored_impacts(_stored(at, ids))


def words(at: SearchAt, ids: Sequence[str]) -> list[Counter[str]]:
    """Return how often each analysed term stands in each document."""
    return [
        Counter(token.term for token in at.view.reader.tokens(stored.document.contents)) for stored in _stored(at, ids)
    ]


def texts(at: SearchAt, query: LegQuery, ids: Sequence[str]) -> list[str]:
    """Return title and text of documents; of a split one those of the best chunk."""
    found = at.view.reader.stored(ids)
    if at.view.reader.settings.chunking is None:
        return [found[doc_id].document.contents for doc_id in ids]
    passages = best_passages(at.view.chunks(at.plan.legs, query, found), found, at.plan)
    best = {doc_id: passages[doc_id].chunks or found[doc_id].chunks for doc_id in ids}
    spans = {doc_id: [Span(chunks[0].start, chunks[0].end)] for doc_id, chunks in best.items()}
    return [found[doc_id].document.split(spans[doc_id])[0].contents for doc_id in ids]


def _stored(at: SearchAt, ids: Sequence[str]) -> list[StoredDocument]:
    found = at.view.reader.stored(ids)
    return [found[doc_id] for doc_id in ids]


def unit_vectors(at: SearchAt, ids: Sequence[str]) -> FloatArray:
    """Return a vector of unit length for each document, or zeros: the dense one, or else its sparse terms.

    Raises:
        UserError: the index has neither.
    """
    reader = at.view.reader
    if reader.has_dense:
        return vectors(at, ids)
    if not reader.has_sparse:
        raise UserError(f"{reader.path}: has no vectors to compare documents by; build the index with an encoder")
    terms = impacts(at, ids)
    found = terms[:, np.unique(terms.indices)].toarray()
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: FloatArray = (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
