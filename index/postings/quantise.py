"""Impacts: float term weights as the integers that Lucene keeps as term frequencies."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LARGEST_IMPACT", "heavy", "impact_query", "impact_strings", "quantise", "strongest", "token_strings"]

LARGEST_IMPACT = 65_535
"""Lucene adds up a document's frequencies in 32 bits: 32,768 terms of this size still fit."""


def quantise(weights: csr_matrix, scale: int) -> csr_matrix:
    """Return round(weights * scale) as int32, clipped to [0, LARGEST_IMPACT], zeros dropped.

    weights: csr (n, vocab_size). |w - q / scale| <= 0.5 / scale for 0 <= w <= LARGEST_IMPACT / scale.

    >>> from scipy.sparse import csr_matrix
    >>> quantise(csr_matrix([[0.0, 1.204, 0.004]]), 100).toarray().tolist()
    [[0, 120, 0]]
    """
    if not np.isfinite(weights.data).all():
        raise ValueError("a term weight is not finite")
    impacts = weights.copy()
    impacts.data = np.clip(np.rint(weights.data.astype(np.float64) * scale), 0, LARGEST_IMPACT).astype(np.int32)
    impacts.eliminate_zeros()
    return impacts


def strongest(weights: csr_matrix, count: int) -> csr_matrix:
    """Return csr (n, vocab_size) with the `count` largest weights of each row; of equal ones, the first terms.

    >>> from scipy.sparse import csr_matrix
    >>> strongest(csr_matrix([[1.0, 3.0, 2.0, 1.0], [0.0, 0.0, 5.0, 0.0]]), 3).toarray().tolist()
    [[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 5.0, 0.0]]
    """
    counts = np.diff(weights.indptr)
    order = np.lexsort((weights.indices, -weights.data, np.repeat(np.arange(len(counts)), counts)))
    ranks = np.arange(weights.nnz) - np.repeat(weights.indptr[:-1], counts)
    kept = weights.copy()
    kept.data[order[ranks >= count]] = 0
    kept.eliminate_zeros()
    return kept


def heavy(weights: csr_matrix, least: float) -> csr_matrix:
    """Return csr (n, vocab_size) without the weights below `least`.

    >>> from scipy.sparse import csr_matrix
    >>> heavy(csr_matrix([[1.0, 3.0, 0.5]]), 1.0).toarray().tolist()
    [[1.0, 3.0, 0.0]]
    """
    kept = weights.copy()
    kept.data[kept.data < least] = 0
    kept.eliminate_zeros()
    return kept


def impact_strings(impacts: csr_matrix) -> list[str]:
    """Write each row as "id|frequency id|frequency", the input of Lucene's delimitedTermFrequency filter.

    >>> from scipy.sparse import csr_matrix
    >>> impact_strings(csr_matrix([[0, 120, 7], [0, 0, 0]]))
    ['1|120 2|7', '']
    """
    terms, frequencies, ends = impacts.indices.tolist(), impacts.data.tolist(), impacts.indptr.tolist()
    pairs = [f"{term}|{frequency}" for term, frequency in zip(terms, frequencies, strict=True)]
    return [" ".join(pairs[start:end]) for start, end in itertools.pairwise(ends)]


def token_strings(counts: csr_matrix) -> list[str]:
    """Write the columns of each row's entries as "id id", the input of a whitespace tokeniser."""
    terms, ends = counts.indices.tolist(), counts.indptr.tolist()
    return [" ".join(map(str, terms[start:end])) for start, end in itertools.pairwise(ends)]


def impact_query(terms: csr_matrix) -> str:
    """Write one query row (1, vocab_size) as "id^weight id^weight" for Lucene's QueryParser.

    Weights are fixed-point (the parser knows no exponents); those below 1e-9 or negative are dropped.
    """
    if not np.isfinite(terms.data).all():
        raise ValueError("a query term weight is not finite")
    pairs = zip(terms.indices.tolist(), terms.data.tolist(), strict=True)
    return " ".join(f"{term}^{weight:.9f}" for term, weight in pairs if weight >= 1e-9)
