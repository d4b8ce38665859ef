"""Inner products of a query with rows of bytes by their upper halves first, compiled: a half of the memory is read.

The halves lie apart, and each row's halves of 2 * STEP numbers together: a byte has the half of one of the first STEP
in its lower bits, and above it that of one of the others. Of an upper half there is 8 more, so that it has no sign.

A byte is 16 times its upper half, from -8 to 7, plus its lower one, from 0 to 15, which is 7.5 with an error of 7.5 at
most. How far the product with a query is off is then no more than the norm of these errors times that of the query
(Cauchy and Schwarz): the few rows that may be among the nearest are read whole.

This module is imported to compile its functions alone: `machine_code` keeps what becomes of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import b1, f4, f8, i8, njit, types, u1
from numba.extending import intrinsic

from retriever.instructions import inner, vector_at
from retriever.machine_code import COMPILED
from retriever.network.int8.kernels.scan import GROUP, LONG, STEP, WHOLES, float_at, in_units, loaded, summed, total

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["nearest", "pack"]

LOWEST, SMALLEST = np.float32(-np.inf), np.finfo(np.float64).tiny
LARGEST_CODE, ROUNDING = 127, 1e-5
"""As in `retriever.index.vectors.whole_query`."""


def _halves_product(_typing: Any, upper: Any, query: Any, steps: Any) -> Any:
    """Return the inner product of the upper halves of a row, as they lie, with the query's signed bytes, int32."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        upper, query, steps = arguments
        lower, four = (WHOLES([value] * 16) for value in (0x0F0F0F0F, 4))

        def pairs(step: Any) -> list[tuple[Any, Any]]:
            both = loaded(builder, builder.add(upper, builder.mul(step, LONG(STEP))), 0)
            place = builder.add(query, builder.mul(step, LONG(2 * STEP)))
            halves = builder.and_(both, lower), builder.and_(builder.lshr(both, four), lower)
            return [(half, loaded(builder, place, part * STEP)) for part, half in enumerate(halves)]

        return total(builder, builder.add(*summed(builder, steps, 2, pairs)))

    return types.int32(types.int64, types.int64, types.int64), emit


def _whole_product(_typing: Any, upper: Any, lower: Any, query: Any, steps: Any) -> Any:
    """Return what `product` does for a row of which the halves lie apart."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        upper, lower, query, steps = arguments
        ones, lows, highs, signs = (WHOLES([value] * 16) for value in (0x01010101, 0x0F0F0F0F, 0xF0F0F0F0, 0x80808080))
        four, eight, fifteen = (WHOLES([bits] * 16) for bits in (4, 8, 15))

        def pairs(step: Any) -> list[tuple[Any, Any]]:
            up, low = (loaded(builder, builder.add(one, builder.mul(step, LONG(STEP))), 0) for one in (upper, lower))
            first = builder.or_(builder.and_(builder.shl(up, four), highs), builder.and_(low, lows))
            second = builder.or_(builder.and_(up, highs), builder.and_(builder.lshr(low, four), lows))
            place = builder.add(query, builder.mul(step, LONG(4 * STEP)))
            codes = [builder.xor(first, signs), builder.xor(second, signs)]
            factors = [loaded(builder, place, part * STEP) for part in range(4)]
            return [(factors[2 * part + half], codes[part]) for part in (0, 1) for half in (0, 1)] + [
                (ones, code) for code in codes
            ]

        sums = summed(builder, steps, 6, pairs)
        high, low, own = (builder.add(sums[one], sums[other]) for one, other in ((0, 2), (1, 3), (4, 5)))
        return total(builder, builder.sub(builder.add(builder.shl(high, eight), low), builder.shl(own, fifteen)))

    return types.int32(types.int64, types.int64, types.int64, types.int64), emit


halves_product: Any = intrinsic(_halves_product)
whole_product: Any = intrinsic(_whole_product)


def _pack(
    records: int, size: int, upper: Any, lower: Any, scales: Floats, lacking: Floats, largest: NDArray[np.float64]
) -> None:
    """Write the halves of all rows, (rows, dim / 2) each, their scales, and the norms of what the upper halves lack.

    records: the address of the first row: a scale (float32), then the codes; `size` bytes each. largest: (1,), the
    largest norm of a row of upper halves.
    """
    largest[0] = 0
    for row in range(upper.shape[0]):
        place = records + row * size
        codes = vector_at(place + 4, 2 * upper.shape[1], np.int8)
        errors_squared, found_squared = np.int64(0), np.int64(0)
        for step in range(upper.shape[1] // STEP):
            first = 2 * STEP * step
            for j in range(STEP):
                low, high = np.int32(codes[first + j]), np.int32(codes[first + STEP + j])
                upper[row, step * STEP + j] = ((low >> 4) + 8) | (((high >> 4) + 8) << 4)
                lower[row, step * STEP + j] = (low & 15) | ((high & 15) << 4)
                errors = 2 * (low & 15) - 15, 2 * (high & 15) - 15
                errors_squared += errors[0] * errors[0] + errors[1] * errors[1]
                found = 2 * low - errors[0], 2 * high - errors[1]
                found_squared += found[0] * found[0] + found[1] * found[1]
        scale = float_at(place)
        scales[row] = scale
        lacking[row] = abs(scale) * math.sqrt(np.float64(errors_squared)) / 2
        largest[0] = max(largest[0], abs(scale) * math.sqrt(np.float64(found_squared)) / 2)


@inner
def _approximate(
    upper: Any, scales: Floats, query: NDArray[np.int8], factor: Any, eligible: Any, scores: Floats, most: Floats
) -> None:
    """Write the scores of the eligible rows by their upper halves, minus infinity for others, and each GROUP's best."""
    less = np.int64(0)
    for i in range(query.size):
        less += 241 * np.int64(query[i])
    width, first_row = np.int64(upper.shape[1]), np.int64(upper.ctypes.data)
    steps, start = width // STEP, np.int64(query.ctypes.data)
    for group in range(most.size):
        best = LOWEST
        for row in range(group * GROUP, min(group * GROUP + GROUP, eligible.size)):
            score = LOWEST
            if eligible[row]:
                doubled = 32 * np.int64(halves_product(first_row + row * width, start, steps)) - less
                score = np.float32(doubled) * scales[row] * factor
            scores[row] = score
            best = max(best, score)
        most[group] = best


@inner
def _score(upper: Any, lower: Any, scales: Floats, query: NDArray[np.uint8], rows: Any, scores: Floats) -> None:
    """Write the scores of some rows by both halves."""
    width, start = np.int64(upper.shape[1]), np.int64(query.ctypes.data)
    above, below = np.int64(upper.ctypes.data), np.int64(lower.ctypes.data)
    for i in range(rows.size):
        place = rows[i] * width
        whole = whole_product(above + place, below + place, start, width // STEP)
        scores[i] = np.float32(whole) * scales[rows[i]]


@inner
def _least_of_best(given: Floats, top_k: Any, spare: Floats) -> Any:
    """Return the lowest of the best `top_k` values, minus infinity where there are fewer."""
    if top_k > given.size:
        return LOWEST
    values = spare[: given.size]
    for i in range(given.size):
        values[i] = given[i]
    first, last = 0, values.size - 1
    while first < last:  # Hoare's quickselect, of values in descending order
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if top_k - 1 <= j:
            last = j
        elif top_k - 1 >= i:
            first = i
        else:
            break
    return values[top_k - 1]


@inner
def _round(query: Floats, step: float, rounded: NDArray[np.int8]) -> Any:
    """Write a query in bytes of `step`; return how far off they are, squared."""
    off = np.float64(0)
    for i in range(query.size):
        value = np.float64(query[i])
        steps = np.rint(value / step)
        rounded[i] = np.int8(steps)
        off += (value - step * steps) ** 2
    return off


def _nearest(
    upper: Any,
    lower: Any,
    scales: Floats,
    lacking: Floats,
    largest: float,
    query: Floats,
    unit: float,
    error: float,
    top_k: int,
    eligible: NDArray[np.bool_],
    whole: NDArray[np.uint8],
    rounded: NDArray[np.int8],
    scores: Floats,
    most: Floats,
    rows: NDArray[np.int64],
    found: Floats,
    spare: Floats,
) -> int:
    """Write eligible rows, ascending, among which are the best and all ties with the last; return their number.

    upper, lower, scales, lacking, largest: as `pack` has them. query: (dim,), not zero. unit: what one is of the whole
    numbers that it is rounded to. error: how far the score of a row is off at most, in units. Written over: whole
    (2 * dim,), rounded (dim,), most (groups of GROUP,), scores, rows, found, spare (rows,).
    """
    highest, squares = np.float64(0), np.float64(0)
    for i in range(query.size):
        highest = max(highest, abs(np.float64(query[i])))
        squares += np.float64(query[i]) ** 2
    step = max(highest / LARGEST_CODE, SMALLEST)
    in_units(query, unit, whole)
    off = math.sqrt(_round(query, step, rounded)) / unit
    factor, norm = np.float32(step / unit / 2), np.float32((1 + ROUNDING) * math.sqrt(squares) / unit)
    slack = (off + ROUNDING * norm) * largest
    _approximate(upper, scales, rounded, factor, eligible, scores, most)
    # Groups have other best rows each: so many rows, at least, have as much as the last of the best groups.
    least = _least_of_best(most, top_k, spare)
    number = 0
    for group in range(most.size):
        if most[group] >= least:
            for row in range(group * GROUP, min(group * GROUP + GROUP, eligible.size)):
                if scores[row] >= least and eligible[row]:
                    rows[number] = row
                    number += 1
    _score(upper, lower, scales, whole, rows[:number], found)
    bound = np.float32(_least_of_best(found[:number], top_k, spare) - slack - error)
    number = 0
    for row in range(eligible.size):
        rows[number] = row
        number += eligible[row] and scores[row] + lacking[row] * norm >= bound
    _score(upper, lower, scales, whole, rows[:number], found)
    least = _least_of_best(found[:number], top_k, spare) - 2 * error
    kept = 0
    for i in range(number):
        rows[kept] = rows[i]
        kept += found[i] >= least
    return kept


def _array(kind: Any, dimensions: Any = 1) -> Any:
    return types.Array(kind, dimensions, "C")


HALVES, FLOATS = _array(u1, 2), _array(f4)
pack: Any = njit([types.void(i8, i8, HALVES, HALVES, FLOATS, FLOATS, _array(f8))], error_model="numpy", **COMPILED)(
    _pack
)
nearest: Any = njit(
    [
        i8(
            HALVES, HALVES, FLOATS, FLOATS, f8, FLOATS, f8, f8, i8, _array(b1), _array(u1), _array(types.int8), FLOATS,
            FLOATS, _array(i8), FLOATS, FLOATS,
        )
    ],
    error_model="numpy",
    **COMPILED,
)(_nearest)  # fmt: skip
