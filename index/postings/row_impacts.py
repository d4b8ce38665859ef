"""The impacts of one row, found in the postings, which are stored term by term."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from retriever.index.postings.blocks import bitmap_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.postings.blocks import Block
    from retriever.index.postings.sparse import Postings

__all__ = ["row_impacts"]


def row_impacts(postings: Postings, row: int, vocab_size: int) -> csr_matrix:
    """Return int32 csr (1, vocab_size): the impacts of a row; all terms are looked up at once, in milliseconds."""
    from scipy.sparse import csr_matrix

    number = bisect_right(postings.first_rows, row) - 1
    block = postings.blocks[number]
    own = row - postings.first_rows[number]
    found = dict([*_in_lists(block, own), *_in_bitmaps(block, own)])
    places = sorted(found)
    impacts = np.array([found[place] for place in places], np.int32)
    return csr_matrix((impacts, block.terms[places].astype(np.int32), [0, len(found)]), shape=(1, vocab_size))


def _in_lists(block: Block, row: int) -> Iterator[tuple[int, int]]:
    """Yield the places of the terms that hold a row, and its impacts, of the terms with lists."""
    lists = np.flatnonzero(block.sizes % 2 == 0)
    starts, counts = block.step * block.starts[lists].astype(np.int64), block.sizes[lists].astype(np.int64) // 2
    first, last = (_before(block, starts, counts, end) for end in (row, row + 1))
    for at in np.flatnonzero(last > first).tolist():  # mostly one posting, more where it is above what one holds
        impacts = block.data[starts[at] + 2 * counts[at] :]
        yield int(lists[at]), int(impacts[first[at] : last[at]].sum())


def _before(block: Block, starts: NDArray[np.int64], counts: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """Return for each list how many of its postings are of rows before this one, (n,)."""
    low, high = np.zeros_like(starts), counts.copy()
    while (low < high).any():
        middle = (low + high) // 2
        open_ = low < high
        at = np.where(open_, starts + 2 * middle, 0)
        before = block.data[at] + 256 * block.data[at + 1].astype(np.int64) < row
        low = np.where(open_ & before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low


def _in_bitmaps(block: Block, row: int) -> Iterator[tuple[int, int]]:
    """Do as `_in_lists`, of the terms with bitmaps."""
    places = np.flatnonzero(block.sizes % 2)
    starts = block.step * block.starts[places].astype(np.int64)
    held = block.data[starts + row // 8] >> (row % 8) & 1 if len(places) else places
    for place, start in zip(places[held == 1].tolist(), starts[held == 1].tolist(), strict=True):
        before = np.unpackbits(block.data[start : start + row // 8 + 1], bitorder="little")[:row].sum()
        yield place, int(block.data[start + bitmap_bytes(block.rows) + int(before)])
