"""The postings of the sparse leg beside Lucene's: derived from the same impacts, in blocks that follow the rows.

A commit names the blocks, and they cover all its rows, dead ones too. New rows become new blocks, and small neighbours
are merged into one, so that there are few, and each row is written again only some times. Lucene is the durable form:
it gives the postings of an index that has none, and of one in which they are damaged.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.files import COMPACT, checksum, damaged, sync_path
from retriever.index.postings.blocks import BLOCK_ROWS, BlockFile, BlockWriter, TermPostings, open_block
from retriever.index.postings.inverted import Source, inverted, merged, term_postings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.lucene.postings import TermImpacts
    from retriever.index.postings.blocks import Block

__all__ = ["Postings", "SparseWriter", "open_postings"]

FOLDER = "sparse"
BUFFERED_ROWS = 8_192
"""Rows whose impacts are in memory at most: ten megabytes of them."""
GROWTH = 4
"""A block is merged with those behind it once it has no more than so many times their rows."""


class Postings(NamedTuple):
    """All postings of a commit: its blocks, in the order of the rows that they cover, and the first row of each."""

    blocks: Sequence[Block]
    first_rows: Sequence[int]


def open_postings(folder: Path, files: Sequence[BlockFile], rows: int) -> Postings | None:
    """Map the postings of a commit; None if it has none, as those of indexes that were made before there were any."""
    if sum(file.rows for file in files) != rows:
        return None
    starts = np.cumsum([0, *(file.rows for file in files)]).tolist()
    return Postings([open_block(folder / file.file, file.rows) for file in files], starts[:-1])


def groups(rows: Sequence[int]) -> list[int]:
    """Return how many neighbouring blocks, of so many rows each, become one, from the first to the last.

    >>> groups([65_536, 900, 300, 8, 8])
    [1, 2, 2]
    """
    sizes: list[int] = []
    counts: list[int] = []
    for size in rows:
        sizes.append(size)
        counts.append(1)
        while len(sizes) > 1 and sizes[-2] <= GROWTH * sizes[-1] and sizes[-2] + sizes[-1] <= BLOCK_ROWS:
            size, count = sizes.pop(), counts.pop()
            sizes[-1] += size
            counts[-1] += count
    return counts


class SparseWriter:
    """Writes the postings of the next commit beside those of the last one.

    files: the blocks of all rows that were added, but for those that wait in memory. They stand for nothing where they
    do not cover the rows of the index that came before (`complete`): then they are made from Lucene.
    """

    def __init__(self, folder: Path, files: Sequence[BlockFile], rows: int, number: int) -> None:
        self.files = list(files)
        self.complete = sum(file.rows for file in files) == rows
        self._folder, self._number, self._serial = folder, number, 0
        self._buffer: list[csr_matrix] = []
        self._buffered = 0

    def add(self, impacts: csr_matrix) -> None:
        """Add rows of impacts, int32 csr (n, vocab_size)."""
        for start in range(0, impacts.shape[0], BUFFERED_ROWS):
            part = impacts[start : start + BUFFERED_ROWS]
            if self._buffered + part.shape[0] > BUFFERED_ROWS:
                self._flush()
            self._buffer.append(part)
            self._buffered += part.shape[0]

    def _flush(self) -> None:
        if self._buffered and self.complete:
            from scipy.sparse import vstack

            self.files.append(self._write(self._buffered, inverted(vstack(self._buffer, "csr"))))
        self._buffer, self._buffered = [], 0

    def _new(self, rows: int) -> tuple[str, BlockWriter]:
        folder = self._folder / FOLDER
        folder.mkdir(exist_ok=True)
        sync_path(self._folder)  # else a commit could outlive the folder that it names
        self._serial += 1
        name = f"{FOLDER}/{self._number}-{self._serial}.postings"
        return name, BlockWriter(self._folder / name, rows)

    def _write(self, rows: int, terms: Iterable[TermPostings]) -> BlockFile:
        name, block = self._new(rows)
        with block:
            for postings in terms:
                block.add(postings)
            return BlockFile(name, rows, block.finish())

    def finish(self, number: int) -> list[BlockFile]:
        """Return the blocks of all rows, for commit `number`, durable; small neighbours are merged."""
        self._flush()
        files, start = [], 0
        for count in groups([file.rows for file in self.files]):
            part = self.files[start : start + count]
            files.append(part[0] if count == 1 else self._merge(part))
            start += count
        self.files, self._number, self._serial = files, number + 1, 0
        return files

    def _merge(self, files: Sequence[BlockFile]) -> BlockFile:
        ends = np.cumsum([0, *(file.rows for file in files)]).tolist()
        targets = [np.arange(*ends_) for ends_ in pairwise(ends)]
        sources = [Source(self._checked(file), target) for file, target in zip(files, targets, strict=True)]
        return self._write(ends[-1], merged(sources))

    def _checked(self, file: BlockFile) -> Block:
        """Open a block; else a copy of a damaged one would have a checksum that says that it is whole."""
        path = self._folder / file.file
        if checksum(path) != file.crc:
            raise damaged(path, "wrong checksum", COMPACT)
        return open_block(path, file.rows)

    def compact(self, alive: NDArray[np.int64]) -> None:
        """Keep these rows (ascending) alone, numbered anew. Where a block is damaged, nothing is complete any more."""
        self._flush()
        paths = [self._folder / file.file for file in self.files]
        whole = (path.exists() and checksum(path) == file.crc for path, file in zip(paths, self.files, strict=True))
        self.complete = self.complete and all(whole)
        if self.complete and len(alive) < sum(file.rows for file in self.files):
            self._keep(alive)

    def _keep(self, alive: NDArray[np.int64]) -> None:
        """Drop all rows but these (ascending), which are numbered anew; the blocks become full ones."""
        starts = np.cumsum([0, *(file.rows for file in self.files)])
        old, files = self.files, []
        for begin in range(0, len(alive), BLOCK_ROWS):
            part = alive[begin : begin + BLOCK_ROWS]
            first, last = np.searchsorted(starts, [part[0], part[-1]], side="right").tolist()
            sources = []
            for number in range(first - 1, last):
                target = np.full(old[number].rows, -1, np.int64)
                own = (part >= starts[number]) & (part < starts[number + 1])
                target[part[own] - starts[number]] = np.flatnonzero(own)
                sources.append(Source(self._checked(old[number]), target))
            files.append(self._write(len(part), merged(sources)))
        self.files = files

    def rebuild(self, impacts: Iterable[TermImpacts], rows: int) -> None:
        """Make the postings of all rows from Lucene's impacts, terms ascending: every block grows at once."""
        self._buffer, self._buffered, self.files = [], 0, []
        bounds = [*range(0, rows, BLOCK_ROWS), rows]
        with ExitStack() as stack:
            blocks = [self._new(end - begin) for begin, end in pairwise(bounds)]
            for _, block in blocks:
                stack.enter_context(block)
            for term, found, values in impacts:
                places = np.searchsorted(found, bounds).tolist()
                for (_, block), begin, (first, last) in zip(blocks, bounds, pairwise(places), strict=False):
                    block.add(term_postings(term, found[first:last] - begin, values[first:last]))
            for (name, block), (begin, end) in zip(blocks, pairwise(bounds), strict=True):
                self.files.append(BlockFile(name, end - begin, block.finish()))
        self.complete = True
