"""In how many live rows terms stand, by their postings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.index.postings.blocks import LARGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.index.postings.blocks import Block
    from retriever.index.postings.sparse import Postings

__all__ = ["frequencies"]


def frequencies(postings: Postings, terms: Sequence[int], alive: NDArray[np.bool_]) -> list[int]:
    """Return in how many of the live rows each term stands. alive: (rows,)."""
    sought, which = np.unique(np.array(terms, np.int64), return_inverse=True)
    counts = np.zeros(len(sought), np.int64)
    for block, first in zip(postings.blocks, postings.first_rows, strict=True):
        held, places = block.find(sought)
        counts[held] += _counts(block, places, alive[first : first + block.rows])
    found: list[int] = counts[which].tolist()
    return found


def _counts(block: Block, places: NDArray[np.int64], alive: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = block.sizes[places].astype(np.int64) >> 1
    split = block.largest[places] > LARGEST  # their rows stand several times
    for i in np.flatnonzero(split | (not alive.all())).tolist():
        rows = block.postings(int(places[i])).rows
        counts[i] = np.count_nonzero(alive[np.unique(rows) if split[i] else rows])
    return counts
