"""Pseudo-relevance feedback on what an encoder made of texts: vectors, and weights of sparse terms.

Formulas of arrays. Weights of the feedback documents (n,) sum to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.types import FloatArray

__all__ = ["average_vector", "idf", "moved_vector", "rm3_terms", "rocchio_terms", "shared_terms"]


def moved_vector(query: FloatArray, documents: FloatArray, shares: FloatArray, weight: float) -> FloatArray:
    """Return query + weight * weighted mean of the documents, of unit length (vector PRF, Li et al., 2108.11044).

    query (1, dim), documents (n, dim), shares (n,).
    """
    return _unit(query + np.float32(weight) * (shares[None] @ documents))


def average_vector(query: FloatArray, documents: FloatArray) -> FloatArray:
    """Return the mean of query (1, dim) and documents (n, dim), of unit length (the averages of 2108.11044)."""
    return _unit(np.concatenate([query, documents]).mean(axis=0, keepdims=True))


def _unit(vector: FloatArray) -> FloatArray:
    norm = np.linalg.norm(vector)
    unit: FloatArray = (vector / norm if norm > 0 else vector).astype(np.float32)
    return unit


def shared_terms(
    query: csr_matrix, documents: csr_matrix, shares: FloatArray, idf: FloatArray, *, terms: int, weight: float
) -> csr_matrix:
    """Return the query's terms with `weight` of their mass more, in the strongest terms of the weighted mean times idf.

    query (1, vocab_size), documents (n, vocab_size), shares (n,), idf (vocab_size,).
    """
    return _with_mass(query, _mean(documents, shares) * idf, terms, weight)


def rm3_terms(query: csr_matrix, documents: csr_matrix, shares: FloatArray, *, terms: int, weight: float) -> csr_matrix:
    """Return RM3 on impacts in place of counts: of the query's mass `weight` goes to the documents' terms."""
    from scipy.sparse import csr_matrix

    lengths = np.asarray(documents.sum(axis=1)).ravel()
    by_length = (shares / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    added = _with_mass(query, _mean(documents, by_length), terms, weight) - query
    return csr_matrix(query * np.float32(1 - weight) + added)


def rocchio_terms(query: csr_matrix, documents: csr_matrix, *, terms: int, weight: float) -> csr_matrix:
    """Return Rocchio on impacts in place of counts: query + weight * mean of unit documents, in units of the query."""
    from scipy.sparse import csr_matrix

    lengths = np.sqrt(np.asarray(documents.multiply(documents).sum(axis=1)).ravel())
    shares = 1 / np.where(lengths > 0, lengths, 1) / documents.shape[0]
    mean = _strongest(_mean(documents, shares.astype(np.float32)), terms)
    norm, own = np.linalg.norm(mean.data), np.sqrt(query.multiply(query).sum())
    return csr_matrix(query + mean * np.float32(weight * own / norm if norm > 0 else 0))


def _mean(documents: csr_matrix, shares: FloatArray) -> FloatArray:
    mean: FloatArray = np.asarray(documents.T @ shares, np.float32)  # (vocab_size,)
    return mean


def _strongest(weights: FloatArray, count: int) -> csr_matrix:
    """Return the `count` highest of weights (vocab_size,) from 0, of equal ones the first: csr (1, vocab_size)."""
    from scipy.sparse import csr_matrix

    held = np.flatnonzero(weights)
    kept = np.sort(held[np.argsort(-weights[held], kind="stable")[:count]])
    return csr_matrix((weights[kept], kept.astype(np.int32), [0, len(kept)]), shape=(1, len(weights)))


def _with_mass(query: csr_matrix, weights: FloatArray, terms: int, share: float) -> csr_matrix:
    from scipy.sparse import csr_matrix

    added = _strongest(weights, terms)
    mass = added.sum()
    return csr_matrix(query + added * np.float32(share * query.sum() / mass if mass > 0 else 0))


def idf(frequencies: NDArray[np.int64], texts: int) -> FloatArray:
    """Return log(1 + (N - n + 0.5) / (n + 0.5)), as in BM25."""
    found: FloatArray = np.log1p((texts - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    return found
