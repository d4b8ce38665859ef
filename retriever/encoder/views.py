"""Views of texts, joined and picked by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.types import Encoded, EncodedByToken, TokenVectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.types import BoolArray, FloatArray

__all__ = ["joined", "joined_by_token", "picked", "picked_by_token", "unit"]


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Return the views of all parts, one or more with the same views each, in order."""
    dense = [part.dense for part in parts if part.dense is not None]
    return Encoded(
        np.concatenate(dense) if dense else None,
        _stacked([part.sparse for part in parts]),
        np.concatenate([part.truncated for part in parts]),
        _stacked([part.tokens for part in parts]),
        _chained([part.unread for part in parts]),
    )


def _chained(arrays: Sequence[BoolArray | None]) -> BoolArray | None:
    found = [array for array in arrays if array is not None]
    return np.concatenate(found) if found else None


def _stacked(matrices: Sequence[csr_matrix | None]) -> csr_matrix | None:
    found = [matrix for matrix in matrices if matrix is not None]
    if not found:
        return None
    from scipy.sparse import vstack  # a tenth of a second, which commands without texts do without

    stacked: csr_matrix = vstack(found, format="csr")
    return stacked


def picked(encoded: Encoded, rows: NDArray[np.integer]) -> Encoded:
    """Return the views of the texts in `rows` (n,), in that order."""
    dense, sparse, truncated, tokens, unread = encoded
    return Encoded(
        None if dense is None else dense[rows],
        None if sparse is None else sparse[rows],
        truncated[rows],
        None if tokens is None else tokens[rows],
        None if unread is None else unread[rows],
    )


def joined_by_token(parts: Sequence[EncodedByToken]) -> EncodedByToken:
    """Return all parts, one or more, as `joined` does, their token vectors, too."""
    tokens = [part.tokens for part in parts if part.tokens is not None]
    vectors = [part.vectors for part in tokens]
    counts = [part.counts for part in tokens]
    return EncodedByToken(
        joined([part.encoded for part in parts]),
        TokenVectors(np.concatenate(vectors), np.concatenate(counts)) if tokens else None,
    )


def picked_by_token(found: EncodedByToken, rows: NDArray[np.integer]) -> EncodedByToken:
    """Return the views and token vectors of the texts in `rows` (n,), in that order."""
    tokens = found.tokens
    if tokens is not None:
        ends = np.cumsum(tokens.counts)
        places = [np.arange(ends[row] - tokens.counts[row], ends[row]) for row in rows]
        chosen = np.concatenate([np.zeros(0, np.int64), *places])
        tokens = TokenVectors(tokens.vectors[chosen], tokens.counts[rows])
    return EncodedByToken(picked(found.encoded, rows), tokens)


def unit(vectors: FloatArray) -> FloatArray:
    """Return vectors (n, dim) of unit length; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: FloatArray = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found
