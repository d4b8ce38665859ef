"""The inner products of a query with all rows of bytes, compiled: 64 numbers a step by AVX512-VNNI.

This module is imported to compile its functions alone: `machine_code` keeps what becomes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import b1, f4, f8, i8, njit, types, u1
from numba.extending import intrinsic

from retriever.instructions import inner
from retriever.machine_code import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = ["GROUP", "STEP", "approximate", "float_at", "in_units", "loaded", "product", "summed", "total"]

STEP = 64
"""Numbers of a row that are multiplied by one instruction."""
GROUP = 32
"""Rows of which the best is found, too."""
WHOLE, LONG, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
WHOLES = ir.VectorType(WHOLE, 16)


def loaded(builder: Any, address: Any, offset: int) -> Any:
    """Return 64 bytes from so many behind an address on."""
    place = builder.add(address, LONG(offset))
    return builder.load(builder.inttoptr(place, WHOLES.as_pointer()), align=4)


def summed(builder: Any, steps: Any, number: int, pairs: Callable[[Any], Sequence[tuple[Any, Any]]]) -> list[Any]:
    """Return sums of products over all steps, of which there is one at least, four in each of 16 whole numbers.

    pairs: gives of a step, for each of so many sums, 64 bytes without a sign and 64 with one.
    """
    kind = ir.FunctionType(WHOLES, [WHOLES, WHOLES, WHOLES])
    multiply = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
    before, loop = builder.block, builder.append_basic_block("steps")
    done = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(LONG)
    step.add_incoming(LONG(0), before)
    sums = [builder.phi(WHOLES) for _ in range(number)]
    for one in sums:
        one.add_incoming(WHOLES([0] * 16), before)
    added = [builder.call(multiply, [one, *pair]) for one, pair in zip(sums, pairs(step), strict=True)]
    following = builder.add(step, LONG(1))
    step.add_incoming(following, loop)
    for one, more in zip(sums, added, strict=True):
        one.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    return added


def total(builder: Any, sums: Any) -> Any:
    """Return the total of 16 whole numbers."""
    reduce_ = ir.FunctionType(WHOLE, [WHOLES])
    return builder.call(builder.module.declare_intrinsic("llvm.vector.reduce.add.v16i32", (), reduce_), [sums])


def _product(_typing: Any, codes: Any, query: Any, steps: Any) -> Any:
    """Return the inner product of signed bytes at an address with the query of whole numbers, int32.

    A whole number is 256 * (upper - 128) + lower, both of 8 bits without a sign, as the instruction wants them; the
    query lies as 64 upper bytes, 64 lower ones, and so on. What 128 adds is taken off with the sum of the codes.
    """

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        codes, query, steps = arguments
        ones, eight, fifteen = (WHOLES([value] * 16) for value in (0x01010101, 8, 15))

        def pairs(step: Any) -> list[tuple[Any, Any]]:
            row = loaded(builder, builder.add(codes, builder.mul(step, LONG(STEP))), 0)
            place = builder.add(query, builder.mul(step, LONG(2 * STEP)))
            return [(factor, row) for factor in (loaded(builder, place, 0), loaded(builder, place, STEP), ones)]

        upper, lower, own = summed(builder, steps, 3, pairs)
        return total(builder, builder.sub(builder.add(builder.shl(upper, eight), lower), builder.shl(own, fifteen)))

    return types.int32(types.int64, types.int64, types.int64), emit


def _float_at(_typing: Any, address: Any) -> Any:
    """Return the float32 at an address."""

    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], FLOAT.as_pointer()), align=1)

    return types.float32(types.int64), emit


product: Any = intrinsic(_product)
float_at: Any = intrinsic(_float_at)


def _array(kind: Any) -> Any:
    return types.Array(kind, 1, "C")


@inner
def in_units(query: NDArray[np.float32], unit: float, whole: NDArray[np.uint8]) -> None:
    """Write a query in units, as `product` takes it."""
    for i in range(query.size):
        units = np.int64(np.rint(np.float64(query[i]) / unit)) + (128 << 8)
        place = i // STEP * 2 * STEP + i % STEP
        whole[place], whole[place + STEP] = units >> 8, units & 255


def _approximate(
    records: int,
    size: int,
    query: NDArray[np.float32],
    unit: float,
    whole: NDArray[np.uint8],
    eligible: NDArray[np.bool_],
    scores: NDArray[np.float32],
    most: NDArray[np.float32],
) -> None:
    """Write the scores of the eligible rows, in units, and of all others minus infinity.

    records: the address of the first row: a scale (float32), then the codes; `size` bytes each. query: (dim,), which is
    rounded to whole numbers of units. whole (2 * dim,): written over. scores: float32 (rows,). most: the best score of
    each GROUP rows.
    """
    in_units(query, unit, whole)
    steps, start = query.size // STEP, np.int64(whole.ctypes.data)
    for group in range(most.size):
        best = np.float32(-np.inf)
        first = group * GROUP
        for row in range(first, min(first + GROUP, eligible.size)):
            score = np.float32(-np.inf)
            if eligible[row]:
                place = records + row * size
                score = np.float32(product(place + 4, start, steps)) * float_at(place)
            scores[row] = score
            best = max(best, score)
        most[group] = best


approximate: Any = njit(
    [types.void(i8, i8, _array(f4), f8, _array(u1), _array(b1), _array(f4), _array(f4))],
    error_model="numpy",
    **COMPILED,
)(_approximate)
