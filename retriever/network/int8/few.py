"""The steps of the int8 network for one short text, each compiled as a whole: `tiles` in place of matrix products.

The numbers are those of the batch path, rounded at the same places: whole numbers where it has them, bfloat16 in
attention. x: float32 (n, hidden), the tokens of one text. Matrices are packed, with scale and bias for each output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numba import f4, i4, i8, njit, types, u1, u2
from numba import int8 as i1

from retriever.network.int8.kernels import (
    FASTMATH,
    from_bfloat16,
    gelu,
    magnitude,
    power_of_two,
    quantise_row,
    to_bfloat16,
)
from retriever.network.int8.tiles import BLOCK, TILE, tile_bfloat16, tile_int8

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["add_experts", "add_product", "attend", "norm", "quantise", "vocabulary"]

Function = TypeVar("Function", bound="Callable[..., Any]")
F = np.float32
U = np.uint32
_tile8, _row8 = tile_int8
_tile16, _row16 = tile_bfloat16


def kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function when this module is imported, and keep what was compiled for later processes."""

    def compile_(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
        try:
            compiled: Any = njit([signature], cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            compiled = njit([signature], **options)(function)
        return cast("Function", compiled)

    return compile_


def _array(kind: Any, dimensions: int) -> Any:
    return types.Array(kind, dimensions, "C")


_ROWS = _array(f4, 2)
_VECTOR = _array(f4, 1)


@kernel(types.void(_ROWS, _VECTOR, _VECTOR, f4))
def norm(x: Floats, gain: Floats, shift: Floats, eps: float) -> None:
    """Normalise the rows of x in place (layer norm)."""
    n, k = x.shape
    for i in range(n):
        total = F(0)
        for j in range(k):
            total += x[i, j]
        mean = total / F(k)
        squares = F(0)
        for j in range(k):
            squares += (x[i, j] - mean) * (x[i, j] - mean)
        inverse = F(1) / np.sqrt(squares / F(k) + F(eps))
        for j in range(k):
            x[i, j] = (x[i, j] - mean) * inverse * gain[j] + shift[j]


@kernel(types.void(_ROWS, _array(i1, 2), _VECTOR))
def quantise(x: Floats, values: NDArray[np.int8], step: Floats) -> None:
    """Write rows of x as int8 values (n, hidden) and step (n,)."""
    n, k = x.shape
    for i in range(n):
        largest = U(0)
        for j in range(k):
            largest = max(largest, magnitude(x[i, j]))
        step[i] = quantise_row(x[i], largest, values[i])


@kernel(types.void(_array(i1, 2), _array(i4, 1)))
def _starts(values: NDArray[np.int8], start: NDArray[np.int32]) -> None:
    """Write what takes the 128 that weights have too much off the sums."""
    for i in range(values.shape[0]):
        total = np.int32(0)
        for j in range(values.shape[1]):
            total += np.int32(values[i, j])
        start[i] = np.int32(-128) * total


@kernel(types.void(_array(i1, 2), _array(u1, 3), _array(i4, 2)))
def _product(values: NDArray[np.int8], weights: NDArray[np.uint8], sums: NDArray[np.int32]) -> None:
    """Write the product of int8 rows (n, in) with a matrix of m blocks to sums (n, m * BLOCK)."""
    n, width = values.shape
    blocks, steps, _ = weights.shape
    start = np.empty(n, np.int32)
    _starts(values, start)
    stride = np.int64(sums.shape[1] * 4)
    for block in range(blocks):
        place = np.int64(weights.ctypes.data) + block * steps * 4 * BLOCK
        i = 0
        while i < n:
            x = np.int64(values.ctypes.data) + i * width
            begin = np.int64(start.ctypes.data) + i * 4
            out = np.int64(sums.ctypes.data) + i * stride + block * 4 * BLOCK
            if n - i >= TILE:
                _tile8(x, np.int64(width), place, np.int64(steps), begin, out, stride)
                i += TILE
            else:
                _row8(x, np.int64(width), place, np.int64(steps), begin, out, stride)
                i += 1


@kernel(types.void(_ROWS, _array(u2, 3), _VECTOR, _ROWS))
def _project(x: Floats, weights: NDArray[np.uint16], bias: Floats, out: Floats) -> None:
    """Write x as bfloat16 times a bfloat16 matrix, plus bias (m * BLOCK,), rounded to bfloat16, to out."""
    n, width = x.shape
    blocks, steps, _ = weights.shape
    narrow = np.empty((n, width), np.uint16)
    for i in range(n):
        for j in range(width):
            narrow[i, j] = to_bfloat16(x[i, j])
    zero = np.zeros(TILE, np.float32)
    begin = np.int64(zero.ctypes.data)
    stride = np.int64(out.shape[1] * 4)
    for block in range(blocks):
        place = np.int64(weights.ctypes.data) + block * steps * 4 * BLOCK
        i = 0
        while i < n:
            row = np.int64(narrow.ctypes.data) + i * 2 * width
            into = np.int64(out.ctypes.data) + i * stride + block * 4 * BLOCK
            if n - i >= TILE:
                _tile16(row, np.int64(2 * width), place, np.int64(steps), begin, into, stride)
                i += TILE
            else:
                _row16(row, np.int64(2 * width), place, np.int64(steps), begin, into, stride)
                i += 1
    for i in range(n):
        for j in range(out.shape[1]):
            out[i, j] = from_bfloat16(to_bfloat16(out[i, j] + bias[j]))
    zero[0] = 0  # it must live until here


@kernel(types.void(_ROWS, i8, i8, _ROWS))
def _mix(qkv: Floats, heads: int, width: int, mixed: Floats) -> None:
    """Write what each token finds in its text to mixed (n, width); qkv (n, >= 3 * width), scores are powers of 2."""
    n = qkv.shape[0]
    size = width // heads
    weights = np.empty(n, np.float32)
    for head in range(heads):
        begin = head * size
        for i in range(n):
            total = F(0)
            query = qkv[i, begin : begin + size]
            for j in range(n):
                key = qkv[j, width + begin : width + begin + size]
                score = F(0)
                for d in range(size):
                    score += query[d] * key[d]
                weights[j] = from_bfloat16(to_bfloat16(score))
            for j in range(n):
                weights[j] = from_bfloat16(to_bfloat16(power_of_two(weights[j])))
                total += weights[j]
            found = mixed[i, begin : begin + size]
            found[:] = F(0)
            for j in range(n):
                value = qkv[j, 2 * width + begin : 2 * width + begin + size]
                for d in range(size):
                    found[d] += weights[j] * value[d]
            inverse = F(1) / total
            for d in range(size):
                found[d] = from_bfloat16(to_bfloat16(found[d])) * inverse


@kernel(types.void(_ROWS, i8, _array(u2, 3), _VECTOR, _array(u1, 3), _VECTOR, _VECTOR))
def attend(
    x: Floats,
    heads: int,
    qkv: NDArray[np.uint16],
    qkv_bias: Floats,
    out: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
) -> None:
    """Add self-attention to x."""
    n, width = x.shape
    projected = np.empty((n, qkv_bias.size), np.float32)
    _project(x, qkv, qkv_bias, projected)
    mixed = np.empty((n, width), np.float32)
    _mix(projected, heads, width, mixed)
    values, step = np.empty((n, width), np.int8), np.empty(n, np.float32)
    quantise(mixed, values, step)
    sums = np.empty((n, out.shape[0] * BLOCK), np.int32)
    _product(values, out, sums)
    for i in range(n):
        for j in range(width):
            x[i, j] += F(sums[i, j]) * step[i] * scale[j] + bias[j]


@kernel(
    types.void(
        *(_array(i1, 2), _VECTOR, _array(i8, 2), _ROWS),
        *(_array(u1, 4), _ROWS, _ROWS, _array(u1, 4), _ROWS, _ROWS, _ROWS),
    )
)
def add_experts(
    values: NDArray[np.int8],
    step: Floats,
    chosen: NDArray[np.int64],
    share: Floats,
    up: NDArray[np.uint8],
    up_scale: Floats,
    up_bias: Floats,
    down: NDArray[np.uint8],
    down_scale: Floats,
    down_bias: Floats,
    out: Floats,
) -> None:
    """Add to out (n, hidden) what the chosen experts (n, active), each times its share, make of quantised tokens.

    The experts' matrices and vectors stand one after another: a feed-forward layer is one expert that all choose.
    """
    n, width = values.shape
    active = chosen.shape[1]
    inner_width = up_scale.shape[1]
    sent, places = np.empty((n, width), np.int8), np.empty(n * active, np.int64)
    inner, inner_step = np.empty((n, inner_width), np.int8), np.empty(n, np.float32)
    row = np.empty(inner_width, np.float32)
    sums = np.empty((n, max(up.shape[1], down.shape[1]) * BLOCK), np.int32)
    for expert in range(up.shape[0]):
        count = 0
        for place in range(n * active):
            if chosen[place // active, place % active] == expert:
                places[count] = place
                sent[count] = values[place // active]
                count += 1
        if count == 0:
            continue
        hidden = sums.ravel()[: count * up.shape[1] * BLOCK].reshape((count, up.shape[1] * BLOCK))
        _product(sent[:count], up[expert], hidden)
        for i in range(count):
            largest = U(0)
            own = step[places[i] // active]
            for j in range(inner_width):
                row[j] = gelu(F(hidden[i, j]) * own * up_scale[expert, j] + up_bias[expert, j])
                largest = max(largest, magnitude(row[j]))
            inner_step[i] = quantise_row(row, largest, inner[i])
        found = sums.ravel()[: count * down.shape[1] * BLOCK].reshape((count, down.shape[1] * BLOCK))
        _product(inner[:count], down[expert], found)
        for i in range(count):
            token, own = places[i] // active, share[places[i] // active, places[i] % active]
            for j in range(width):
                value = F(found[i, j]) * inner_step[i] * down_scale[expert, j] + down_bias[expert, j]
                out[token, j] += own * value


@kernel(types.void(_array(i1, 2), _VECTOR, _array(u1, 3), _VECTOR, _VECTOR, _ROWS))
def add_product(
    values: NDArray[np.int8], step: Floats, weights: NDArray[np.uint8], scale: Floats, bias: Floats, out: Floats
) -> None:
    """Add a linear layer of quantised rows to out (n, m)."""
    sums = np.empty((values.shape[0], weights.shape[0] * BLOCK), np.int32)
    _product(values, weights, sums)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += F(sums[i, j]) * step[i] * scale[j] + bias[j]


@kernel(types.void(_array(i1, 2), _VECTOR, _array(u1, 3), _VECTOR, _VECTOR, _array(i4, 1), _VECTOR))
def vocabulary(
    values: NDArray[np.int8],
    step: Floats,
    weights: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    stem: NDArray[np.int32],
    out: Floats,
) -> None:
    """Write log(1 + relu(largest logit over the tokens)) of terms, the largest of each stem, to out (vocab,) of 0."""
    n = values.shape[0]
    sums = np.empty((n, BLOCK), np.int32)
    best = np.empty(BLOCK, np.float32)
    for block in range(weights.shape[0]):
        _product(values, weights[block : block + 1], sums)
        for j in range(BLOCK):
            best[j] = F(sums[0, j]) * step[0]
        for i in range(1, n):
            for j in range(BLOCK):
                found = F(sums[i, j]) * step[i]
                best[j] = found if found > best[j] else best[j]
        first = block * BLOCK
        for j in range(min(BLOCK, stem.size - first)):
            logit = best[j] * scale[first + j] + bias[first + j]
            if logit > F(0):
                weight = np.log1p(logit)
                at = max(stem[first + j], np.int32(0))
                out[at] = max(out[at], weight)
