"""Making postings: of rows of impacts, and of other blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.postings.blocks import LARGEST, TermPostings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.postings.blocks import Block

__all__ = ["Source", "inverted", "merged", "term_postings"]


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
