"""Stored documents out of chunks of Lucene's, compiled; `machine_code` keeps what becomes of it.

See `retriever.index.lucene.stored_fields`. Nothing in a damaged file leads out of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import i8, njit, types, u1
from numba.core import cgutils
from numba.extending import intrinsic

from retriever.machine_code import COMPILED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

__all__ = ["documents"]

SHORTEST_MATCH = 4
LONG = 15
"""A length of so much goes on in the bytes that follow."""


STRING, TYPE_BITS = 0, 3
TOGETHER = 128
"""Numbers whose bytes are mixed: so many stand in whole words, the last ones in the lowest bytes."""
DAMAGED = -1
LARGEST = 1 << 40
"""Numbers of a damaged file that are above it become it: sums of some cannot go beyond 63 bits."""
MOST_DOCUMENTS = 1 << 16
"""A chunk with more is damaged: Lucene packs 1,024."""
WIDEST = 4
"""Bytes of one number of those that stand together."""
STEP = 8
"""Bytes that are copied at once."""
SHORT = 3 * STEP
"""Bytes of the longest match whose length stands in its token, up to the next step; such literals are fewer."""


def _inner(function: Any) -> Any:
    return njit(error_model="numpy", **COMPILED)(function)


@_inner
def _byte(data: Bytes, place: Any) -> Any:
    return np.int64(data[np.uint64(place)]) if 0 <= place < data.size else np.int64(0)


@_inner
def _short(data: Bytes, place: Any) -> Any:
    """Return a number of seven bits a byte, and the place behind it."""
    value = np.int64(0)
    for step in range(9):
        byte = _byte(data, place)
        place += 1
        value |= (byte & 127) << (7 * step)
        if byte < 128:
            break
    return min(value, np.int64(LARGEST)), place


@_inner
def _little(data: Bytes, place: Any, size: Any) -> Any:
    value = np.int64(0)
    if size > WIDEST:
        return np.int64(LARGEST)
    for i in range(size):
        value |= _byte(data, place + i) << (8 * i)
    return value


@_inner
def _number(data: Bytes, place: Any, count: Any, i: Any) -> Any:
    """Return one of as many numbers as a chunk has documents."""
    if count == 1:
        return _short(data, place)[0]
    size = _byte(data, place) // 8
    place += 1
    if not size:
        return _short(data, place)[0]
    first = i - i % TOGETHER
    if first + TOGETHER > count:
        return _little(data, place + i * size, size)
    words = TOGETHER * size // 8
    row, column = (i - first) // words, (i - first) % words
    return _little(data, place + first * size + 8 * column + 8 - size * (row + 1), size)


@_inner
def _behind(data: Bytes, place: Any, count: Any) -> Any:
    """Return the place behind such numbers."""
    if count == 1:
        return _short(data, place)[1]
    size = _byte(data, place) // 8
    return place + 1 + size * count if size else _short(data, place + 1)[1]


@_inner
def _long(packed: Bytes, place: Any, count: Any) -> Any:
    """Return a length that may go on in the bytes that follow, and the place behind it."""
    if count != LONG:
        return count, place
    more = np.int64(255)
    while more == 255 and place < packed.size:
        more = np.int64(packed[place])
        place += 1
        count += more
    return count, place


def _eight_bytes(typing: Any, out: Any, to: Any, source: Any, place: Any) -> Any:
    """Copy eight bytes; whoever calls it has looked that both have them."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args
        ends = [
            builder.gep(context.make_array(kinds[i])(context, builder, given[i]).data, [given[i + 1]]) for i in (0, 2)
        ]
        copy(builder, *ends, context.get_constant(types.intp, STEP), 1)
        return context.get_dummy_value()

    return types.void(out, to, source, place), generate


copy: Any = cgutils.raw_memcpy
_eight: Any = intrinsic(_eight_bytes)


@_inner
def _copy(source: Bytes, place: Any, out: Bytes, start: Any, count: Any) -> None:
    """Copy some bytes; up to seven more are written behind them, where there is space."""
    i = np.int64(0)
    while i < count and place + i + STEP <= source.size and start + i + STEP <= out.size:
        _eight(out, start + i, source, place + i)
        i += STEP
    for k in range(i, count):
        out[start + k] = source[place + k]


@_inner
def _append(source: Bytes, first: Any, last: Any, out: Bytes, found: Any) -> Any:
    """Copy what is from `first` to `last` behind what was found; return how much is found now."""
    count = max(last - first, np.int64(0))
    _copy(source, first, out, found, count)
    return found + count


@_inner
def _usual(packed: Bytes, place: Any, out: Bytes, start: Any, end: Any) -> Any:
    """Unpack some bytes and their match as most are: short, far from the end, eight bytes back or more.

    Return the places behind them; the same ones where it is another kind.
    """
    if start + 2 * SHORT > end or place + 2 * SHORT > packed.size:
        return start, place
    token = np.int64(packed[place])
    count = token >> 4
    if count == LONG or token & LONG == LONG:
        return start, place
    _eight(out, start, packed, place + 1)
    _eight(out, start + STEP, packed, place + 1 + STEP)
    behind = place + 1 + count
    back = np.int64(packed[behind]) | np.int64(packed[behind + 1]) << 8
    if not STEP <= back <= start + count:
        return start, place
    match = start + count
    for step in range(0, SHORT, STEP):
        _eight(out, match + step, out, match + step - back)
    return match + (token & LONG) + SHORTEST_MATCH, behind + 2


@_inner
def _unpack(packed: Bytes, place: Any, out: Bytes, start: Any, end: Any) -> Any:
    """Unpack the beginning of a block to out[start:end]; return the place behind that, -1 for one that is damaged.

    What is copied may stand in `out` before `start`: a dictionary.
    """
    if not 0 <= place <= packed.size:
        return DAMAGED
    while start < end:
        before = start
        start, place = _usual(packed, place, out, start, end)
        if start > before:
            continue
        token = _byte(packed, place)
        place += 1
        count, place = _long(packed, place, token >> 4)
        count = min(count, end - start)
        if count > packed.size - place:
            return DAMAGED
        _copy(packed, place, out, start, count)
        start += count
        place += count
        if start >= end:
            break
        back = _byte(packed, place) | _byte(packed, place + 1) << 8
        place += 2
        count, place = _long(packed, place, token & LONG)
        if back == 0 or back > start:
            return DAMAGED
        count = min(count + SHORTEST_MATCH, end - start)
        if back >= STEP:
            _copy(out, start - back, out, start, count)
        else:
            for i in range(start, start + count):
                out[i] = out[i - back]
        start += count
    return place


@_inner
def _region(data: Bytes, place: Any, size: Any, first: Any, last: Any, room: Bytes, out: Bytes, found: Any) -> Any:
    """Append what is from `first` to `last` of a packed part of `size` bytes to what was found.

    Return the place behind the part, and how much is found now; the place is -1 for a damaged part.
    """
    dictionary, place = _short(data, place)
    length, place = _short(data, place)
    if length <= 0 or dictionary + length > room.size or dictionary > size:
        return DAMAGED, found
    blocks = (size - dictionary + length - 1) // length
    if blocks > data.size - place:  # each has a byte at least
        return DAMAGED, found
    lengths = place
    own, place = _short(data, place)
    for _ in range(blocks):
        place = _short(data, place)[1]
    if _unpack(data, place, room, 0, dictionary) < 0:
        return DAMAGED, found
    found = _append(room, first, min(last, dictionary), out, found)
    packed = place + own
    place = _short(data, lengths)[1]
    for block in range(blocks):
        own, place = _short(data, place)
        start = dictionary + block * length
        stop = min(start + length, size)
        if start < last and stop > first:
            wanted = min(stop, last) - start
            if _unpack(data, packed, room, dictionary, dictionary + wanted) < 0:
                return DAMAGED, found
            found = _append(room, dictionary + max(first - start, 0), dictionary + wanted, out, found)
        packed = min(packed + own, data.size + 1)  # behind the end nothing is unpacked
    return packed, found


@_inner
def _field(out: Bytes, size: Any, field: Any, result: Any) -> Any:
    """Write where the text of a field begins in a document, and its size; return that, too."""
    place = np.int64(0)
    while place < size:
        info, place = _short(out, place)
        length, place = _short(out, place)
        if info & ((1 << TYPE_BITS) - 1) != STRING or length > size - place:
            return DAMAGED
        if info >> TYPE_BITS == field:
            result[0], result[1] = place, length
            return length
        place += length
    return DAMAGED


@_inner
def _document(
    data: Bytes, end: Any, start: Any, number: Any, field: Any, part: Any, room: Bytes, out: Bytes, result: Any
) -> Any:
    """Write a document to `out`, and to `result` where the text of a field begins in it and what size that has.

    Return the size of the document; result has it, too, where `out` is too small. -1 for a damaged file.
    """
    data = data[:end]
    base, place = _short(data, start)
    token, place = _short(data, place)
    count, own = token >> 2, number - base
    if own < 0 or own >= count or count > MOST_DOCUMENTS:
        return DAMAGED
    place = _behind(data, place, count)
    first = total = np.int64(0)
    for i in range(count):
        if i == own:
            first = total
        total += _number(data, place, count, i)
    if total > LARGEST:
        return DAMAGED
    last = first + _number(data, place, count, own)
    place = _behind(data, place, count)
    if last - first > out.size:
        return last - first
    found = np.int64(0)
    size: Any = part if token & 1 else max(total, 1)
    for begin in range(0, total, size):
        length = min(size, total - begin)
        low, high = max(first - begin, 0), min(last - begin, length)
        place, found = _region(data, place, length, low, max(high, low), room, out, found)
        if place < 0 or begin + length >= last:
            break
    if place < 0 or found != last - first or _field(out, found, field, result) < 0:
        return DAMAGED
    return found


def _documents(data: Bytes, wanted: Any, field: Any, part: Any, room: Bytes, out: Bytes, results: Any) -> Any:
    """Write documents one behind the other to `out`; return how many, which may be fewer than are wanted.

    -1 for a damaged file. data: the whole of it. wanted: of each document where its chunk begins and ends in `data`,
    which holds both, and its number, int64 (n, 3). field: whose text is asked for. part: large chunks are packed in
    parts of so many bytes. room: twice as many bytes, which are written over. results: where in `out` each text begins
    and ends, int64 (n, 2); of the first that has no space any more its size.
    """
    used = np.int64(0)
    for i in range(len(wanted)):
        start, end, number = wanted[i]
        size = _document(data, end, start, number, field, part, room, out[used:], results[i])
        if size < 0:
            return DAMAGED
        if size > out.size - used:
            results[i, 0] = size
            return i
        results[i, 0] += used
        results[i, 1] += results[i, 0]
        used += size
    return len(wanted)


_ARRAY = types.Array(u1, 1, "C")
_READ = types.Array(u1, 1, "C", readonly=True)
_TABLE = types.Array(i8, 2, "C")
documents: Any = njit([i8(_READ, _TABLE, i8, i8, _ARRAY, _ARRAY, _TABLE)], error_model="numpy", **COMPILED)(_documents)
