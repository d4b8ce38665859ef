"""Lucene's stored documents, and which row each is of, read without Java from the mapped files of a commit.

The formats are `Lucene90CompressingStoredFieldsFormat` (BEST_SPEED), `Lucene90DocValuesFormat`, `DirectMonotonicReader`
and `DirectReader` of Lucene 9. Whatever is not as they say raises `ForeignError`: then Java is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene.segments import Data, ForeignError, SegmentFiles, base36, checked
from retriever.lazy import lazy
from retriever.machine_code import Kernel, load_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.index.lucene.held import HeldCommit
    from retriever.index.lucene.segments import Segment

    Wholes = NDArray[np.int64]

__all__ = ["StoredFields", "stored_kernel"]

KERNELS = "retriever.search.kernels.stored_documents"
ROOM = 1 << 16
"""Bytes of documents that are read together."""
LARGEST_SLICE = 1 << 24
"""Bytes; Lucene cuts large chunks in slices of 80 KiB."""
DENSEST = 256
"""A byte of LZ4 stands for fewer."""
WORD = 64
NUMERIC, BINARY = 0, 1
VALUES = "Lucene90_0"


def packed_numbers(data: memoryview, start: int, count: int, bits: int) -> Wholes:
    """Return `count` numbers of so many bits each, the first in the lowest bits."""
    if not bits:
        return np.zeros(count, np.int64)
    if bits > WORD:
        raise ForeignError(f"has numbers of {bits} bits")
    whole = np.frombuffer(bytes(data[start : start + (count * bits + 7) // 8]) + bytes(8), np.uint8)
    if len(whole) < (count * bits + 7) // 8 + 8:
        raise ForeignError("ends too early")
    places = np.arange(count, dtype=np.int64) * bits
    windows = np.lib.stride_tricks.sliding_window_view(whole, 8)[places >> 3]
    words = np.ascontiguousarray(windows).view("<u8")[:, 0] >> (places & 7).astype(np.uint64)
    return (words & np.uint64((1 << bits) - 1)).astype(np.int64)


class _Monotonic:
    """Numbers that ascend: blocks of them, each with a slope, and what they are off from it."""

    def __init__(self, meta: Data, count: int, shift: int) -> None:
        self._count, self._shift = count, shift
        self._blocks = []
        for _ in range(-(-count >> shift) if count else 0):
            least, slope = meta.little(8), np.frombuffer(meta.take(4), "<f4")[0]
            self._blocks.append((least, slope, meta.little(8), meta.take(1)[0]))

    def read(self, data: memoryview, start: int) -> Wholes:
        parts = [np.empty(0, np.int64)]
        for number, (least, slope, offset, bits) in enumerate(self._blocks):
            size = min(1 << self._shift, self._count - (number << self._shift))
            rising = (slope * np.arange(size, dtype=np.float32)).astype(np.int64)
            parts.append(least + rising + packed_numbers(data, start + offset, size, bits))
        return np.concatenate(parts)


class _Field(NamedTuple):
    number: int
    generation: int


def _fields(data: memoryview) -> dict[str, _Field]:
    """Return the fields of a segment by name: their numbers, and the generations of their doc values."""
    infos = Data(checked(bytes(data)))
    infos.header("Lucene94FieldInfos", 0, 1)
    found = {}
    for _ in range(infos.short()):
        name, number = infos.text(), infos.short()
        infos.take(3)
        found[name] = _Field(number, infos.little(8))
        infos.pairs()
        if infos.short():  # of points
            infos.short(), infos.short()
        infos.short()
        infos.take(2)  # of vectors
    return found


def _doc_values(meta: memoryview, data: memoryview, suffix: str, field: int, documents: int) -> Wholes:
    """Return the numbers that a field has in each document."""
    entries = Data(checked(bytes(meta)))
    _, _, found = entries.header("Lucene90DocValuesMetadata", 0)
    if found != suffix:
        raise ForeignError(f"is of {found}")
    while (number := entries.little(4)) != -1:
        kind = entries.take(1)[0]
        if kind == NUMERIC:
            values = _numeric(entries, data, documents)
            if number == field:
                return values
        elif kind == BINARY:
            _pass_binary(entries)
        else:
            raise ForeignError(f"has doc values of the kind {kind}")
    raise ForeignError("has not the field")


def _numeric(entry: Data, data: memoryview, documents: int) -> Wholes:
    present = entry.little(8)
    entry.take(8 + 2 + 1)
    count, table = entry.little(8), entry.little(4)
    if present != -1 or count != documents or table >= 0:
        raise ForeignError("has not a number for each document")
    bits, least, factor = entry.take(1)[0], entry.little(8), entry.little(8)
    start, size = entry.little(8), entry.little(8)
    entry.take(8)
    if table == -1:
        return least + factor * packed_numbers(data[start : start + size], 0, count, bits)
    shift, values = -2 - table, [np.empty(0, np.int64)]
    blocks = Data(data, start)
    for first in range(0, count, 1 << shift):
        own = min(1 << shift, count - first)
        bits, least = blocks.take(1)[0], blocks.little(8)
        length = blocks.little(4) if bits else 0
        values.append(least + factor * packed_numbers(data, blocks.place, own, bits))
        blocks.place += length
    return np.concatenate(values)


def _pass_binary(entry: Data) -> None:
    entry.take(8 + 8 + 8 + 8 + 2 + 1)
    count, shortest, longest = (entry.little(4) for _ in range(3))
    if shortest < longest:
        entry.take(8)
        _Monotonic(entry, count + 1, entry.short())
        entry.take(8)


def stored_kernel() -> Kernel:
    """Return what reads documents, compiled; compiling it, once after an installation, takes some seconds."""
    return load_kernels(KERNELS, ("documents",))["documents"]


class _SegmentStore:
    """The stored documents of one segment. rows: the row of each, (documents,): of a chunk that of the first one."""

    def __init__(self, held: HeldCommit, segment: Segment) -> None:
        files = SegmentFiles(held.folder, segment, held.mapped)
        if files.attributes.get("Lucene90StoredFieldsFormat.mode") != "BEST_SPEED":
            raise ForeignError("is packed in another way")
        newer = segment.fields_generation
        infos = files.part(".fnm") if newer < 0 else files.part(f"_{base36(newer)}.fnm", own_file=True)
        fields = _fields(infos)
        if "row" not in fields or "raw" not in fields:
            raise ForeignError("has no documents of ours")
        self._raw, (number, generation) = fields["raw"].number, fields["row"]
        suffix = VALUES if generation < 0 else f"{base36(generation)}_{VALUES}"
        meta, data = (files.part(f"_{suffix}.{end}", own_file=generation >= 0) for end in ("dvm", "dvd"))
        self.rows = _doc_values(meta, data, suffix, number, files.documents)
        self._data = np.frombuffer(files.part(".fdt"), np.uint8)
        self._load_index(Data(checked(bytes(files.part(".fdm")))), files.part(".fdx"), files.documents)

    def _load_index(self, meta: Data, index: memoryview, documents: int) -> None:
        """Read where each chunk of documents begins: with which one, and where in the file."""
        meta.header("Lucene90FieldsIndexMeta", 0, 1)
        self._slice = meta.short()
        if not 0 < self._slice <= LARGEST_SLICE:
            raise ForeignError(f"has slices of {self._slice} bytes")
        count, shift, chunks = (meta.little(4) for _ in range(3))
        first = meta.little(8)
        numbers = _Monotonic(meta, chunks, shift)
        second = meta.little(8)
        places = _Monotonic(meta, chunks, shift)
        if count != documents:
            raise ForeignError("has another number of documents")
        self._first, self._places = numbers.read(index, first), places.read(index, second)

    def raws(self, numbers: Wholes) -> list[bytes]:
        """Return the stored JSON of documents by their numbers."""
        chunks = self._first.searchsorted(numbers, side="right") - 1
        if not len(numbers) or chunks.min() < 0 or chunks.max() >= len(self._places) - 1:
            raise ForeignError("has a chunk out of its place")
        wanted = np.empty((len(numbers), 3), np.int64)
        wanted[:, 0], wanted[:, 1], wanted[:, 2] = self._places[chunks], self._places[chunks + 1], numbers
        begins, ends = wanted[:, 0], wanted[:, 1]
        if begins.min() < 0 or (begins >= ends).any() or ends.max() > len(self._data):
            raise ForeignError("has a chunk out of its place")
        read = stored_kernel()
        room, out, results = np.empty(2 * self._slice, np.uint8), np.empty(ROOM, np.uint8), np.empty_like(wanted[:, :2])
        found: list[bytes] = []
        while len(wanted):
            count = read(self._data, wanted, self._raw, self._slice, room, out, results)
            if count < 0:
                raise ForeignError("a stored document cannot be read")
            found += [out[start:end].tobytes() for start, end in results[:count].tolist()]
            wanted = wanted[count:]
            if len(wanted) and (size := int(results[count, 0])) > len(out):
                if size > DENSEST * (wanted[0, 1] - wanted[0, 0]):
                    raise ForeignError("a stored document cannot be read")
                out = np.empty(size, np.uint8)
        return found


class StoredFields:
    """The stored documents of a commit by their rows. All files are mapped when it is made."""

    def __init__(self, held: HeldCommit, rows: int) -> None:
        self._segments = [_SegmentStore(held, segment) for segment in held.commit.segments]
        self._rows = rows

    @lazy
    def _numbers(self) -> Wholes:
        """Return the number of the document of each row, the segments one behind the other, -1 for none, (rows,)."""
        numbers = np.full(self._rows, -1, np.int64)
        end = sum(len(segment.rows) for segment in self._segments)
        for segment in reversed(self._segments):
            end -= len(segment.rows)
            good = (segment.rows >= 0) & (segment.rows < self._rows)
            # From behind: the first of the chunks of a document, which have its row, has what is stored.
            numbers[segment.rows[good][::-1]] = end + np.flatnonzero(good)[::-1]
        return numbers

    def raws(self, rows: Sequence[int]) -> list[bytes]:
        """Return the stored JSON of the documents that begin with these rows."""
        numbers = self._numbers[list(rows)]
        if len(numbers) and numbers.min() < 0:
            raise ForeignError("has no document of this row")
        found: list[bytes] = [b""] * len(numbers)
        begin = 0
        for segment in self._segments:
            own = np.flatnonzero((numbers >= begin) & (numbers < begin + len(segment.rows)))
            if len(own):
                for place, raw in zip(own.tolist(), segment.raws(numbers[own] - begin), strict=True):
                    found[place] = raw
            begin += len(segment.rows)
        return found
