"""The sparse leg's search of all blocks of postings, compiled. Other threads run meanwhile.

Two steps, exact to the last tie. First the products of weights and impacts, rounded to whole numbers, are added up in
16 bits a row: the sums of a block stay in the second cache, and bitmaps are added 64 rows at a time. No sum is off by
more than is known, so that all rows which may be among the best are found; these few are added up in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import b1, f4, f8, i8, njit, types, u2, u4

from retriever.instructions import GROUP, inner, lowest, ones, push, vector_at
from retriever.machine_code import COMPILED
from retriever.search.kernels.sparse_sums import FEW, candidates, first_from, impact_from

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wholes = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["best_rows"]


@inner
def _found_terms(
    block: Wholes,
    query: NDArray[np.uint32],
    weights: NDArray[np.float32],
    starts: Wholes,
    sizes: Wholes,
    largest: NDArray[np.uint16],
    own: NDArray[np.float32],
) -> int:
    """Write, of the query's terms that a block holds, what it says of them, and their weights; return their number."""
    terms = vector_at(block[3], block[2], np.uint32)
    found = 0
    for i in range(query.size):
        place = first_from(terms, query[i])
        if place < terms.size and terms[place] == query[i]:
            starts[found] = block[7] + block[8] * np.int64(vector_at(block[4], block[2], np.uint32)[place])
            sizes[found] = vector_at(block[5], block[2], np.uint32)[place]
            largest[found] = vector_at(block[6], block[2], np.uint16)[place]
            own[found] = weights[i]
            found += 1
    return found


@inner
def _score_by_bitmap(start: int, groups: int, end: int, weight: float, rows: Wholes, scores: Floats) -> None:
    """Add the products of one term to the scores of these rows, ascending; the term has a bitmap."""
    bits, impact = vector_at(start, groups, np.uint64), start + 8 * groups
    group = 0
    for j in range(rows.size):
        own, bit = rows[j] // GROUP, np.uint64(1) << np.uint64(rows[j] % GROUP)
        while group < own:
            impact += ones(bits[group])
            group += 1
        if bits[own] & bit:
            place = min(impact + ones(bits[own] & (bit - np.uint64(1))), end - 1)
            scores[j] += np.float64(weight * np.float32(vector_at(place, 1, np.uint8)[0]))


@inner
def _score_by_list(
    start: int, count: int, weight: float, rows: Wholes, scores: Floats, slots: NDArray[np.uint16]
) -> None:
    """Do so for a term with a list. slots: of each row of the block its place in `rows` from 1 on, else 0."""
    own, impacts = vector_at(start, count, np.uint16), vector_at(start + 2 * count, count, np.uint8)
    if 16 * rows.size < count:
        first = 0
        for j in range(rows.size):
            first += first_from(own[first:], np.uint16(rows[j]))
            scores[j] += np.float64(weight * np.float32(impact_from(own, impacts, first, rows[j])))
        return
    place = 0
    while place < count:
        row, impact = own[place], np.int64(impacts[place])
        place += 1
        while place < count and own[place] == row:
            impact += np.int64(impacts[place])
            place += 1
        if slots[row]:
            scores[slots[row] - 1] += np.float64(weight * np.float32(impact))


@inner
def _score(
    starts: Wholes,
    sizes: Wholes,
    weights: NDArray[np.float32],
    groups: int,
    rows: Wholes,
    scores: Floats,
    slots: NDArray[np.uint16],
) -> None:
    """Write the scores of these rows, ascending, but for the last rounding to float32."""
    scores[:] = 0
    for j in range(rows.size):
        slots[rows[j]] = j + 1
    for i in range(starts.size):
        count = sizes[i] // 2
        if sizes[i] & 1:
            _score_by_bitmap(starts[i], groups, starts[i] + 8 * groups + count, weights[i], rows, scores)
        else:
            _score_by_list(starts[i], count, weights[i], rows, scores, slots)
    for j in range(rows.size):
        slots[rows[j]] = 0


@inner
def _add_wide_bitmap(start: int, groups: int, end: int, weight: float, scores: Floats) -> None:
    """Add the products of one term to the scores of all rows; the term has a bitmap."""
    bits, place = vector_at(start, groups, np.uint64), start + 8 * groups
    for group in range(groups):
        left = bits[group]
        while left and place < end:
            impact = vector_at(place, 1, np.uint8)[0]
            scores[group * GROUP + lowest(left)] += np.float64(weight * np.float32(impact))
            left &= left - np.uint64(1)
            place += 1


@inner
def _add_wide_list(start: int, count: int, weight: float, scores: Floats) -> None:
    """Do so for a term with a list."""
    rows, impacts = vector_at(start, count, np.uint16), vector_at(start + 2 * count, count, np.uint8)
    place = 0
    while place < count:
        row, impact = rows[place], np.int64(impacts[place])
        place += 1
        while place < count and rows[place] == row:
            impact += np.int64(impacts[place])
            place += 1
        scores[row] += np.float64(weight * np.float32(impact))


@inner
def _score_all(starts: Wholes, sizes: Wholes, weights: NDArray[np.float32], groups: int, scores: Floats) -> None:
    """Write the scores of all rows of a block, but for the last rounding."""
    scores[:] = 0
    for i in range(starts.size):
        count = sizes[i] // 2
        if sizes[i] & 1:
            _add_wide_bitmap(starts[i], groups, starts[i] + 8 * groups + count, weights[i], scores)
        else:
            _add_wide_list(starts[i], count, weights[i], scores)


@inner
def _eligible_rows(eligible: NDArray[np.bool_], rows: Wholes) -> int:
    """Write the eligible rows; return their number, which counts those for which room lacks."""
    found = 0
    for j in range(eligible.size):
        found += eligible[j]
    if found <= rows.size:
        found = 0
        for j in range(eligible.size):
            if eligible[j]:
                rows[found] = j
                found += 1
    return found


@inner
def _taken(row: int, score: float, heap: Floats, rows: Wholes, scores: Floats, found: int) -> int:
    """Add a row to what is found, if its score, rounded to float32, is above 0 and not too small; return the number."""
    rounded = np.float64(np.float32(score))
    if rounded > 0 and rounded >= heap[0]:
        rows[found], scores[found] = row, rounded
        found += 1
        if rounded > heap[0]:
            push(heap, rounded)
    return found


@inner
def _kept(rows: Wholes, scores: Floats, found: int, least: float) -> int:
    """Keep what reaches so much; return the number."""
    kept = 0
    for j in range(found):
        if scores[j] >= least:
            rows[kept], scores[kept] = rows[j], scores[j]
            kept += 1
    return kept


def _best_rows(
    blocks: Wholes,
    query: NDArray[np.uint32],
    weights: NDArray[np.float32],
    eligible: NDArray[np.bool_],
    heap: Floats,
    wholes: Wholes,
    halves: NDArray[np.uint16],
    own: NDArray[np.float32],
    scratch: NDArray[np.uint16],
    slots: NDArray[np.uint16],
    small: NDArray[np.uint16],
    wide: Floats,
    chosen_rows: Wholes,
    chosen_scores: Floats,
    rows: Wholes,
    scores: Floats,
) -> int:
    """Write the eligible rows with the best scores above 0, and all that tie with the last; return the number.

    blocks: int64 (n, BLOCK_FIELDS). query: terms (n,), with their weights (n,). eligible: (all rows,). heap: 0, as many
    as the best rows that are wanted. wholes (5, n), halves (3, n), own (n,), scratch, wide (65,536), small (SMALL,),
    chosen_rows, chosen_scores (MANY,): written over. slots (65,536): 0 before and after. rows, scores (all rows,): what
    is found, in any order; the scores are float32 values.
    """
    found = 0
    for number in range(blocks.shape[0]):
        block = blocks[number]
        alive = eligible[block[0] : block[0] + block[1]]
        n = _found_terms(block, query, weights, wholes[0], wholes[1], halves[0], own)
        if not n:
            continue
        starts, sizes, used = wholes[0, :n], wholes[1, :n], own[:n]
        chosen = _eligible_rows(alive, chosen_rows[:FEW])
        if chosen > FEW:
            chosen = candidates(
                starts, sizes, halves[0, :n], used, alive, heap.size, heap[0], scratch, chosen_rows, wholes[2:],
                halves[1:], small,
            )  # fmt: skip
        groups = (block[1] + GROUP - 1) // GROUP
        if chosen >= 0:
            _score(starts, sizes, used, groups, chosen_rows[:chosen], chosen_scores[:chosen], slots)
            for j in range(chosen):
                found = _taken(block[0] + chosen_rows[j], chosen_scores[j], heap, rows, scores, found)
        else:
            _score_all(starts, sizes, used, groups, wide)
            for j in range(alive.size):
                found = _taken(block[0] + j, wide[j] * alive[j], heap, rows, scores, found)
        found = _kept(rows, scores, found, heap[0])
    return found


def _array(kind: Any, dimensions: Any = 1) -> Any:
    return types.Array(kind, dimensions, "C")


best_rows: Any = njit(
    [
        i8(
            _array(i8, 2), _array(u4), _array(f4), _array(b1), _array(f8), _array(i8, 2), _array(u2, 2), _array(f4),
            _array(u2), _array(u2), _array(u2), _array(f8), _array(i8), _array(f8), _array(i8), _array(f8),
        )
    ],
    error_model="numpy",
    **COMPILED,
)(_best_rows)  # fmt: skip
