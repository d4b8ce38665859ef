"""The dense view where the kernels have no step for it: by maximum, or with a matrix behind the pooling.

NumPy alone, a text at a time: the batch path and the one for queries give the same bits, whatever stands beside a text.
The matrix is not rounded to int8: a text meets it once, where each of its tokens meets those of the network.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = ["OwnTokens", "Projection", "pooled", "without_tokens"]


POOLING: dict[str, Callable[[FloatArray], Any]] = {
    "mean": lambda states: states.sum(0) / np.float32(len(states)),
    "cls": lambda states: states[0],
    "max": lambda states: states.max(0),
}


class Projection(NamedTuple):
    """A matrix float32 (dense_dim, hidden), a bias (dense_dim,), and what is applied to what they give."""

    weight: FloatArray
    bias: FloatArray
    activation: str


class OwnTokens(NamedTuple):
    """Which tokens are kept, bool (n,), and where the texts then end, int64 (texts + 1,)."""

    kept: NDArray[np.bool_]
    ends: NDArray[np.int64]


def without_tokens(ends: NDArray[np.int64], first: int, count: int) -> OwnTokens:
    """Leave out `count` tokens of each text from its token `first` on, but never its last one; ends: (texts + 1,)."""
    place = np.arange(ends[-1]) - np.repeat(ends[:-1], np.diff(ends))
    lengths = np.repeat(np.diff(ends), np.diff(ends))
    kept = (place < first) | (place >= first + count)
    kept[place == lengths - 1] = True
    return OwnTokens(kept, np.concatenate([[0], np.cumsum(np.add.reduceat(kept.astype(np.int64), ends[:-1]))]))


def pooled(x: FloatArray, ends: NDArray[np.int64], pooling: str, projection: Projection | None) -> FloatArray:
    """Return the dense view of the last hidden states x (n, hidden), float32 (texts, dense_dim) of unit length."""
    vectors: FloatArray = np.stack([POOLING[pooling](x[first:last]) for first, last in pairwise(ends)])
    if projection is not None:
        # einsum adds up in one order; a BLAS chooses one by how many rows and threads there are.
        vectors = np.stack([np.einsum("ij,j->i", projection.weight, row) + projection.bias for row in vectors])
        if projection.activation == "tanh":
            vectors = np.tanh(vectors)
    lengths = np.array([np.sqrt(np.einsum("i,i->", row, row)) for row in vectors], np.float32)
    unit: FloatArray = (vectors / np.maximum(lengths, np.float32(1e-12))[:, None]).astype(np.float32, copy=False)
    return unit
