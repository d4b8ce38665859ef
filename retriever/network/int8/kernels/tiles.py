"""Products of a few rows with a matrix, compiled: a tile of 4 rows and 64 outputs is summed in registers.

A matrix library made for hundreds of rows takes longer to begin than a dozen rows take here. A matrix lies as its
products read it (`packed`): (blocks, steps, 64, 4) for int8, the 4 inputs of a step beside each other, or (blocks,
steps, 64, 2) for bfloat16. Processors have one instruction for such a step (AVX512-VNNI and AVX512-BF16); for those
without, the same sums are spelled out, int8 to the same whole numbers. Sums run over the inputs in their order, as
those of oneDNN's bfloat16 products do under AVX512-BF16: the numbers are the same to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from retriever.network.int8.kernels.packed import BLOCK, TILE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["processor_has", "tile_bfloat16", "tile_half", "tile_int8"]

LANES = 16
VECTORS = BLOCK // LANES
BYTE, WHOLE, LONG, FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
WHOLES, FLOATS = ir.VectorType(WHOLE, LANES), ir.VectorType(FLOAT, LANES)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def processor_has(feature: str) -> bool:
    """Say whether kernels may use an instruction set, by LLVM's name: the processor has it and numba is let use it."""
    config: Any = numba.config
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None or not config.ENABLE_AVX:
        return False
    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this processor
        return False
    return bool(found.get(feature)) and bool(found.get("avx512f"))


def _splat(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, WHOLE(0))
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), ir.Constant(WHOLES, [0] * LANES))


def _add_int8(native: bool) -> Callable[[Any, Any, Any, Any], Any]:
    """Return what emits sums + weights (uint8, 4 inputs a lane) * inputs (4 int8 in one whole number)."""

    def fast(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
        kind = ir.FunctionType(WHOLES, [WHOLES, WHOLES, WHOLES])
        step = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
        return builder.call(step, [sums, weights, _splat(builder, inputs)])

    def plain(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
        for place in range(4):
            value = builder.ashr(builder.shl(inputs, WHOLE(24 - 8 * place)), WHOLE(24))
            shifted = builder.lshr(weights, ir.Constant(WHOLES, [8 * place] * LANES))
            weight = builder.and_(shifted, ir.Constant(WHOLES, [255] * LANES))
            sums = builder.add(sums, builder.mul(weight, _splat(builder, value)))
        return sums

    return fast if native else plain


def _add_bfloat16(native: bool) -> Callable[[Any, Any, Any, Any], Any]:
    """Return what emits sums + weights (2 inputs a lane) * inputs (2 bfloat16 in one whole number)."""

    def fast(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
        pairs = ir.VectorType(_BFloat(), 2 * LANES)
        kind = ir.FunctionType(FLOATS, [FLOATS, pairs, pairs])
        step = builder.module.declare_intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", (), kind)
        values = [builder.bitcast(value, pairs) for value in (weights, _splat(builder, inputs))]
        return builder.call(step, [sums, *values])

    def plain(builder: Any, sums: Any, weights: Any, inputs: Any) -> Any:
        upper = 0xFFFF0000
        low = builder.shl(weights, ir.Constant(WHOLES, [16] * LANES)), builder.shl(inputs, WHOLE(16))
        high = builder.and_(weights, ir.Constant(WHOLES, [upper] * LANES)), builder.and_(inputs, WHOLE(upper))
        for weight, value in (low, high):
            product = builder.fmul(builder.bitcast(weight, FLOATS), _splat(builder, builder.bitcast(value, FLOAT)))
            sums = builder.fadd(sums, product)
        return sums

    return fast if native else plain


def make_tile(rows: int, vector: Any, add: Callable[[Any, Any, Any, Any], Any], vectors: int = VECTORS) -> Any:
    """Return a function for kernels: tile(x, stride, weights, steps, start, out, out_stride), addresses and bytes.

    It writes to `rows` rows of out, from `start` (one for each row) on, the sums over the steps of one block, which has
    16 outputs for each of its vectors.
    """

    @intrinsic
    def tile(_typing: Any, x: Any, stride: Any, weights: Any, steps: Any, start: Any, out: Any, out_stride: Any) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            x, stride, weights, steps, start, out, out_stride = arguments

            def at(base: Any, index: int, bytes_: Any, kind: Any) -> Any:
                address = builder.add(base, builder.mul(bytes_, LONG(index)))
                return builder.inttoptr(address, kind.as_pointer())

            begun = [
                _splat(builder, builder.load(at(start, row, LONG(4), vector.element), align=4)) for row in range(rows)
            ]
            before, loop = builder.block, builder.append_basic_block("steps")
            done = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(LONG)
            step.add_incoming(LONG(0), before)
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
            for row in range(rows):
                for one in sums[row]:
                    one.add_incoming(begun[row], before)
            place = builder.add(weights, builder.mul(step, LONG(4 * LANES * vectors)))
            read = [builder.load(at(place, i, LONG(64), WHOLES), align=4) for i in range(vectors)]
            row_place = builder.add(x, builder.mul(step, LONG(4)))
            added = []
            for row in range(rows):
                inputs = builder.load(at(row_place, row, stride, WHOLE), align=2)
                added.append([add(builder, sums[row][i], read[i], inputs) for i in range(vectors)])
            following = builder.add(step, LONG(1))
            step.add_incoming(following, loop)
            for row, i in np.ndindex(rows, vectors):
                sums[row][i].add_incoming(added[row][i], loop)
            builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
            builder.position_at_end(done)
            for row, i in np.ndindex(rows, vectors):
                into = builder.add(out, builder.mul(out_stride, LONG(row)))
                builder.store(added[row][i], at(into, i, LONG(64), vector), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), emit

    return tile


_int8, _bfloat16 = _add_int8(processor_has("avx512vnni")), _add_bfloat16(processor_has("avx512bf16"))
tile_int8 = make_tile(TILE, WHOLES, _int8), make_tile(1, WHOLES, _int8)
tile_bfloat16 = make_tile(TILE, FLOATS, _bfloat16), make_tile(1, FLOATS, _bfloat16)
tile_half = make_tile(2 * TILE, FLOATS, _bfloat16, VECTORS // 2), make_tile(1, FLOATS, _bfloat16, VECTORS // 2)
"""Of bfloat16, for blocks of half the outputs: as many as a head mostly has."""
