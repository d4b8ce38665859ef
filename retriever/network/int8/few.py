"""The steps of the int8 network for a few short texts, each compiled as a whole: `tiles` in place of matrix products.

The numbers are those of the batch path, to the bit: the same steps, rounded at the same places, whole numbers where it
has them, bfloat16 in attention. x: float32 (n, hidden), the tokens of some texts, text i from ends[i] to ends[i + 1].
Matrices are packed, with scale and bias for each output. Compiled code makes no arrays: floats, halves, wholes and
small are room for what a step needs meanwhile, and `single` knows how much that is.

This module is imported to compile its functions alone: `machine_code` keeps what becomes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import b1, f4, f8, i4, i8, u1, u2
from numba import int8 as i1

from retriever.network.int8 import kernels
from retriever.network.int8.kernels import (
    from_bfloat16,
    gelu,
    magnitude,
    power_of_two,
    quantise_row,
    to_bfloat16,
    total_of_bfloat16,
)
from retriever.network.int8.packed import BLOCK, TILE
from retriever.network.int8.products import ENDS, MATRIX, ROWS, VECTOR, add_product, array, kernel, product
from retriever.network.int8.shaped import shaped
from retriever.network.int8.tiles import tile_bfloat16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Halves = NDArray[np.uint16]
    Wholes = NDArray[np.int32]
    Bytes = NDArray[np.int8]
    Places = NDArray[np.int64]

__all__ = ["add_product", "attend", "feed", "norm", "pool", "quantise"]

F = np.float32
U = np.uint32
_tile16, _row16 = tile_bfloat16

_ROOM = (array(f4, 1), array(u2, 1), array(i4, 1), array(i1, 1))
_MATRICES = (array(u1, 4), ROWS, ROWS)
_NORM = (VECTOR, VECTOR, f8)

# The steps that the batch path has as functions of their own, too.
_batch: Any = kernels
norm = kernel(ROWS, *_NORM)(_batch.norm.py_func)
quantise = kernel(ROWS, array(i1, 2), VECTOR)(_batch.quantise.py_func)
pool = kernel(ROWS, ENDS, b1, ROWS)(_batch.pool.py_func)
_route = kernel(ROWS, ROWS, ROWS, array(i8, 2), ROWS)(_batch.route.py_func)


@kernel(i8, i8, i8, array(u2, 3), VECTOR, ROWS)
def _product16(x: Any, stride: Any, steps: Any, weights: Halves, zeros: Floats, out: Floats) -> None:
    """Write products of bfloat16 rows, `stride` bytes apart from the address x on, with a matrix of blocks to out.

    steps: of two inputs each, as many as the rows have of those of the weights. zeros: (TILE,).
    """
    n = out.shape[0]
    begin, out_stride = np.int64(zeros.ctypes.data), np.int64(out.shape[1] * 4)
    for block in range(weights.shape[0]):
        place = np.int64(weights.ctypes.data) + block * weights.shape[1] * 4 * BLOCK
        i = 0
        while i < n:
            row = x + i * stride
            into = np.int64(out.ctypes.data) + i * out_stride + block * 4 * BLOCK
            if n - i >= TILE:
                _tile16(row, stride, place, steps, begin, into, out_stride)
                i += TILE
            else:
                _row16(row, stride, place, steps, begin, into, out_stride)
                i += 1


@kernel(ROWS, array(u2, 3), VECTOR, array(u2, 2), array(u2, 2), ROWS, VECTOR)
def _project(
    x: Floats, weights: Halves, bias: Floats, out: Halves, narrow: Halves, sums: Floats, zeros: Floats
) -> None:
    """Write x as bfloat16 times a bfloat16 matrix, plus bias (m * BLOCK,), as bfloat16 to out (n, m * BLOCK)."""
    n, width = x.shape
    for i in range(n):
        for j in range(width):
            narrow[i, j] = to_bfloat16(x[i, j])
    _product16(np.int64(narrow.ctypes.data), np.int64(2 * width), np.int64(width // 2), weights, zeros, sums)
    for i in range(n):
        for j in range(out.shape[1]):
            out[i, j] = to_bfloat16(sums[i, j] + bias[j])


@kernel(array(u2, 2), i8, i8, array(u2, 3), array(u2, 3))
def _pack_head(qkv: Halves, begin: Any, width: int, keys: Halves, values: Halves) -> None:
    """Lay out keys and values of the head at `begin` of a text's qkv (n, >= 3 * width) as weights of products.

    keys: (blocks of texts' tokens, size / 2, 128), values: (blocks of size, n / 2, 128), 0 where there is nothing.
    """
    n = qkv.shape[0]
    keys[:] = 0
    values[:] = 0
    for j in range(n):
        block, lane = j // BLOCK, 2 * (j % BLOCK)
        for d in range(2 * keys.shape[1]):
            keys[block, d // 2, lane + d % 2] = qkv[j, width + begin + d]
            values[d // BLOCK, j // 2, 2 * (d % BLOCK) + j % 2] = qkv[j, 2 * width + begin + d]


@kernel(ROWS, i8, array(u2, 2), VECTOR)
def _weigh(scores: Floats, own: int, weights: Halves, total: Floats) -> None:
    """Write 2^score of the `own` keys as bfloat16 weights (n, length), 0 from there on, and their sum to total (n,)."""
    for i in range(weights.shape[0]):
        row = weights[i]
        for j in range(own):
            row[j] = to_bfloat16(power_of_two(from_bfloat16(to_bfloat16(scores[i, j]))))
        for j in range(own, row.size):
            row[j] = np.uint16(0)
        total[i] = total_of_bfloat16(row)


@kernel(array(u2, 2), i8, i8, ROWS, VECTOR, VECTOR, array(u2, 1))
def _mix(qkv: Halves, heads: int, length: int, mixed: Floats, zeros: Floats, floats: Floats, halves: Halves) -> None:
    """Write what each token finds in its text to mixed (n, width), in whose rows qkv (n, >= 3 * width) is of one text.

    length: n, padded as the batch path pads it: a sum's order depends on it.
    """
    n, width = mixed.shape
    size = width // heads
    key_blocks, value_blocks, pairs = (n + BLOCK - 1) // BLOCK, (size + BLOCK - 1) // BLOCK, (n + 1) // 2
    scores = shaped(floats, (n, key_blocks * BLOCK))
    floats = floats[scores.size :]
    found = shaped(floats, (n, value_blocks * BLOCK))
    total = floats[found.size : found.size + n]
    keys = shaped(halves, (key_blocks, size // 2, 2 * BLOCK))
    halves = halves[keys.size :]
    values = shaped(halves, (value_blocks, pairs, 2 * BLOCK))
    weights = shaped(halves[values.size :], (n, length))
    for head in range(heads):
        begin = np.int64(head * size)
        _pack_head(qkv, begin, width, keys, values)
        queries = np.int64(qkv.ctypes.data) + 2 * begin
        _product16(queries, np.int64(2 * qkv.shape[1]), np.int64(size // 2), keys, zeros, scores)
        _weigh(scores, n, weights, total)
        _product16(np.int64(weights.ctypes.data), np.int64(2 * length), np.int64(pairs), values, zeros, found)
        for i in range(n):
            inverse = F(1) / total[i]
            for d in range(size):
                mixed[i, begin + d] = from_bfloat16(to_bfloat16(found[i, d])) * inverse


@kernel(ROWS, ENDS, i8, i8, array(u2, 3), VECTOR, *MATRIX, *_NORM, *_ROOM)
def attend(
    x: Floats,
    ends: Places,
    heads: int,
    length_step: int,
    qkv: Halves,
    qkv_bias: Floats,
    out: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    gain: Floats,
    shift: Floats,
    eps: float,
    floats: Floats,
    halves: Halves,
    wholes: Wholes,
    small: Bytes,
) -> None:
    """Add self-attention to x, and normalise."""
    n, width = x.shape
    columns = qkv_bias.size
    zeros, floats = floats[:TILE], floats[TILE:]
    zeros[:] = F(0)
    projected, halves = shaped(halves, (n, columns)), halves[n * columns :]
    narrow, sums = shaped(halves, (n, width)), shaped(floats, (n, columns))
    _project(x, qkv, qkv_bias, projected, narrow, sums, zeros)
    mixed, floats = shaped(floats, (n, width)), floats[n * width :]
    for text in range(ends.size - 1):
        first, last = ends[text], ends[text + 1]
        length = (last - first + length_step - 1) // length_step * length_step
        _mix(projected[first:last], heads, length, mixed[first:last], zeros, floats, halves)
    values, step = shaped(small, (n, width)), floats[:n]
    quantise(mixed, values, step)
    add_product(values, step, out, scale, bias, x, wholes)
    norm(x, gain, shift, eps)


@kernel(array(i1, 2), VECTOR, *MATRIX, VECTOR, array(i1, 2), VECTOR, array(i4, 1), array(i4, 1))
def _inner(
    values: Bytes,
    step: Floats,
    up: NDArray[np.uint8],
    scale: Floats,
    bias: Floats,
    row: Floats,
    inner: Bytes,
    inner_step: Floats,
    wholes: Wholes,
    start: Wholes,
) -> None:
    """Write the activations of an expert for quantised rows (n, hidden) as int8 inner (n, m) and inner_step (n,)."""
    n, columns = values.shape[0], up.shape[0] * BLOCK
    hidden = shaped(wholes, (n, columns))
    product(values, up, hidden, start)
    for i in range(n):
        largest = U(0)
        for j in range(row.size):
            row[j] = gelu(F(hidden[i, j]) * step[i] * scale[j] + bias[j])
            largest = max(largest, magnitude(row[j]))
        inner_step[i] = quantise_row(row, largest, inner[i])


@kernel(ROWS, ROWS, i8, f4, *_MATRICES, *_MATRICES, ROWS, array(i8, 1), *_ROOM)
def feed(
    x: Floats,
    router: Floats,
    active: int,
    routed_scale: float,
    up: NDArray[np.uint8],
    up_scale: Floats,
    up_bias: Floats,
    down: NDArray[np.uint8],
    down_scale: Floats,
    down_bias: Floats,
    out: Floats,
    chosen: Places,
    floats: Floats,
    halves: Halves,
    wholes: Wholes,
    small: Bytes,
) -> None:
    """Add to out (n, hidden) what experts make of x, each token's `active` best ones; without a router all of them.

    Their matrices and vectors stand one after another: a feed-forward layer is one expert. x and out may be the same:
    every token is quantised before anything is added. Room: chosen (2 * active * n,).
    """
    n, width = x.shape
    experts, inner_width = up_scale.shape
    values, small = shaped(small, (n, width)), small[n * width :]
    sent, small = shaped(small, (n, width)), small[n * width :]
    inner = shaped(small, (n, inner_width))
    step, inner_step, sent_step = floats[:n], floats[n : 2 * n], floats[2 * n : 3 * n]
    floats = floats[3 * n :]
    row, floats = floats[:inner_width], floats[inner_width:]
    start, wholes = wholes[:n], wholes[n:]
    quantise(x, values, step)
    picked, places = shaped(chosen, (n, active)), chosen[n * active :]
    share = shaped(floats, (n, active))
    if router.shape[0]:
        logits = shaped(floats[n * active :], (n, experts))
        _route(x, router, logits, picked, share)
    else:
        picked[:] = 0
        share[:] = F(1)
    for expert in range(experts):
        count = 0
        for place in range(n * active):
            if picked[place // active, place % active] == expert:
                places[count] = place
                for j in range(width):
                    sent[count, j] = values[place // active, j]
                count += 1
        if count == 0:
            continue
        columns = down.shape[1] * BLOCK
        found = shaped(wholes, (count, columns))
        for i in range(count):
            sent_step[i] = step[places[i] // active]
        _inner(
            sent[:count],
            sent_step,
            up[expert],
            up_scale[expert],
            up_bias[expert],
            row,
            inner,
            inner_step,
            wholes,
            start,
        )
        product(inner[:count], down[expert], found, start)
        for i in range(count):
            token = places[i] // active
            own = share[token, places[i] % active] * routed_scale
            for j in range(width):
                value = F(found[i, j]) * inner_step[i] * down_scale[expert, j] + down_bias[expert, j]
                out[token, j] += own * value
