"""Adding up the postings of a block, compiled: what NumPy takes many passes for. Other threads run meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import b1, f4, f8, i8, njit, types, u1, u2, u4

from retriever.network.kernel_cache import keep_compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Wholes = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["best_rows"]

GROUP, SMALL_GROUP = 64, 16
"""Rows whose largest score is found first: where it is too small, they are not looked at one by one. Small groups tell
more about what many hits score at least.
"""
Function = TypeVar("Function", bound="Callable[..., Any]")


def kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function when this module is imported, and keep what was compiled for later processes."""

    def compile_(function: Function) -> Function:
        compiled: Any = njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})(function)
        keep_compiled(compiled)
        compiled.compile(signature)
        compiled.disable_compile()
        return cast("Function", compiled)

    return compile_


def given(kind: Any) -> Any:
    """Return the type of an array that is read."""
    return types.Array(kind, 1, "C", readonly=True)


def written(kind: Any) -> Any:
    """Return the type of an array that is written."""
    return types.Array(kind, 1, "C")


@kernel(types.void(given(u2), given(u1), f4, b1, written(f8)))
def _add(rows: NDArray[np.uint16], impacts: NDArray[np.uint8], weight: float, split: bool, scores: Floats) -> None:
    """Add the float32 products of a term's weight and impacts; `split`: some impacts stand in several parts."""
    if not split:
        for j in range(rows.size):
            scores[rows[j]] += np.float64(weight * np.float32(impacts[j]))
        return
    j = 0
    while j < rows.size:
        row, impact = rows[j], np.int64(0)
        while j < rows.size and rows[j] == row:
            impact += np.int64(impacts[j])
            j += 1
        scores[row] += np.float64(weight * np.float32(impact))


@kernel(types.void(given(f8), i8, i8, written(f8)))
def _largest_of_groups(scores: Floats, size: int, groups: int, largest: Floats) -> None:
    """Write the largest score of each group of `size` rows; none is below 0."""
    for group in range(groups):
        m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = 0.0
        for j in range(group * size, group * size + size, 8):  # eight at a time: LLVM makes vectors of them
            m0 = scores[j] if scores[j] > m0 else m0
            m1 = scores[j + 1] if scores[j + 1] > m1 else m1
            m2 = scores[j + 2] if scores[j + 2] > m2 else m2
            m3 = scores[j + 3] if scores[j + 3] > m3 else m3
            m4 = scores[j + 4] if scores[j + 4] > m4 else m4
            m5 = scores[j + 5] if scores[j + 5] > m5 else m5
            m6 = scores[j + 6] if scores[j + 6] > m6 else m6
            m7 = scores[j + 7] if scores[j + 7] > m7 else m7
        largest[group] = max(max(max(m0, m1), max(m2, m3)), max(max(m4, m5), max(m6, m7)))


@kernel(i8(given(f8), given(f8), i8, i8, f8, written(i8)))
def _rows_from(scores: Floats, largest: Floats, size: int, groups: int, least: float, rows: Wholes) -> int:
    """Write the rows with a score above 0, and of `least` or more; return their number."""
    count = 0
    for group in range(groups):
        if largest[group] >= least:
            for j in range(group * size, group * size + size):
                if scores[j] >= least and scores[j] > 0:
                    rows[count] = j
                    count += 1
    return count


_BLOCK = (given(u1), given(u2), given(u4), given(u4), given(u2))
_QUERY = (given(u4), given(f4), given(b1), i8, f8)


@kernel(i8(*_BLOCK, *_QUERY, written(f8), written(i8)))
def best_rows(
    data: NDArray[np.uint8],
    pairs: NDArray[np.uint16],
    terms: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    largest: NDArray[np.uint16],
    query: NDArray[np.uint32],
    weights: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    count: int,
    least: float,
    scores: Floats,
    rows: Wholes,
) -> int:
    """Write the best `count` of the eligible rows of a block, and what ties with the last or more; return the number.

    data, terms, starts, largest: the block. pairs: its data as uint16. query: terms (n,), with their weights (n,).
    eligible: (rows of the block,). least: what a row must score at least. scores (65,536): of the rows that are
    written those of the query, as float32 values. rows (65,536): the rows, ascending.
    """
    scores[:] = 0
    for i in range(query.size):
        place = np.searchsorted(terms, query[i])
        if place < terms.size and terms[place] == query[i]:
            start, end = np.int64(starts[place]), np.int64(starts[place + 1])
            postings = 2 * (end - start) // 3
            own, impacts = pairs[start : start + postings], data[2 * (start + postings) : 2 * start + 3 * postings]
            _add(own, impacts, weights[i], largest[place] > 255, scores)
    for j in range(eligible.size):
        scores[j] = np.float64(np.float32(scores[j])) * eligible[j]
    scores[eligible.size :] = 0  # there is something in a damaged block alone
    size = GROUP if count <= GROUP else SMALL_GROUP
    groups = (eligible.size + size - 1) // size
    most = np.empty(groups)
    _largest_of_groups(scores, size, groups, most)
    if count <= groups:  # so many rows at least reach what the best so many groups have
        least = max(least, np.partition(most, groups - count)[groups - count])
    return _rows_from(scores, most, size, groups, least, rows)
