"""What the kernels of several legs share, beyond numba: addresses, bits, 64 rows of a bitmap at a time, and a heap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from retriever.machine_code import COMPILED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GROUP", "add_group", "inner", "lowest", "ones", "prefetch", "push", "vector_at"]

GROUP = 64
"""Rows whose bits stand together in a bitmap."""
WIDE = {"+avx512bw", "+avx512vbmi", "+avx512vbmi2"}
"""What a processor must have for 64 rows of a bitmap at a time; another takes one by one."""


Function = TypeVar("Function", bound="Callable[..., Any]")


def inner(function: Function) -> Function:
    """Compile a function as a part of those that call it: these alone are kept on disk."""
    return cast("Function", njit(error_model="numpy", **COMPILED)(function))


def instruction(code: Any) -> Any:
    """Return what numba compiles to `code`."""
    return intrinsic(code)


@instruction
def vector_at(context: Any, address: Any, count: Any, kind: Any) -> Any:
    """Return the numbers of a kind from an address on as an array; numba's own way is not for code that is kept."""
    made = types.Array(kind.dtype, 1, "C")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(made)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        first = builder.inttoptr(arguments[0], array.data.type)
        populate_array(array, data=first, shape=[arguments[1]], strides=[size], itemsize=size, meminfo=None)  # type: ignore[no-untyped-call]
        return array._getvalue()

    return made(types.int64, types.int64, kind), code


@instruction
def ones(context: Any, bits: Any) -> Any:
    """Return how many of 64 bits are set."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), code


@instruction
def lowest(context: Any, bits: Any) -> Any:
    """Return the place of the lowest of 64 bits that is set; one is."""

    def code(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), code


def _add_bits(sums: Any, bits: Any, impacts: Any, weight: Any) -> None:
    own, values = vector_at(sums, GROUP, np.uint16), vector_at(impacts, GROUP, np.uint8)
    for place in range(ones(bits)):
        own[lowest(bits)] += np.uint16((np.uint32(values[place]) * np.uint32(weight)) >> np.uint32(8))
        bits &= bits - np.uint64(1)


@instruction
def prefetch(context: Any, address: Any) -> Any:
    """Have the memory at an address read, which is to be looked at soon; nothing waits for it."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        read, most_local, data = word(0), word(3), word(1)
        builder.call(function, [builder.inttoptr(arguments[0], byte), read, most_local, data])
        return context.get_dummy_value()

    return types.void(types.int64), code


@instruction
def add_group(context: Any, sums: Any, bits: Any, impacts: Any, weight: Any) -> Any:
    """Add impact * weight // 256 to the sums of those of 64 rows whose bits are set; the impacts stand close together.

    sums: the address of the first one, of uint16 each. impacts: the address of the first one, uint8, 64 are readable.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if set(context.codegen().magic_tuple()[2].split(",")) >= WIDE:
            _add_wide(builder, *arguments)
        else:
            context.compile_internal(builder, _add_bits, signature, arguments)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64, types.int64, types.uint16), code


def _add_wide(builder: Any, sums: Any, bits: Any, impacts: Any, weight: Any) -> None:
    """Let the impacts fall into the places of the set bits by one instruction; multiply and add them 32 at a time."""
    byte, half, word = ir.IntType(8), ir.IntType(16), ir.IntType(32)
    halves, part = ir.VectorType(half, 32), ir.VectorType(byte, 32)

    def call(name: str, result: Any, *given: Any) -> Any:
        kind = ir.FunctionType(result, [value.type for value in given])
        function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
        return builder.call(function, given)

    def chosen(first: Any, second: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(word, len(places)), places))

    def from_(address: Any, offset: int, kind: Any) -> Any:
        return builder.inttoptr(builder.add(address, ir.IntType(64)(offset)), kind.as_pointer())

    # An expansion from memory takes ten times as long as one from a register: this instruction is not made part of it.
    low, high = (call("llvm.x86.avx.ldu.dq.256", part, from_(impacts, place, byte)) for place in (0, 32))
    packed = chosen(low, high, [*range(GROUP)])
    none = ir.Constant(ir.VectorType(byte, 64), [0] * 64)
    mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), 64))
    spread = call("llvm.x86.avx512.mask.expand.v64i8", none.type, packed, none, mask)
    undefined = ir.Constant(halves, ir.Undefined)
    weights = chosen(builder.insert_element(undefined, weight, word(0)), undefined, [0] * 32)
    for first in (0, 32):
        # 256 times the impact: its byte is the upper one of two, 64 stands for a byte of `none`
        places = [place for row in range(first, first + 32) for place in (64, row)]
        products = call(
            "llvm.x86.avx512.pmulhu.w.512", halves, builder.bitcast(chosen(spread, none, places), halves), weights
        )
        target = from_(sums, 2 * first, halves)
        builder.store(builder.add(builder.load(target, align=2), products), target, align=2)


@inner
def push(heap: Any, score: float) -> None:
    """Put a score in the place of the smallest one, which is the first of a heap."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= score:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = score
