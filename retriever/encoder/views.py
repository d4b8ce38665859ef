"""Views of texts, joined and picked by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import vstack

from retriever.types import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.types import BoolArray

__all__ = ["joined", "picked"]


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
    return vstack(found, format="csr") if found else None


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
