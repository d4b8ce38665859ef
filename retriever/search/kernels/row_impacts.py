"""The impacts of one row in postings, which are stored term by term, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import i4, i8, njit, types, u4

from retriever.instructions import GROUP, inner, ones, prefetch, vector_at
from retriever.machine_code import COMPILED
from retriever.search.kernels.sparse_sums import first_from, impact_from

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["row_impacts"]

AHEAD = 24
"""Terms before one is looked up, its place is read: most of the time is waiting for memory."""


@inner
def _first_near(values: Any, value: Any, guess: Any) -> Any:
    """Return what `first_from` does, in a few steps where it is near a guess."""
    low, high, step = guess, guess, 4
    while low > 0 and values[low - 1] >= value:
        low, high, step = max(low - step, 0), low, 2 * step
    while high < values.size and values[high] < value:
        low, high, step = high + 1, min(high + step, values.size), 2 * step
    return low + first_from(values[low:high], value)


@inner
def _guess(count: Any, row: Any, block_rows: Any) -> Any:
    """Return about where a row stands in a list: rows with a term are spread over the block."""
    return row * count // block_rows


@inner
def _read_ahead(start: Any, size: Any, row: Any, block_rows: Any) -> None:
    """Have the place read where a row is looked up soon. size: as a `Block` has it."""
    prefetch(start + (row // 8 if size & 1 else 2 * _guess(size >> 1, row, block_rows)))


@inner
def _in_list(start: Any, count: Any, row: Any, block_rows: Any) -> Any:
    """Return the impact of a row in a list."""
    rows, impacts = vector_at(start, count, np.uint16), vector_at(start + 2 * count, count, np.uint8)
    return impact_from(rows, impacts, _first_near(rows, row, _guess(count, row, block_rows)), row)


@inner
def _in_bitmap(start: Any, count: Any, row: Any, block_rows: Any) -> Any:
    """Return the impact of a row by a bitmap."""
    groups = -(-block_rows // GROUP)
    bits, bit = vector_at(start, groups, np.uint64), np.uint64(1) << np.uint64(row % GROUP)
    own = row // GROUP
    if not count or not bits[own] & bit:
        return np.int64(0)
    place = np.int64(ones(bits[own] & (bit - np.uint64(1))))
    for group in range(own):
        place += ones(bits[group])
    # In a damaged block more bits may be set than there are impacts.
    return np.int64(vector_at(start + 8 * groups + min(place, count - 1), 1, np.uint8)[0])


def _row_impacts(
    data: int,
    block_rows: int,
    step: int,
    starts: NDArray[np.uint32],
    sizes: NDArray[np.uint32],
    row: int,
    impacts: NDArray[np.int32],
) -> None:
    """Write the impacts of a row of a block for some of its terms, 0 where it has none.

    data: the address of the block's bytes. starts, sizes (n,): of these terms, as a `Block` has them.
    """
    for i in range(starts.size):
        if i + AHEAD < starts.size:
            _read_ahead(data + step * np.int64(starts[i + AHEAD]), np.int64(sizes[i + AHEAD]), row, block_rows)
        start, count = data + step * np.int64(starts[i]), np.int64(sizes[i] >> np.uint32(1))
        if sizes[i] & np.uint32(1):
            impacts[i] = _in_bitmap(start, count, row, block_rows)
        else:
            impacts[i] = _in_list(start, count, row, block_rows)


def _array(kind: Any) -> Any:
    return types.Array(kind, 1, "C")


row_impacts: Any = njit(
    [types.void(i8, i8, i8, _array(u4), _array(u4), i8, _array(i4))],
    error_model="numpy",
    **COMPILED,
)(_row_impacts)
