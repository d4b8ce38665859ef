"""Products of rows with packed int8 matrices, compiled, for kernels whose machine code is kept.

values: int8 (n, in), quantised rows; a matrix is packed (`packed`), with a scale and a bias for each output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import f4, i4, i8, njit, types, u1
from numba import int8 as i1

from retriever.machine_code import COMPILED
from retriever.network.int8.kernels.packed import BLOCK, TILE
from retriever.network.int8.kernels.shaped import shaped
from retriever.network.int8.kernels.steps import EXACT
from retriever.network.int8.kernels.tiles import tile_int8

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wholes = NDArray[np.int32]
    Bytes = NDArray[np.int8]

__all__ = ["ENDS", "MATRIX", "ROWS", "VECTOR", "add_product", "array", "kernel", "multiply", "product", "starts"]

Function = TypeVar("Function", bound="Callable[..., Any]")
F = np.float32
_tile8, _row8 = tile_int8


def kernel(*kinds: Any) -> Callable[[Function], Function]:
    """Compile a function for arguments of these kinds."""

    def compile_(function: Function) -> Function:
        compiled: Any = njit([types.void(*kinds)], fastmath=EXACT, error_model="numpy", **COMPILED)(function)
        return cast("Function", compiled)

    return compile_


def array(kind: Any, dimensions: int) -> Any:
    """Return the kind of an array in one piece."""
    return types.Array(kind, dimensions, "C")


ROWS, VECTOR, ENDS = array(f4, 2), array(f4, 1), array(i8, 1)
MATRIX = (array(u1, 3), VECTOR, VECTOR)


@kernel(array(i1, 2), array(i4, 1))
def starts(values: Bytes, start: Wholes) -> None:
    """Write what takes the 128 that weights have too much off the sums."""
    for i in range(values.shape[0]):
        total = np.int32(0)
        for j in range(values.shape[1]):
            total += np.int32(values[i, j])
        start[i] = np.int32(-128) * total


@kernel(array(i1, 2), array(u1, 2), array(i4, 1), i8, i8)
def multiply(values: Bytes, weights: NDArray[np.uint8], start: Wholes, out: Any, stride: Any) -> None:
    """Write the product of int8 rows (n, in) with one block (steps, 256), BLOCK whole numbers of each row.

    start: (n,), see `starts`. out: the address of the first row, `stride` bytes before that of the next.
    """
    n, width = values.shape
    place, steps = np.int64(weights.ctypes.data), np.int64(weights.shape[0])
    i = 0
    while i < n:
        x = np.int64(values.ctypes.data) + i * width
        begin = np.int64(start.ctypes.data) + i * 4
        into = out + i * stride
        if n - i >= TILE:
            _tile8(x, np.int64(width), place, steps, begin, into, stride)
            i += TILE
        else:
            _row8(x, np.int64(width), place, steps, begin, into, stride)
            i += 1


@kernel(array(i1, 2), array(u1, 3), array(i4, 2), array(i4, 1))
def product(values: Bytes, weights: NDArray[np.uint8], sums: Wholes, start: Wholes) -> None:
    """Write the product of int8 rows (n, in) with a matrix of m blocks to sums (n, m * BLOCK); room: start (n,)."""
    starts(values, start)
    for block in range(weights.shape[0]):
        out = np.int64(sums.ctypes.data) + block * 4 * BLOCK
        multiply(values, weights[block], start, out, np.int64(sums.shape[1] * 4))


@kernel(array(i1, 2), VECTOR, *MATRIX, ROWS, array(i4, 1))
def add_product(
    values: Bytes,
    step: Floats,
    weights: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    out: Floats,
    wholes: Wholes,
) -> None:
    """Add a linear layer of quantised rows to out (n, m)."""
    n, columns = out.shape
    start, sums = wholes[:n], shaped(wholes[n:], (n, BLOCK))
    starts(values, start)
    for block in range(weights.shape[0]):
        multiply(values, weights[block], start, np.int64(sums.ctypes.data), np.int64(4 * BLOCK))
        first = block * BLOCK
        count = min(BLOCK, columns - first)
        for i in range(n):
            for j in range(count):
                out[i, first + j] += F(sums[i, j]) * step[i] * scale[first + j] + bias[first + j]
