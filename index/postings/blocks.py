"""Files of postings: of up to 65,536 neighbouring rows, term by term, each row that holds the term and its impact.

An impact is 8 bits; one above 255 is split: its row stands several times, and the impacts add up. Which rows hold a
term stands in the shorter of two forms: a list of 16-bit numbers from the first row of the block, or, for a term that
more than a sixteenth of the rows hold, a bitmap. Two bytes and a half a posting, and a bitmap is added up many rows at
a time.

A file holds, little-endian: of each term, from a place that 8 divides, its rows (uint16 each, or 64 to a uint64, the
first in the lowest bit) and then its impacts (uint8), in ascending order of the rows; 64 bytes of padding, so that a
wide read at the end stays within the file; then the terms in ascending order (uint32), where each begins, in steps of 8
bytes (uint32), twice its number of postings, and one more for a bitmap (uint32), the largest impact of each, or more
(uint16); then the `_END`. Files of version 1 have lists alone, in another layout.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.files import COMPACT, damaged, sync_path

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["BLOCK_ROWS", "LARGEST", "Block", "BlockFile", "BlockWriter", "TermPostings", "bitmap_bytes", "open_block"]

BLOCK_ROWS = 65_536
LARGEST = 255
"""What one posting holds of an impact."""
GROUP = 64
"""Rows whose bits stand together in a bitmap."""
_STEP = 8
_PADDING = 64
_END = struct.Struct("<8sQQ")  # magic, rows, terms
_MAGIC, _MAGIC_1 = b"bitmaps2", b"postings"


class BlockFile(NamedTuple):
    """A file of postings in a commit: its path in the index folder, the rows that it covers, its CRC-32."""

    file: str
    rows: int
    crc: int


class TermPostings(NamedTuple):
    """Of one term the rows that hold it, uint16 (n,) from the first row of a block, ascending, and impacts, uint8 (n,).

    largest: no impact is above it, those that were split added up.
    """

    term: int
    rows: NDArray[np.uint16]
    impacts: NDArray[np.uint8]
    largest: int


class Block(NamedTuple):
    """An open file of postings.

    rows: how many it covers. terms: uint32 (t,). starts: where each begins in `data`, uint32 (t,), in steps of `step`
    bytes. sizes: twice the number of postings, and one more for a bitmap, uint32 (t,). largest: uint16 (t,). data: all
    bytes, uint8.
    """

    rows: int
    terms: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    largest: NDArray[np.uint16]
    data: NDArray[np.uint8]
    step: int = _STEP

    def find(self, terms: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which of some terms (n,) the block holds, by their places among these, and their places in `terms`."""
        places = np.searchsorted(self.terms, terms)
        inside = np.flatnonzero(places < len(self.terms))
        held = inside[self.terms[places[inside]] == terms[inside]]
        return held, places[held]

    def postings(self, place: int) -> TermPostings:
        """Return the postings of the term at a place in `terms`."""
        start, count = self.step * int(self.starts[place]), int(self.sizes[place]) >> 1
        if self.sizes[place] & 1:
            middle = start + bitmap_bytes(self.rows)
            bits = np.unpackbits(self.data[start:middle], bitorder="little")
            rows = np.flatnonzero(bits)[:count].astype(np.uint16)
            count = len(rows)  # fewer in a damaged block alone
        else:
            middle = start + 2 * count
            rows = self.data[start:middle].view("<u2")
        return TermPostings(int(self.terms[place]), rows, self.data[middle : middle + count], int(self.largest[place]))


def bitmap_bytes(rows: int) -> int:
    """Return the length of a bitmap of so many rows."""
    return -(-rows // GROUP) * GROUP // 8


class BlockWriter:
    """Writes a file of postings of `rows` rows, term by term; its memory does not grow with the postings."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path, self._rows = path, rows
        self._terms: list[int] = []
        self._starts: list[int] = []
        self._sizes: list[int] = []
        self._largest: list[int] = []
        self._crc = self._size = 0
        self._temporary = path.with_name(path.name + ".tmp")
        self._file = self._temporary.open("wb")

    def add(self, postings: TermPostings) -> None:
        """Write the postings of one term, behind those of the terms below it; a term without any is passed over."""
        count, bitmap = len(postings.rows), bitmap_bytes(self._rows)
        if not count:
            return
        self._terms.append(postings.term)
        self._starts.append(self._size // _STEP)
        self._largest.append(postings.largest)
        if postings.largest <= LARGEST and bitmap < 2 * count:  # where impacts are split, rows stand several times
            bits = np.zeros(8 * bitmap, bool)
            bits[postings.rows] = True
            rows = np.packbits(bits, bitorder="little").tobytes()
        else:
            rows = postings.rows.astype("<u2").tobytes()
        self._sizes.append(2 * count + (len(rows) < 2 * count))
        self._write(rows + postings.impacts.tobytes())
        self._write(bytes(-self._size % _STEP))

    def finish(self) -> int:
        """Make the file durable under its name; return its CRC-32."""
        self._write(bytes(_PADDING))
        tables = ((self._terms, "<u4"), (self._starts, "<u4"), (self._sizes, "<u4"), (self._largest, "<u2"))
        for numbers, kind in tables:
            self._write(np.array(numbers, kind).tobytes())
        self._write(_END.pack(_MAGIC, self._rows, len(self._terms)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        sync_path(self._path.parent)
        return self._crc

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # of a full disk, which has been reported
            self._file.close()


def open_block(path: Path, rows: int) -> Block:
    """Map a file of postings of so many rows; raise UserError if its parts do not fit together.

    What is found in it is then safe to follow: other damage changes scores, no more.
    """
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    plain = data.view(np.ndarray)
    end = len(plain) - _END.size
    magic, covered, terms = _END.unpack(plain[end:].tobytes()) if end >= 0 else (b"", 0, 0)
    layouts = {_MAGIC: _opened, _MAGIC_1: _opened_1}
    block = layouts[magic](plain[:end], rows, terms) if magic in layouts and covered == rows else None
    if block is None:
        raise damaged(path, "its parts are not those of a file of postings", COMPACT)
    return block


def _opened(data: NDArray[np.uint8], rows: int, terms: int) -> Block | None:
    """Return the block whose postings and tables these are, None if it cannot be one."""
    tables = len(data) - 14 * terms
    if tables < _PADDING or tables % 4 or rows > BLOCK_ROWS:
        return None
    names, starts, sizes = data[tables : tables + 12 * terms].view("<u4").reshape(3, terms)
    counts, bitmaps = sizes.astype(np.int64) >> 1, sizes & 1
    ends = _STEP * starts.astype(np.int64) + np.where(bitmaps, bitmap_bytes(rows) + counts, 3 * counts)
    if (ends > tables - _PADDING).any():
        return None
    return Block(rows, names, starts, sizes, data[tables + 12 * terms :].view("<u2"), data)


def _opened_1(data: NDArray[np.uint8], rows: int, terms: int) -> Block | None:
    """Do so for version 1: the postings of one term begin where those of another end, in steps of 2 bytes."""
    tables = len(data) - 10 * terms - 4
    if tables < 0 or tables % 4 or rows > BLOCK_ROWS:
        return None
    first, second = tables + 4 * terms, tables + 8 * terms + 4
    starts = data[first:second].view("<u4")
    if 2 * int(starts[-1]) not in (tables, tables - 2) or (starts[1:] < starts[:-1]).any() or starts[0]:
        return None
    sizes = (starts[1:].astype(np.int64) - starts[:-1]) * 2 // 3 * 2
    return Block(
        rows, data[tables:first].view("<u4"), starts[:-1], sizes.astype("<u4"), data[second:].view("<u2"), data, 2
    )
