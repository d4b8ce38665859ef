"""Files of postings: of up to 65,536 neighbouring rows, term by term, each row that holds the term and its impact.

Three bytes a posting: the row as a 16-bit number from the first row of the block, the impact as 8 bits. An impact above
255 is split: its row stands several times, and the impacts add up.

A file holds, little-endian: of each term its rows (uint16) and then its impacts (uint8), one byte of padding after an
odd number of them; then, from a place that 4 divides, the terms in ascending order (uint32), where each begins, in
steps of 2 bytes, and the last one ends (uint32), the largest impact of each, or more (uint16); then the `_END`.
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
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

__all__ = [
    "BLOCK_ROWS",
    "LARGEST",
    "Block",
    "BlockFile",
    "BlockWriter",
    "Source",
    "TermPostings",
    "inverted",
    "merged",
    "open_block",
    "term_postings",
]

BLOCK_ROWS = 65_536
LARGEST = 255
"""What one posting holds of an impact."""
_END = struct.Struct("<8sQQ")  # magic, rows, terms
_MAGIC = b"postings"


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

    rows: how many it covers. terms: uint32 (t,). starts: uint32 (t + 1,). largest: uint16 (t,). data: all bytes, uint8.
    """

    rows: int
    terms: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    largest: NDArray[np.uint16]
    data: NDArray[np.uint8]

    def postings(self, place: int) -> TermPostings:
        """Return the postings of the term at a place in `terms`."""
        start, end = 2 * int(self.starts[place]), 2 * int(self.starts[place + 1])
        count = (end - start) // 3
        middle = start + 2 * count
        rows, impacts = self.data[start:middle].view("<u2"), self.data[middle : middle + count]
        return TermPostings(int(self.terms[place]), rows, impacts, int(self.largest[place]))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return the number of postings of each term, (t,)."""
        starts = self.starts.astype(np.int64)
        return (starts[1:] - starts[:-1]) * 2 // 3


class BlockWriter:
    """Writes a file of postings of `rows` rows, term by term; its memory does not grow with the postings."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path, self._rows = path, rows
        self._terms: list[int] = []
        self._starts = [0]
        self._largest: list[int] = []
        self._crc = 0
        self._temporary = path.with_name(path.name + ".tmp")
        self._file = self._temporary.open("wb")

    def add(self, postings: TermPostings) -> None:
        """Write the postings of one term, behind those of the terms below it; a term without any is passed over."""
        count = len(postings.rows)
        if count:
            self._write(postings.rows.astype("<u2").tobytes() + postings.impacts.tobytes() + bytes(count % 2))
            self._terms.append(postings.term)
            self._starts.append(self._starts[-1] + (3 * count + 1) // 2)
            self._largest.append(postings.largest)

    def finish(self) -> int:
        """Make the file durable under its name; return its CRC-32."""
        self._write(bytes(2 * self._starts[-1] % 4))
        for numbers, kind in ((self._terms, "<u4"), (self._starts, "<u4"), (self._largest, "<u2")):
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
    magic, covered, terms = _END.unpack(data[-_END.size :].tobytes()) if len(data) >= _END.size else (b"", 0, 0)
    tables = len(data) - _END.size - 10 * terms - 4
    if magic != _MAGIC or covered != rows or tables < 0 or tables % 4:
        raise damaged(path, "its end is not that of a file of postings", COMPACT)
    first, second, third = tables + 4 * terms, tables + 8 * terms + 4, tables + 10 * terms + 4
    plain = data.view(np.ndarray)
    starts = plain[first:second].view("<u4")
    if 2 * int(starts[-1]) not in (tables, tables - 2) or (starts[1:] < starts[:-1]).any() or starts[0]:
        raise damaged(path, "its terms do not follow each other", COMPACT)
    return Block(rows, plain[tables:first].view("<u4"), starts, plain[second:third].view("<u2"), plain)


def inverted(impacts: csr_matrix) -> Iterator[TermPostings]:
    """Yield the postings of rows of impacts, int32 csr (n, vocab_size), n at most 65,536."""
    columns = impacts.tocsc()
    ends = columns.indptr
    for term in np.flatnonzero(np.diff(ends)).tolist():
        start, end = ends[term], ends[term + 1]
        yield term_postings(term, columns.indices[start:end], columns.data[start:end])


def term_postings(term: int, rows: NDArray[np.int32], impacts: NDArray[np.int32]) -> TermPostings:
    """Return postings of rows (ascending, below 65,536) and impacts (above 0), split where they are above 255."""
    largest = int(impacts.max(initial=0))
    if largest > LARGEST:
        copies = -(-impacts // LARGEST)
        last = np.cumsum(copies) - 1
        split = np.full(int(copies.sum()), LARGEST, np.uint8)
        split[last] = impacts - LARGEST * (copies - 1)
        return TermPostings(term, np.repeat(rows, copies).astype(np.uint16), split, largest)
    return TermPostings(term, rows.astype(np.uint16), impacts.astype(np.uint8), largest)


class Source(NamedTuple):
    """A block from which rows are taken: to which row of the new block each goes, int64 (rows,), or -1 for nowhere."""

    block: Block
    target: NDArray[np.int64]


def merged(sources: list[Source]) -> Iterator[TermPostings]:
    """Yield the postings of the rows that are taken from some blocks, in ascending order of their targets."""
    terms = np.unique(np.concatenate([source.block.terms for source in sources]))
    places = [np.searchsorted(source.block.terms, terms).tolist() for source in sources]
    has = [set(source.block.terms.tolist()) for source in sources]
    whole = [bool((source.target >= 0).all()) for source in sources]
    for number, term in enumerate(terms.tolist()):
        rows, impacts, largest = [], [], 0
        for source, place, own, complete in zip(sources, places, has, whole, strict=True):
            if term not in own:
                continue
            found = source.block.postings(place[number])
            target = source.target[found.rows]
            kept = slice(None) if complete else target >= 0
            rows.append(target[kept])
            impacts.append(found.impacts[kept])
            largest = max(largest, found.largest)
        yield TermPostings(term, np.concatenate(rows).astype(np.uint16), np.concatenate(impacts), largest)
