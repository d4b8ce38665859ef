"""The steps between products of int8 matrices, compiled: each reads its data once, where torch goes over them often.

A product of int8 rows is int32 `acc`; its value is acc * step of the row * scale of the column + bias of the column.
bfloat16 values are held as the uint16 of their bits, numpy has no such type. A row's results depend on that row alone
(of attention: on its text). Kernels write into arrays that they are given, and let other threads run meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba.extending
import numpy as np
from llvmlite import ir
from numba import njit, types

from retriever.network.kernel_cache import keep_compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Wholes = NDArray[np.int32]
    Bytes = NDArray[np.int8]
    Bits = NDArray[np.uint16]
    Places = NDArray[np.int64]

__all__ = [
    "add_product",
    "add_weighted",
    "exponentials",
    "from_bfloat16",
    "gelu",
    "gelu_quantise",
    "inline",
    "magnitude",
    "max_over_tokens",
    "merge_heads",
    "narrow",
    "norm",
    "pool",
    "power_of_two",
    "product_of",
    "quantise",
    "quantise_row",
    "route",
    "split_heads",
    "squares_of",
    "term_weights",
    "to_bfloat16",
    "total_of",
    "total_of_bfloat16",
]

F = np.float32
U = np.uint32
EXACT = {"contract", "nsz", "nnan", "ninf"}
"""Every value is finite. Nothing is reordered: the same steps give the same numbers wherever they are compiled."""
SUMS = EXACT | {"reassoc"}
"""For functions that are nothing but a sum: it may be split over the lanes of a vector."""
TINY = F(1e-30)
LARGEST_EXPONENT = F(86)
"""2 to this, and to its negative, leaves room for sums over a text; no trained network comes near."""
GELU_REACH = F(4.25)
LOG2_E = F(1.4426950408889634)

Function = TypeVar("Function", bound="Callable[..., Any]")


def kernel(function: Function) -> Function:
    """Compile a function when it is first called, and keep what was compiled for later processes."""
    compiled: Any = njit(nogil=True, fastmath=EXACT, error_model="numpy")(function)
    keep_compiled(compiled)
    return cast("Function", compiled)


def inline(function: Function) -> Function:
    """Make a function a part of the kernels that call it."""
    compiled: Any = njit(inline="always", error_model="numpy")(function)
    return cast("Function", compiled)


def summing(function: Function) -> Function:
    """Compile a sum, for kernels: a function of its own, so that its order is the same in all of them."""
    options: dict[str, Any] = {"fastmath": SUMS, "error_model": "numpy", "_nrt": False}
    compiled: Any = njit(**options)(function)
    return cast("Function", compiled)


def _bitcast(source: Any, target: Any, llvm_type: Any) -> Any:
    """Return a function of kernels that reads the bits of one type as another's."""

    def read(_context: Any, _value: Any) -> Any:
        return target(source), lambda _, builder, __, arguments: builder.bitcast(arguments[0], llvm_type)

    return numba.extending.intrinsic(read)


_float = _bitcast(types.uint32, types.float32, ir.FloatType())
_bits = _bitcast(types.float32, types.uint32, ir.IntType(32))


@inline
def magnitude(value: Any) -> Any:
    """Return bits that compare as magnitudes do: LLVM finds the largest of integers, not of floats, in vectors."""
    return _bits(value) & U(0x7FFFFFFF)


@inline
def to_bfloat16(value: Any) -> Any:
    """Return the bits of a float32 value in bfloat16."""
    bits = _bits(value)
    return np.uint16((bits + U(0x7FFF) + ((bits >> U(16)) & U(1))) >> U(16))  # to the nearest, ties to even


@inline
def from_bfloat16(bits: Any) -> Any:
    """Return the float32 value of bfloat16 bits."""
    return _float(U(bits) << U(16))


@inline
def gelu(x: Any) -> Any:
    """Return x * the normal distribution's share below x, within 2e-5 of it or of x: a polynomial, fit for vectors."""
    t = min(max(x, -GELU_REACH), GELU_REACH)
    z = t * t
    p = F(-2.043457e-12)
    p = p * z + F(2.270069e-10)
    p = p * z + F(-1.1350184e-08)
    p = p * z + F(3.4056092e-07)
    p = p * z + F(-6.9199727e-06)
    p = p * z + F(1.02088424e-04)
    p = p * z + F(-1.1418911e-03)
    p = p * z + F(9.8822135e-03)
    p = p * z + F(-6.6397592e-02)
    p = p * z + F(3.9890903e-01)
    return x * (F(0.5) + t * p)


@inline
def power_of_two(exponent: Any) -> Any:
    """Return 2^exponent, within 2e-7 of it: a polynomial for the fraction, the exponent's bits for the rest."""
    power = min(max(exponent, -LARGEST_EXPONENT), LARGEST_EXPONENT)
    whole = np.rint(power)
    part = power - whole
    p = F(1.8775767e-3)
    p = p * part + F(8.9893397e-3)
    p = p * part + F(5.5826318e-2)
    p = p * part + F(2.4015361e-1)
    p = p * part + F(6.9315308e-1)
    p = p * part + F(0.99999994)
    return _float(_bits(p) + (U(np.int32(whole)) << U(23)))


@inline
def quantise_row(row: Any, largest: Any, values: Any) -> Any:
    """Write a row in int8; return its step."""
    top = max(_float(largest), TINY)
    inverse = F(127) / top
    for j in range(row.size):
        values[j] = np.int8(np.rint(row[j] * inverse))
    return top / F(127)


@summing
def total_of(row: Any) -> Any:
    """Return the sum of float32 values."""
    total = F(0)
    for j in range(row.size):
        total += row[j]
    return total


@summing
def squares_of(row: Any, mean: Any) -> Any:
    """Return the sum of the squares of what float32 values differ from their mean."""
    total = F(0)
    for j in range(row.size):
        total += (row[j] - mean) * (row[j] - mean)
    return total


@summing
def product_of(one: Any, other: Any) -> Any:
    """Return the inner product of two float32 vectors."""
    total = F(0)
    for j in range(one.size):
        total += one[j] * other[j]
    return total


@summing
def total_of_bfloat16(row: Any) -> Any:
    """Return the sum of bfloat16 values."""
    total = F(0)
    for j in range(row.size):
        total += from_bfloat16(row[j])
    return total


@kernel
def quantise(x: Floats, values: Bytes, step: Floats) -> None:
    """Write rows of float32 x (n, k) as int8 values (n, k) and step (n,)."""
    n, k = x.shape
    for i in range(n):
        largest = U(0)
        for j in range(k):
            largest = max(largest, magnitude(x[i, j]))
        step[i] = quantise_row(x[i], largest, values[i])


@kernel
def gelu_quantise(acc: Wholes, step: Floats, scale: Floats, bias: Floats, values: Bytes, out_step: Floats) -> None:
    """Write GELU (Hendrycks and Gimpel 2016) of a product (n, m) as int8 values (n, m) and out_step (n,)."""
    n, m = acc.shape
    row = np.empty(m, np.float32)
    for i in range(n):
        largest = U(0)
        for j in range(m):
            row[j] = gelu(F(acc[i, j]) * step[i] * scale[j] + bias[j])
            largest = max(largest, magnitude(row[j]))
        out_step[i] = quantise_row(row, largest, values[i])


@kernel
def norm(x: Floats, gain: Floats, shift: Floats, eps: float) -> None:
    """Normalise the rows of float32 x (n, k) in place (layer norm)."""
    n, k = x.shape
    for i in range(n):
        mean = total_of(x[i]) / F(k)
        inverse = F(1) / np.sqrt(squares_of(x[i], mean) / F(k) + F(eps))
        for j in range(k):
            x[i, j] = (x[i, j] - mean) * inverse * gain[j] + shift[j]


@kernel
def route(x: Floats, router: Floats, logits: Floats, chosen: Places, share: Floats) -> None:
    """Write the logits (n, experts) of tokens x (n, k), the best experts (n, active) and the softmax of theirs.

    router: (experts, k). Of equal logits the first expert's is the better one.
    """
    for i in range(x.shape[0]):
        for expert in range(router.shape[0]):
            logits[i, expert] = product_of(x[i], router[expert])
        total = F(0)
        for place in range(chosen.shape[1]):
            best = -1
            for expert in range(router.shape[0]):
                free = True
                for before in range(place):
                    free = free and chosen[i, before] != expert
                if free and (best < 0 or logits[i, expert] > logits[i, best]):
                    best = expert
            chosen[i, place] = best
            share[i, place] = power_of_two((logits[i, best] - logits[i, chosen[i, 0]]) * LOG2_E)
            total += share[i, place]
        for place in range(chosen.shape[1]):
            share[i, place] = share[i, place] / total


@kernel
def pool(x: Floats, ends: Places, first: bool, out: Floats) -> None:
    """Write the mean of each text's tokens x (tokens, k), or its first one, at unit length to out (texts, k).

    Text i has the tokens from ends[i] to ends[i + 1].
    """
    for text in range(out.shape[0]):
        begin, end = ends[text], ends[text + 1]
        row = out[text]
        for j in range(row.size):
            row[j] = x[begin, j]
        if not first:
            for i in range(begin + 1, end):
                for j in range(row.size):
                    row[j] += x[i, j]
        length = max(np.sqrt(squares_of(row, F(0))), F(1e-12))
        for j in range(row.size):
            row[j] = row[j] / length


@kernel
def add_product(acc: Wholes, step: Floats, scale: Floats, bias: Floats, out: Floats) -> None:
    """Add the values of a product (n, m) to float32 out (n, m)."""
    n, m = out.shape
    for i in range(n):
        for j in range(m):
            out[i, j] += F(acc[i, j]) * step[i] * scale[j] + bias[j]


@kernel
def add_weighted(
    acc: Wholes, step: Floats, scale: Floats, bias: Floats, rows: Places, weights: Floats, out: Floats
) -> None:
    """Add the values of a product, row i times weights[i], to row rows[i] of float32 out."""
    m = out.shape[1]
    for i in range(rows.size):
        row = out[rows[i]]
        for j in range(m):
            row[j] += weights[i] * (F(acc[i, j]) * step[i] * scale[j] + bias[j])


@kernel
def narrow(x: Floats, out: Bits) -> None:
    """Write float32 x (n, k) to the first rows of bfloat16 out."""
    n, k = x.shape
    for i in range(n):
        for j in range(k):
            out[i, j] = to_bfloat16(x[i, j])


@kernel
def split_heads(
    qkv: NDArray[Any], query: NDArray[Any], key: NDArray[Any], value: NDArray[Any], place: Places, stride: Places
) -> None:
    """Write bfloat16 qkv (n, 3 * heads * size) as queries, keys and values, each (rows, size).

    Head h of token i goes to row place[i] + h * stride[i].
    """
    size = query.shape[1]
    third = qkv.shape[1] // 3
    for i in range(place.size):
        for head in range(third // size):
            at = place[i] + head * stride[i]
            start = head * size
            for j in range(size):
                query[at, j] = qkv[i, start + j]
                key[at, j] = qkv[i, third + start + j]
                value[at, j] = qkv[i, 2 * third + start + j]


@kernel
def exponentials(scores: Bits, lengths: Places, sums: Floats) -> None:
    """Put 2^score into bfloat16 scores (n, length, length), 0 for keys from lengths[i] on; write sums (n, length).

    Queries from lengths[i] on are left alone.
    """
    n, length, _ = scores.shape
    for i in range(n):
        own = lengths[i]
        for r in range(own):
            row = scores[i, r]
            for j in range(length):
                row[j] = to_bfloat16(power_of_two(from_bfloat16(row[j])))
            for j in range(own, length):
                row[j] = np.uint16(0)
            sums[i, r] = total_of_bfloat16(row)


@kernel
def merge_heads(mixed: Bits, sums: Floats, place: Places, stride: Places, values: Bytes, step: Floats) -> None:
    """Write bfloat16 mixed (rows, size), each over sums (rows,), as int8 values (n, heads * size) and step (n,).

    Head h of token i is in row place[i] + h * stride[i].
    """
    size = mixed.shape[1]
    width = values.shape[1]
    row = np.empty(width, np.float32)
    for i in range(place.size):
        largest = U(0)
        for head in range(width // size):
            at = place[i] + head * stride[i]
            inverse = F(1) / sums[at]
            start = head * size
            for j in range(size):
                row[start + j] = from_bfloat16(mixed[at, j]) * inverse
        for j in range(width):
            largest = max(largest, magnitude(row[j]))
        step[i] = quantise_row(row, largest, values[i])


@kernel
def max_over_tokens(acc: Wholes, step: Floats, ends: Places, column: int, out: Floats) -> None:
    """Write each text's largest acc (tokens, m) * step to m columns of out (texts, vocab).

    Text i has the tokens from ends[i] to ends[i + 1].
    """
    m = acc.shape[1]
    for text in range(out.shape[0]):
        row = out[text, column : column + m]
        first = ends[text]
        for j in range(m):
            row[j] = F(acc[first, j]) * step[first]
        for i in range(first + 1, ends[text + 1]):
            for j in range(m):
                found = F(acc[i, j]) * step[i]
                row[j] = found if found > row[j] else row[j]


@kernel
def term_weights(best: Floats, scale: Floats, bias: Floats, stem: Places, out: Floats) -> None:
    """Write log(1 + relu(best * scale + bias)) of terms, the largest of each stem, to out (texts, vocab) of zeros."""
    texts, terms = best.shape
    for text in range(texts):
        for j in range(terms):
            logit = best[text, j] * scale[j] + bias[j]
            if logit > F(0):
                weight = np.log1p(logit)
                at = stem[j]
                if weight > out[text, at]:
                    out[text, at] = weight
