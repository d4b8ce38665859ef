"""BM25 as an inner product: saturated counts of the terms of a document, and idf of the terms of a query.

score(q, d) = sum over terms t of   idf(t) * count of t in q   *   tf / (tf + k1 (1 - b + b length / mean length))
                                    what a query holds             what a point holds

The numbers are those of Lucene's BM25Similarity, which computes in single precision and keeps lengths above 40 as the
next lower of fewer and fewer values. What a point holds depends on the mean length, which changes with every document:
it is that of the time when the point was written, and `exact_scores` gives the score of today.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from retriever.qdrant.engine import SparseVector
    from retriever.types import FloatArray

__all__ = ["Collection", "QueryWords", "counts_of", "exact_scores", "idf", "saturated", "stored_length"]

FREE_VALUES = 24
"""Lengths up to this stand for themselves (SmallFloat.intToByte4)."""


class Collection(NamedTuple):
    """What BM25 knows of all chunks: how many have a term, how many terms they have together; its parameters."""

    documents: int
    terms: int
    k1: float
    b: float

    @property
    def mean_length(self) -> float:
        """Return the mean length as a float32 value, 1 of nothing."""
        return float(np.float32(self.terms / self.documents)) if self.documents else 1.0

    def inverse_norm(self, length: int, mean_length: float | None = None) -> np.float32:
        """Return 1 / (k1 (1 - b + b length / mean length)) of a text, today's mean length by default."""
        one, k1, b = np.float32(1), np.float32(self.k1), np.float32(self.b)
        mean = np.float32(self.mean_length if mean_length is None else mean_length)
        with np.errstate(divide="ignore"):  # k1 = 0
            found: np.float32 = one / (k1 * ((one - b) + b * np.float32(stored_length(length)) / mean))
        return found


class QueryWords(NamedTuple):
    """Terms of a query: their indices in sparse vectors, uint32 (n,) ascending, and count * idf, float32 (n,)."""

    indices: NDArray[np.uint32]
    weights: NDArray[np.float32]


def stored_length(length: int) -> int:
    """Return what Lucene keeps of a length: four significant bits beyond the first values.

    >>> [stored_length(length) for length in (7, 40, 41, 42, 1000)]
    [7, 40, 40, 42, 984]
    """
    rest = length - FREE_VALUES
    if rest < 0:
        return length
    lost = max(0, rest.bit_length() - 4)
    return FREE_VALUES + (rest >> lost << lost)


def idf(frequency: int, documents: int) -> np.float32:
    """Return log(1 + (N - n + .5) / (n + .5)) of a term that n of N documents hold."""
    return np.float32(math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)))


def saturated(counts: FloatArray, inverse_norm: np.float32) -> FloatArray:
    """Return tf / (tf + 1 / inverse_norm) of counts (n,): what a point holds."""
    with np.errstate(over="ignore", invalid="ignore"):
        grown = counts.astype(np.float64) * np.float64(inverse_norm)
        found: FloatArray = np.where(np.isinf(grown), 1.0, grown / (1 + grown)).astype(np.float32)
    return found


def counts_of(values: FloatArray, inverse_norm: np.float32) -> FloatArray:
    """Return the counts of which `saturated` made these values; thousands of them to within their rounding."""
    wide = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        grown = np.rint(wide / ((1 - wide) * np.float64(inverse_norm)))
    found: FloatArray = np.maximum(grown, 1).astype(np.float32)
    return found


def term_scores(words: QueryWords, vector: SparseVector, old: np.float32, new: np.float32) -> FloatArray:
    """Return what each term of a query adds to the score of a point, float32 (n,), 0 for one that it has not.

    vector: what the point holds, indices ascending; old, new: the inverse norms of its length then and today.
    """
    scores = np.zeros(len(words.indices), np.float32)
    places = np.minimum(np.searchsorted(vector.indices, words.indices), max(0, len(vector.indices) - 1))
    shared = vector.indices[places] == words.indices if len(vector.indices) else np.zeros(len(places), bool)
    weights = words.weights[shared]
    one = np.float32(1)
    scores[shared] = weights - weights / (one + counts_of(vector.values[places[shared]], old) * new)
    return scores


def exact_scores(scores: FloatArray) -> float:
    """Return the score of a point from those of the terms, added up as Lucene does it."""
    return float(np.float32(scores.astype(np.float64).sum()))


def words_of(
    weights: Mapping[str, float], places: Mapping[str, tuple[int, int]], documents: int
) -> tuple[QueryWords, list[str]]:
    """Return the terms of a query that the collection holds, by index, and their names in the same order.

    places: of a term its index and how many documents hold it.
    """
    held = sorted((places[term][0], term) for term in weights if places.get(term, (0, 0))[1])
    values = [np.float32(weights[term]) * idf(min(places[term][1], documents), documents) for _, term in held]
    indices = np.array([index for index, _ in held], np.uint32)
    return QueryWords(indices, np.array(values, np.float32)), [term for _, term in held]
