"""The impacts of one row, found in the postings, which are stored term by term."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.postings import Block
    from retriever.index.sparse import Postings

__all__ = ["row_impacts"]


def row_impacts(postings: Postings, row: int, vocab_size: int) -> csr_matrix:
    """Return int32 csr (1, vocab_size): the impacts of a row; a binary search in all terms at once, milliseconds."""
    from scipy.sparse import csr_matrix

    number = bisect_right(postings.first_rows, row) - 1
    block = postings.blocks[number]
    own = row - postings.first_rows[number]
    first, last = _place(block, own), _place(block, own + 1)
    found = np.flatnonzero(last > first)
    counts = block.counts
    impacts = [  # mostly one, more where it is above what one posting holds
        int(block.data[2 * int(block.starts[at]) + 2 * int(counts[at]) :][first[at] : last[at]].sum()) for at in found
    ]
    terms = block.terms[found].astype(np.int32)
    return csr_matrix((np.array(impacts, np.int32), terms, [0, len(found)]), shape=(1, vocab_size))


def _place(block: Block, row: int) -> NDArray[np.int64]:
    """Return for each term how many of its postings are of rows before this one, (t,)."""
    start = 2 * block.starts[:-1].astype(np.int64)
    low, high = np.zeros_like(start), block.counts.copy()
    while (low < high).any():
        middle = (low + high) // 2
        open_ = low < high
        at = np.where(open_, start + 2 * middle, 0)
        before = block.data[at] + 256 * block.data[at + 1].astype(np.int64) < row
        low = np.where(open_ & before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low
