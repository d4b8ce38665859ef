"""The search of the postings of BM25, compiled; `machine_code` keeps what becomes of it.

The score of a posting is float32, as that of Lucene's BM25Similarity; those of a row are summed in float64, and
the sum counts as a float32. Nothing in a damaged file leads out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import b1, f4, f8, i8, njit, types, u1
from numba.extending import intrinsic

from retriever.instructions import inner, push
from retriever.machine_code import COMPILED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Wholes = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["best_rows", "find_words", "live_counts"]

BLOCK_ROWS = 65_536
MANY = 255


def _load(bits: Any) -> Any:
    """Return what reads a whole number without a sign, of so many bits, from an address."""

    def typed(_typing: Any, address: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            return builder.zext(builder.load(place, align=1), ir.IntType(64))

        return types.int64(types.int64), emit

    return intrinsic(typed)


byte_at, half_at, word_at = _load(8), _load(16), _load(32)


def _array(kind: Any, dimensions: Any = 1) -> Any:
    return types.Array(kind, dimensions, "C")


@inner
def _compared(text: Any, size: Any, word: Any) -> Any:
    """Compare a text at an address with a word, byte by byte: below 0 if it comes before it, 0 if they are the same."""
    for i in range(min(size, word.size)):
        difference = byte_at(text + i) - np.int64(word[i])
        if difference:
            return difference
    return size - word.size


@inner
def _text(block: Any, place: Any) -> Any:
    """Return the address of the text of a word, and its size."""
    start = min(word_at(block[7] + 4 * (place - 1)), block[5]) if place else np.int64(0)
    return block[11] + start, max(min(word_at(block[7] + 4 * place), block[5]) - start, 0)


@inner
def _place(block: Any, word: Any) -> Any:
    """Return the place of a word in a block, -1 if it is not there."""
    low, high = np.int64(0), np.int64(block[2])
    while low < high:
        middle = (low + high) // 2
        text, size = _text(block, middle)
        order = _compared(text, size, word)
        if not order:
            return middle
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return -1


def _find_words(blocks: Wholes, query: Any, ends: Wholes, first: Wholes, last: Wholes) -> None:
    """Write where the postings of each word begin and end in each block, both (blocks, words).

    blocks: int64 (n, BLOCK_FIELDS). query: the words' UTF-8 bytes, one behind the other; ends: where each ends.
    """
    for number in range(blocks.shape[0]):
        block = blocks[number]
        begin = np.int64(0)
        for i in range(ends.size):
            place = _place(block, query[begin : ends[i]])
            begin = ends[i]
            first[number, i] = last[number, i] = 0
            if place >= 0:
                last[number, i] = min(word_at(block[8] + 4 * (place + 1)), block[3])
                first[number, i] = min(word_at(block[8] + 4 * place), last[number, i])


def _live_counts(blocks: Wholes, first: Wholes, last: Wholes, alive: Any, counts: Wholes) -> None:
    """Write in how many rows that are alive each word stands."""
    counts[:] = 0
    for number in range(blocks.shape[0]):
        block = blocks[number]
        for i in range(counts.size):
            for j in range(first[number, i], last[number, i]):
                row = half_at(block[9] + 2 * j)
                counts[i] += row < block[1] and alive[block[0] + row]


@inner
def _exception(block: Any, place: Any) -> Any:
    """Return the frequency of a posting that stands among the exceptions."""
    low, high = np.int64(0), np.int64(block[4])
    while low < high:
        middle = (low + high) // 2
        if word_at(block[10] + 8 * middle) < place:
            low = middle + 1
        else:
            high = middle
    return word_at(block[10] + 8 * low + 4) if low < block[4] else MANY


@inner
def _add(block: Any, first: Any, last: Any, weight: Any, inverse: Any, sums: Any, touched: Any, n: Any) -> Any:
    """Add the scores of one word to the sums of its rows; write rows whose sums were 0, and return their number."""
    one = np.float32(1)
    for j in range(first, last):
        row, frequency = half_at(block[9] + 2 * j), byte_at(block[12] + j)
        if row >= block[1]:
            continue
        if frequency == MANY:
            frequency = _exception(block, j)
        score = weight - weight / (one + np.float32(frequency) * inverse[byte_at(block[6] + row)])
        if not score > 0:  # below 0 or no number in a damaged file: a sum that came back to 0 would be touched twice
            continue
        if sums[row] == 0:
            touched[n] = row
            n += 1
        sums[row] += np.float64(score)
    return n


def _best_rows(
    blocks: Wholes,
    first: Wholes,
    last: Wholes,
    weights: Any,
    inverse: Any,
    eligible: Any,
    sums: Floats,
    touched: Wholes,
    heap: Floats,
    rows: Wholes,
    scores: Floats,
) -> Any:
    """Write the eligible rows with the best scores, and all that tie with the last; return their number.

    weights: of each word, float32 (words,). inverse: 1 / (k1 * (1 - b + b * length / mean length)) of each norm,
    float32 (256,). eligible: (all rows,). sums (65,536): 0 before and after. touched (65,536): written over. heap: 0,
    as many as the best rows that are wanted. rows, scores (all rows,): what is found, in any order.
    """
    found = 0
    for number in range(blocks.shape[0]):
        block = blocks[number]
        n = 0
        for i in range(weights.size):
            n = _add(block, first[number, i], last[number, i], weights[i], inverse, sums, touched, n)
        for j in range(n):
            row = touched[j]
            score = np.float64(np.float32(sums[row]))
            sums[row] = 0
            if score >= heap[0] and eligible[block[0] + row]:
                rows[found], scores[found] = block[0] + row, score
                found += 1
                if score > heap[0]:
                    push(heap, score)
    kept = 0
    for j in range(found):
        if scores[j] >= heap[0]:
            rows[kept], scores[kept] = rows[j], scores[j]
            kept += 1
    return kept


find_words: Any = njit(
    [types.void(_array(i8, 2), _array(u1), _array(i8), _array(i8, 2), _array(i8, 2))],
    error_model="numpy",
    **COMPILED,
)(_find_words)
live_counts: Any = njit(
    [types.void(_array(i8, 2), _array(i8, 2), _array(i8, 2), _array(b1), _array(i8))], error_model="numpy", **COMPILED
)(_live_counts)
best_rows: Any = njit(
    [
        i8(
            _array(i8, 2),
            _array(i8, 2),
            _array(i8, 2),
            _array(f4),
            _array(f4),
            _array(b1),
            _array(f8),
            _array(i8),
            _array(f8),
            _array(i8),
            _array(f8),
        )
    ],
    error_model="numpy",
    **COMPILED,
)(_best_rows)
