"""Adding up postings, compiled: what NumPy takes several passes for. Other threads run meanwhile.

A block's postings are as `retriever.index.postings` has them; query terms come as places in its term table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["add_up"]

U1, U2, U4, I8 = (numba.types.Array(kind, 1, "C", readonly=True) for kind in (numba.u1, numba.u2, numba.u4, numba.i8))
F4, F8 = (numba.types.Array(kind, 1, "C") for kind in (numba.f4, numba.f8))


Function = TypeVar("Function", bound="Callable[..., Any]")


def kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function when this module is imported, and keep what was compiled for later processes."""

    def compile_(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            compiled: Any = njit([signature], cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            compiled = njit([signature], **options)(function)
        return cast("Function", compiled)

    return compile_


@kernel(numba.void(U2, U1, U4, U2, I8, numba.types.Array(numba.f4, 1, "C", readonly=True), F8))
def add_up(
    pairs: NDArray[np.uint16],
    data: NDArray[np.uint8],
    starts: NDArray[np.uint32],
    largest: NDArray[np.uint16],
    places: NDArray[np.int64],
    weights: NDArray[np.float32],
    scores: NDArray[np.float64],
) -> None:
    """Add to scores (65,536) the float32 products of impacts and the weights (n,) of the terms at `places` (n,).

    pairs, data: the same bytes as uint16 and as uint8.
    """
    for i in range(places.size):
        start, end = np.int64(starts[places[i]]), np.int64(starts[places[i] + 1])
        count = 2 * (end - start) // 3
        rows, impacts = pairs[start : start + count], data[2 * (start + count) : 2 * start + 3 * count]
        weight = weights[i]
        if largest[places[i]] < 256:
            for j in range(count):
                scores[rows[j]] += np.float64(weight * np.float32(impacts[j]))
        else:
            j = 0
            while j < count:
                row, impact = rows[j], np.int64(0)
                while j < count and rows[j] == row:
                    impact += np.int64(impacts[j])
                    j += 1
                scores[row] += np.float64(weight * np.float32(impact))
