"""The lexical part of the sparse view: what a text's own tokens say, before any network.

A document's weight of a term is its expansion (the sparse head) plus `gain` times the saturated count of the term in
the whole text, BM25's term-frequency part (Robertson et al. 1994). A query's weight is the count of the term times its
inverse document frequency times a learned factor; a query needs no network for that (Formal et al. 2021, "SPLADE v2";
Geng et al. 2024, "Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers"). So the sparse
view starts from BM25 over WordPiece tokens and learns what BM25 lacks: other words for the same thing, and which words
matter.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = [
    "PRIOR_DOCUMENTS",
    "blended_fractions",
    "document_terms",
    "idf",
    "saturation",
    "token_counts",
]

K1 = 1.2
B = 0.75
MEAN_LENGTH = 150.0
"""Constants, so that a document's weights depend on that document alone: no collection's average enters them."""

PRIOR_DOCUMENTS = 300.0
"""How many documents the training data's document frequencies count for beside those of the index."""

Array = TypeVar("Array")  # numpy or torch: the formula is the same


def saturation(count: Array, length: Array) -> Array:
    """Return count / (count + K1 (1 - B + B length / MEAN_LENGTH)), in [0, 1); BM25's without its factor K1 + 1.

    count: occurrences of a term in a text of `length` tokens; numpy or torch arrays that broadcast.

    >>> saturation(1.0, 150.0)
    0.45454545454545453
    """
    return count / (count + K1 * (1 - B + B * length / MEAN_LENGTH))  # type: ignore[operator,return-value]


def idf(fraction: FloatArray) -> FloatArray:
    """Return log(1 + 1 / fraction), fraction the share of documents with the term: positive for every term."""
    weights: FloatArray = np.log1p(1 / fraction).astype(np.float32)
    return weights


def blended_fractions(prior: FloatArray, frequency: NDArray[np.int64], documents: int) -> FloatArray:
    """Return the share of documents with a term: the collection's own, with PRIOR_DOCUMENTS of the training data's.

    A small collection leans on the prior, a large one on itself (Dirichlet smoothing, Zhai and Lafferty 2001).
    """
    blended: FloatArray = ((frequency + PRIOR_DOCUMENTS * prior) / (documents + PRIOR_DOCUMENTS)).astype(np.float32)
    return blended


def token_counts(token_ids: Sequence[Sequence[int]], stem: NDArray[np.int32]) -> sparse.csr_matrix:
    """Return float32 (n, vocab_size): how often the tokens of each stem occur in each text.

    stem: (vocab_size,) the term that stands for each token; a token with -1 is not counted.
    """
    lengths = list(map(len, token_ids))
    terms = stem[np.fromiter(chain.from_iterable(token_ids), np.int64, sum(lengths))]
    if len(lengths) > 1:
        terms = np.where(terms < 0, terms, terms + np.repeat(np.arange(len(lengths)) * len(stem), lengths))
    places, counts = np.unique(terms[terms >= 0], return_counts=True)
    ends = places.searchsorted(np.arange(len(lengths) + 1) * len(stem))
    columns = (places % len(stem)).astype(np.int32)
    return sparse.csr_matrix((counts.astype(np.float32), columns, ends), (len(lengths), len(stem)))


def document_terms(counts: sparse.csr_matrix, gain: float) -> sparse.csr_matrix:
    """Return float32 (n, vocab_size): `gain` times the saturated counts of each document's tokens."""
    lengths = np.asarray(counts.sum(1)).ravel()
    terms = counts.copy()
    terms.data = np.float32(gain) * saturation(counts.data, np.repeat(lengths, np.diff(counts.indptr)))
    return terms
