"""Reference search by definition: every document is scored, all are sorted. The oracle of the tests."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from retriever.ranking import order
from retriever.types import Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

    from retriever.types import FloatArray

__all__ = ["exact_bm25", "exact_dense", "exact_sparse"]


def exact_dense(doc_ids: Sequence[str], vectors: FloatArray, query: FloatArray, top_k: int) -> Ranking:
    """Rank all documents by the inner product of vectors (n, dim) and query (dim,)."""
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return order(zip(doc_ids, scores.tolist(), strict=True), top_k=top_k)


def exact_sparse(doc_ids: Sequence[str], weights: csr_matrix, query: csr_matrix, top_k: int) -> Ranking:
    """Rank the documents that share a term with the query: weights (n, vocab_size), query (1, vocab_size)."""
    scores = (weights.astype(np.float64) @ query.astype(np.float64).T).toarray()[:, 0]
    found = np.flatnonzero(scores > 0).tolist()
    return order(((doc_ids[row], float(scores[row])) for row in found), top_k=top_k)


def exact_bm25(
    doc_ids: Sequence[str], texts: Sequence[Sequence[str]], query: Sequence[str], k1: float, b: float, top_k: int
) -> Ranking:
    """Rank the documents that hold a query term by BM25 as Lucene computes it: without the factor k1 + 1.

    texts, query: analysed terms. Documents without terms count for nothing. Lucene stores a length above 40 as the
    next lower of fewer and fewer values; here it is exact.

    >>> [hit] = exact_bm25(["a", "b"], [["x", "x"], ["y", "z"]], ["x"], k1=0.9, b=0.4, top_k=5)
    >>> hit.score == math.log(2) * 2 / (2 + 0.9)  # one document of two, of average length
    True
    """
    counts = [Counter(text) for text in texts]
    count, mean = sum(map(bool, texts)), sum(map(len, texts)) / max(1, sum(map(bool, texts)))
    frequencies = {term: sum(term in text for text in counts) for term in query}
    scores = [
        math.fsum(
            math.log(1 + (count - frequencies[term] + 0.5) / (frequencies[term] + 0.5))
            * (text[term] / (text[term] + k1 * (1 - b + b * text.total() / mean)))
            for term in query
            if term in text
        )
        for text in counts
    ]
    found = [row for row, text in enumerate(counts) if any(term in text for term in query)]
    return order(((doc_ids[row], float(scores[row])) for row in found), top_k=top_k)
