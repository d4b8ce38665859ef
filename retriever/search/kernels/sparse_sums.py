"""The first step of the sparse leg's search: sums of 16 bits a row, and the rows that may be among the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.instructions import GROUP, add_group, inner, ones, vector_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wholes = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Sums = NDArray[np.uint16]

__all__ = ["BLOCK_FIELDS", "FEW", "MANY", "SMALL", "candidates", "first_from", "impact_from"]

BLOCK_FIELDS = 9
"""What `best_rows` is told of a block: its first row and its rows, its number of terms, the addresses of its terms,
starts, sizes, largest and data, and the step of its starts, as in `retriever.index.postings.blocks.Block`.
"""
FEW = 256
"""Where no more rows of a block are eligible, all of them are scored."""
MANY = 16_384
"""Where more rows of a block may be among the best, all rows are added up in float64."""
SMALL_GROUP = 16
"""Rows whose largest sum is found first: where it is too small, they are not looked at one by one. Small groups tell
more about what many hits reach at least.
"""
WINDOW = 128
"""Groups of 64 rows that all bitmaps are added to before the next ones: their sums stay in the first cache."""
HIGHEST = 65_535.0
"""The largest sum."""
BYTES, MOST_GROUPS, MOST_ROWS = 256, 65_536 // SMALL_GROUP, 65_536
SMALL = BYTES + MOST_GROUPS + MOST_ROWS
"""Numbers of 16 bits that the search of a block needs: the products of a weight, the largest sums of groups, and some
that are put in order."""


@inner
def first_from(values: Any, value: Any) -> int:
    """Return the place of the first of ascending values that is not below one."""
    low, high = 0, values.size
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def impact_from(rows: Any, impacts: Any, place: Any, row: Any) -> Any:
    """Return the impact of a row in a list from its place on: one above 255 stands in several parts, none is 0."""
    impact = np.int64(0)
    while place < rows.size and rows[place] == row:
        impact += np.int64(impacts[place])
        place += 1
    return impact


@inner
def _ordered(values: Sums, place: int) -> int:
    """Return the value that would stand at a place, were these in order (Hoare 1961, "Algorithm 65: find")."""
    first, last = 0, values.size - 1
    while first < last:
        pivot, i, j = values[(first + last) // 2], first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if place <= j:
            last = j
        elif place >= i:
            first = i
        else:
            break
    return int(np.int64(values[place]))


@inner
def _add_bitmaps(starts: Wholes, places: Wholes, ends: Wholes, weights: Sums, groups: int, sums: int) -> None:
    """Add all bitmaps. starts: their addresses. places, ends: those where their impacts begin, and end."""
    for first in range(0, groups, WINDOW):
        last = min(first + WINDOW, groups)
        for i in range(starts.size):
            bits, place, end, weight = vector_at(starts[i], groups, np.uint64), places[i], ends[i], weights[i]
            for group in range(first, last):
                add_group(sums + 2 * GROUP * group, bits[group], place, weight)
                place = min(place + ones(bits[group]), end)  # it is beyond the end in a damaged block alone
            places[i] = place


@inner
def _add_list(start: int, count: int, weight: Any, sums: Sums, products: Sums) -> None:
    """Add impact * weight // 256 to the sums of the rows of a list. products (256,): are written over."""
    rows, impacts = vector_at(start, count, np.uint16), vector_at(start + 2 * count, count, np.uint8)
    for impact in range(256):
        products[impact] = (np.uint32(impact) * np.uint32(weight)) >> np.uint32(8)
    for j in range(count):
        sums[rows[j]] += products[impacts[j]]


@inner
def _add_all(
    starts: Wholes, sizes: Wholes, weights: Sums, groups: int, sums: Sums, places: Wholes, weight: Sums, products: Sums
) -> None:
    """Add the rounded products of all terms to the sums, which were 0. Room: places (3, n), weight (n,)."""
    begin, impacts, end = places[0], places[1], places[2]
    bitmaps = 0
    for i in range(starts.size):
        if sizes[i] & 1:
            begin[bitmaps], impacts[bitmaps] = starts[i], starts[i] + 8 * groups
            end[bitmaps] = impacts[bitmaps] + sizes[i] // 2
            weight[bitmaps] = weights[i]
            bitmaps += 1
        else:
            _add_list(starts[i], sizes[i] // 2, weights[i], sums, products)
    _add_bitmaps(begin[:bitmaps], impacts[:bitmaps], end[:bitmaps], weight[:bitmaps], groups, sums.ctypes.data)


@inner
def _rounded(largest: Sums, weights: NDArray[np.float32], rounded: Sums) -> tuple[float, float, float]:
    """Write weights for sums of 16 bits; return how many times a score a sum is, how far above and below at most."""
    total, over, under, most = 0.0, 0.0, 0.0, 0.0
    for i in range(weights.size):
        impact, weight = np.float64(largest[i]), np.float64(weights[i])
        total += impact * weight
        over += impact / 512  # a weight is rounded by half of one at most, and then divided by 256,
        under += impact / 512 + np.ceil(impact / 255)  # a product is cut down to a whole number
        most = max(most, weight)
    scale = min((HIGHEST - over) / total, HIGHEST / 256 / most)
    for i in range(weights.size):
        rounded[i] = np.uint16(np.rint(np.float64(weights[i]) * 256 * scale))
    return scale, over, under


@inner
def _rows_from(sums: Sums, most: Sums, size: int, least: int, rows: Wholes) -> int:
    """Write the rows whose sum is at least so much; return their number, which counts those for which room lacks."""
    found = 0
    for group in range(most.size):
        if most[group] >= least:
            for j in range(group * size, group * size + size):
                if sums[j] >= least:
                    if found < rows.size:
                        rows[found] = j
                    found += 1
    return found


@inner
def _largest_of_groups(sums: Sums, size: int, most: Sums) -> None:
    """Write the largest sum of each group of `size` rows."""
    for group in range(most.size):
        largest = np.uint16(0)
        for j in range(group * size, group * size + size):
            largest = max(largest, sums[j])
        most[group] = largest


@inner
def _nth_largest(sums: Sums, most: Sums, size: int, count: int, values: Sums) -> int:
    """Return the largest sum but `count - 1`, 0 if there are not so many above 0. Room: values (65,536)."""
    least = 1
    if count <= most.size:  # so many rows at least reach what the best so many groups have
        for group in range(most.size):
            values[group] = most[group]
        least = max(1, _ordered(values[: most.size], most.size - count))
    found = 0
    for group in range(most.size):
        if most[group] >= least:
            for j in range(group * size, group * size + size):
                if sums[j] >= least:
                    values[found] = sums[j]
                    found += 1
    if found < count:
        return 0
    return _ordered(values[:found], found - count)


@inner
def _best_sums(sums: Sums, count: int, over: float, under: float, known: float, rows: Wholes, small: Sums) -> int:
    """Write the rows that may be among the best `count`; return their number, -1 if that cannot be told.

    A sum is at most `over` above the truth, and `under` below it; a row must reach a truth of `known`.
    """
    size = GROUP if count <= GROUP else SMALL_GROUP
    most, values = small[: sums.size // size], small[MOST_GROUPS:]
    _largest_of_groups(sums, size, most)
    least = int(np.floor(known * (1 - 1e-6) - under)) - 1
    found = _rows_from(sums, most, size, least, rows) if least > 0 else rows.size + 1
    if found > 2 * count:
        least = max(least, int(np.floor(_nth_largest(sums, most, size, count, values) - over - under)) - 2)
        found = _rows_from(sums, most, size, least, rows) if least > 0 else rows.size + 1
    return found if found <= rows.size else -1


@inner
def candidates(
    starts: Wholes,
    sizes: Wholes,
    largest: Sums,
    weights: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    count: int,
    known: float,
    sums: Sums,
    rows: Wholes,
    places: Wholes,
    halves: Sums,
    small: Sums,
) -> int:
    """Write the rows of a block that may be among the best `count`; return their number, -1 if that cannot be told.

    known: the score that a row must reach. Room: sums (65,536), places (3, n), halves (2, n), small (SMALL,).
    """
    rounded = halves[0, : starts.size]
    scale, over, under = _rounded(largest, weights, rounded)
    if over + under > HIGHEST / 4:
        return -1
    groups = (eligible.size + GROUP - 1) // GROUP
    sums[:] = 0
    _add_all(starts, sizes, rounded, groups, sums, places, halves[1], small[:BYTES])
    for j in range(eligible.size):
        sums[j] *= eligible[j]
    sums[eligible.size :] = 0  # there is something in a damaged block alone
    return _best_sums(sums[: groups * GROUP], count, over, under, known * scale, rows, small[BYTES:])
