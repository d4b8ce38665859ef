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

from retriever.network.int8.kernels import steps
from retriever.network.int8.kernels.packed import BLOCK, FED, HALF, PORTION, STRIP, TILE
from retriever.network.int8.kernels.products import ENDS, MATRIX, ROWS, VECTOR, add_product, array, kernel, product
from retriever.network.int8.kernels.shaped import shaped
from retriever.network.int8.kernels.steps import (
    from_bfloat16,
    gelu,
    magnitude,
    power_of_two,
    quantise_row,
    to_bfloat16,
    total_of_bfloat16,
)
from retriever.network.int8.kernels.tiles import tile_bfloat16, tile_half

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
_half_tile, _half_row = tile_half

_ROOM = (array(f4, 1), array(u2, 1), array(i4, 1), array(i1, 1))
_MATRICES = (array(u1, 4), ROWS, ROWS)
_NORM = (VECTOR, VECTOR, f8)

# The steps that the batch path has as functions of their own, too.
_batch: Any = steps
norm = kernel(ROWS, *_NORM)(_batch.norm.py_func)
quantise = kernel(ROWS, array(i1, 2), VECTOR)(_batch.quantise.py_func)
pool = kernel(ROWS, ENDS, b1, ROWS)(_batch.pool.py_func)
_route = kernel(ROWS, ROWS, ROWS, array(i8, 2), ROWS)(_batch.route.py_func)


@kernel(i8, i8, i8, array(u2, 2), VECTOR, ROWS, i8)
def _multiply16(x: Any, stride: Any, steps: Any, weights: Halves, zeros: Floats, out: Floats, column: Any) -> None:
    """Write products of bfloat16 rows, `stride` bytes apart from the address x on, with a block to columns of out.

    steps: of two inputs each, as many as the rows have of those of the weights (steps, 128). zeros: (TILE,). column:
    the first one.
    """
    n = out.shape[0]
    begin, out_stride = np.int64(zeros.ctypes.data), np.int64(out.shape[1] * 4)
    place = np.int64(weights.ctypes.data)
    i = 0
    while i < n:
        row = x + i * stride
        into = np.int64(out.ctypes.data) + i * out_stride + column * 4
        if n - i >= TILE:
            _tile16(row, stride, place, steps, begin, into, out_stride)
            i += TILE
        else:
            _row16(row, stride, place, steps, begin, into, out_stride)
            i += 1


@kernel(i8, i8, i8, array(u2, 2), VECTOR, ROWS, i8)
def _multiply_half(x: Any, stride: Any, steps: Any, weights: Halves, zeros: Floats, out: Floats, column: Any) -> None:
    """Do the same with a block of half the outputs (steps, 64). zeros: (2 * TILE,)."""
    n = out.shape[0]
    begin, out_stride = np.int64(zeros.ctypes.data), np.int64(out.shape[1] * 4)
    place = np.int64(weights.ctypes.data)
    i = 0
    while i < n:
        row = x + i * stride
        into = np.int64(out.ctypes.data) + i * out_stride + column * 4
        if n - i >= 2 * TILE:
            _half_tile(row, stride, place, steps, begin, into, out_stride)
            i += 2 * TILE
        else:
            _half_row(row, stride, place, steps, begin, into, out_stride)
            i += 1


@kernel(ROWS, array(u2, 3), VECTOR, array(u2, 2), array(u2, 2), ROWS, VECTOR)
def _project(
    x: Floats, weights: Halves, bias: Floats, out: Halves, narrow: Halves, sums: Floats, zeros: Floats
) -> None:
    """Write x as bfloat16 times a bfloat16 matrix, plus bias (m * BLOCK,), as bfloat16 to out (n, m * BLOCK).

    Room: narrow, of the shape of x, and sums (n, BLOCK).
    """
    n, width = x.shape
    for i in range(n):
        for j in range(width):
            narrow[i, j] = to_bfloat16(x[i, j])
    place, stride, steps = np.int64(narrow.ctypes.data), np.int64(2 * width), np.int64(width // 2)
    for block in range(weights.shape[0]):
        _multiply16(place, stride, steps, weights[block], zeros, sums, np.int64(0))
        first = block * BLOCK
        for i in range(n):
            for j in range(BLOCK):
                out[i, first + j] = to_bfloat16(sums[i, j] + bias[first + j])


@kernel(array(u2, 2), i8, i8, array(u2, 3), array(u2, 3))
def _pack_head(qkv: Halves, begin: Any, width: int, keys: Halves, values: Halves) -> None:
    """Lay out keys and values of the head at `begin` of a text's qkv (n, >= 3 * width) as weights of products.

    keys: (blocks of texts' tokens, size / 2, 128), values: (half blocks of size, n / 2, 64), 0 where there is nothing.
    """
    n = qkv.shape[0]
    size = 2 * keys.shape[1]
    keys[keys.shape[0] - 1] = 0
    for j in range(n):
        block, lane = j // BLOCK, 2 * (j % BLOCK)
        row = qkv[j, width + begin : width + begin + size]
        for d in range(size // 2):
            keys[block, d, lane] = row[2 * d]
            keys[block, d, lane + 1] = row[2 * d + 1]
    for block in range(values.shape[0]):
        first = block * HALF
        count = min(HALF, size - first)
        values[block, values.shape[1] - 1] = 0
        for j in range(n):
            row = qkv[j, 2 * width + begin + first : 2 * width + begin + first + count]
            into = values[block, j // 2, j % 2 :]
            for d in range(count):
                into[2 * d] = row[d]


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
    key_blocks, value_blocks, pairs = (n + BLOCK - 1) // BLOCK, (size + HALF - 1) // HALF, (n + 1) // 2
    scores = shaped(floats, (STRIP, key_blocks * BLOCK))
    floats = floats[scores.size :]
    found = shaped(floats, (STRIP, value_blocks * HALF))
    total = floats[found.size : found.size + STRIP]
    keys = shaped(halves, (key_blocks, size // 2, 2 * BLOCK))
    halves = halves[keys.size :]
    values = shaped(halves, (value_blocks, pairs, BLOCK))
    weights = shaped(halves[values.size :], (STRIP, length))
    values[:] = 0
    stride = np.int64(2 * qkv.shape[1])
    place = np.int64(weights.ctypes.data)
    for head in range(heads):
        begin = np.int64(head * size)
        _pack_head(qkv, begin, width, keys, values)
        for first in range(0, n, STRIP):
            m = min(STRIP, n - first)
            queries = np.int64(qkv.ctypes.data) + 2 * begin + first * stride
            for block in range(key_blocks):
                _multiply16(
                    queries, stride, np.int64(size // 2), keys[block], zeros, scores[:m], np.int64(block * BLOCK)
                )
            _weigh(scores[:m], n, weights[:m], total)
            for block in range(value_blocks):
                _multiply_half(
                    place,
                    np.int64(2 * length),
                    np.int64(pairs),
                    values[block],
                    zeros,
                    found[:m],
                    np.int64(block * HALF),
                )
            for i in range(m):
                inverse = F(1) / total[i]
                for d in range(size):
                    mixed[first + i, begin + d] = from_bfloat16(to_bfloat16(found[i, d])) * inverse


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
    width, columns = x.shape[1], qkv_bias.size
    zeros, floats = floats[: 2 * TILE], floats[2 * TILE :]
    zeros[:] = F(0)
    begin = 0
    while begin < ends.size - 1:
        end = begin + 1
        while end < ends.size - 1 and ends[end + 1] - ends[begin] <= PORTION:
            end += 1
        part = x[ends[begin] : ends[end]]
        n = part.shape[0]
        projected, rest = shaped(halves, (n, columns)), halves[n * columns :]
        sums, more = shaped(floats, (n, BLOCK)), floats[n * width :]
        _project(part, qkv, qkv_bias, projected, shaped(rest, (n, width)), sums, zeros)
        mixed = shaped(floats, (n, width))
        for text in range(begin, end):
            first, last = ends[text] - ends[begin], ends[text + 1] - ends[begin]
            length = (last - first + length_step - 1) // length_step * length_step
            _mix(projected[first:last], heads, length, mixed[first:last], zeros, more, rest)
        values, step = shaped(small, (n, width)), more[:n]
        quantise(mixed, values, step)
        add_product(values, step, out, scale, bias, part, wholes)
        norm(part, gain, shift, eps)
        begin = end


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
    """Write the activations of an expert for quantised rows (n, hidden) as int8 inner (>= n, m) and inner_step (n,)."""
    n, columns = values.shape[0], up.shape[0] * BLOCK
    hidden = shaped(wholes, (n, columns))
    product(values, up, hidden, start)
    for i in range(n):
        largest = U(0)
        for j in range(row.size):
            row[j] = gelu(F(hidden[i, j]) * step[i] * scale[j] + bias[j])
            largest = max(largest, magnitude(row[j]))
        inner_step[i] = quantise_row(row, largest, inner[i])


@kernel(
    array(i1, 2), VECTOR, *MATRIX, *MATRIX, VECTOR, array(i8, 1), ROWS, i8, array(i1, 2), VECTOR, VECTOR, array(i4, 1),
    array(i4, 1),
)  # fmt: skip
def _add_expert(
    sent: Bytes,
    sent_step: Floats,
    up: NDArray[np.uint8],
    up_scale: Floats,
    up_bias: Floats,
    down: NDArray[np.uint8],
    down_scale: Floats,
    down_bias: Floats,
    share: Floats,
    places: Places,
    out: Floats,
    active: int,
    inner: Bytes,
    inner_step: Floats,
    row: Floats,
    wholes: Wholes,
    start: Wholes,
) -> None:
    """Add to out what an expert makes of quantised rows, that of row i times share[i] to the token places[i] // active.

    Room: inner (FED, m) and inner_step (FED,), row (m,), wholes and start.
    """
    count, width = sent.shape
    for first in range(0, count, FED):
        n = min(FED, count - first)
        part = slice(first, first + n)
        _inner(sent[part], sent_step[part], up, up_scale, up_bias, row, inner, inner_step, wholes, start)
        found = shaped(wholes, (n, down.shape[0] * BLOCK))
        product(inner[:n], down, found, start)
        for i in range(n):
            token = places[first + i] // active
            own = share[first + i]
            for j in range(width):
                value = F(found[i, j]) * inner_step[i] * down_scale[j] + down_bias[j]
                out[token, j] += own * value


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
    inner = shaped(small, (FED, inner_width))
    step, own, sent_step, inner_step = floats[:n], floats[n : 2 * n], floats[2 * n : 3 * n], floats[3 * n : 3 * n + FED]
    floats = floats[3 * n + FED :]
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
        for i in range(count):
            sent_step[i] = step[places[i] // active]
            own[i] = share[places[i] // active, places[i] % active] * routed_scale
        _add_expert(
            sent[:count],
            sent_step,
            up[expert],
            up_scale[expert],
            up_bias[expert],
            down[expert],
            down_scale[expert],
            down_bias[expert],
            own,
            places,
            out,
            active,
            inner,
            inner_step,
            row,
            wholes,
            start,
        )
