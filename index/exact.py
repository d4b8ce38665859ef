"""Reference search by definition: every document is scored, all are sorted. The oracle of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.types import Ranking, ScoredDoc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from retriever.types import FloatArray

__all__ = ["exact_dense", "exact_sparse", "ranked"]


def ranked(doc_ids: Sequence[str], scores: Sequence[float], top_k: int) -> Ranking:
    """Order by (score descending, doc_id ascending), then cut.

    >>> [hit.doc_id for hit in ranked(["b", "a", "c"], [1.0, 1.0, 2.0], 2)]
    ['c', 'a']
    """
    pairs = zip(doc_ids, scores, strict=True)
    hits = [ScoredDoc(doc_id, float(score)) for doc_id, score in pairs]
    return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))[:top_k]


def exact_dense(doc_ids: Sequence[str], vectors: FloatArray, query: FloatArray, top_k: int) -> Ranking:
    """Rank all documents by the inner product of vectors (n, dim) and query (dim,)."""
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return ranked(doc_ids, scores.tolist(), top_k)


def exact_sparse(doc_ids: Sequence[str], weights: csr_matrix, query: csr_matrix, top_k: int) -> Ranking:
    """Rank the documents that share a term with the query: weights (n, vocab_size), query (1, vocab_size)."""
    scores = (weights.astype(np.float64) @ query.astype(np.float64).T).toarray()[:, 0]
    found = np.flatnonzero(scores > 0).tolist()
    return ranked([doc_ids[row] for row in found], [scores[row] for row in found], top_k)
