"""The sparse leg by its postings: the products of all postings of the query's terms are added up, block by block.

Every ranking is Lucene's to the last tie: an impact times a weight is a float32, these are summed as float64, and the
sum counts as a float32.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene.calls import Found, no_hits
from retriever.index.postings.blocks import BLOCK_ROWS, LARGEST
from retriever.lazy import lazy
from retriever.ranking import check_top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.contract import LegReader, Selection
    from retriever.index.postings.blocks import Block
    from retriever.index.postings.sparse import Postings
    from retriever.types import BoolArray, Ranking


__all__ = ["QueryTerms", "StoredPostings"]


class StoredPostings:
    """Exact, without Java, from the memory-mapped postings; an index that has none yet is searched by Lucene.

    The first query of a process is added up by NumPy, and those that follow by compiled kernels: loading these takes
    longer than some queries do.
    """

    def __init__(self, reader: LegReader) -> None:
        self._reader = reader
        self._asked = False
        self._scratch = threading.local()

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Add up the postings of the query's terms."""
        postings = self._reader.postings
        if postings is None:
            return self._reader.sparse(terms, top_k, selection)
        check_top_k(top_k)
        query = query_terms(terms)
        eligible = self._reader.alive if selection is None else self._reader.alive & selection.rows
        return self._reader.ranking(lambda count: self._best(postings, query, eligible, count), top_k)

    def _best(self, postings: Postings, query: QueryTerms, eligible: BoolArray, count: int) -> Found:
        search = self._compiled if self._asked or "numba" in sys.modules else by_numpy
        self._asked = True
        found = search(postings, query, eligible, count)
        return found._replace(scores=found.scores / self._reader.settings.impact_scale)

    def among(self, terms: csr_matrix, rows: Sequence[int]) -> dict[int, float]:
        """Return the scores above 0 of some live rows, by row, as `search` gives them, where there are postings."""
        postings = self._reader.postings
        assert postings is not None
        eligible = np.zeros_like(self._reader.alive)
        eligible[rows] = True
        found = self._best(postings, query_terms(terms), eligible, len(rows))
        return dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))

    def _compiled(self, postings: Postings, query: QueryTerms, eligible: BoolArray, count: int) -> Found:
        """Return what `by_numpy` does."""
        from retriever.search.kernels import best_rows

        scratch = self._scratch
        if not hasattr(scratch, "arrays"):
            sums, slots, wide = np.empty(BLOCK_ROWS, np.uint16), np.zeros(BLOCK_ROWS, np.uint16), np.empty(BLOCK_ROWS)
            # what is found is few of these, and memory that is not touched is not taken
            scratch.arrays = sums, slots, wide, np.empty(len(eligible), np.int64), np.empty(len(eligible))
        found = best_rows(self._table, *query, eligible, count, *scratch.arrays)
        return Found(*(part[:found].copy() for part in scratch.arrays[-2:]))

    @lazy
    def _table(self) -> NDArray[np.int64]:
        """Return where the kernel finds the blocks, int64 (blocks, BLOCK_FIELDS)."""
        from retriever.search.kernels import BLOCK_FIELDS

        postings = self._reader.postings
        assert postings is not None
        table = [
            (first, block.rows, len(block.terms), *(part.ctypes.data for part in block[1:6]), block.step)
            for first, block in zip(postings.first_rows, postings.blocks, strict=True)
        ]
        return np.array(table, np.int64).reshape(-1, BLOCK_FIELDS)


class QueryTerms(NamedTuple):
    """What Lucene reads of a query: vocabulary ids, uint32 (n,), and weights above 0, float32 (n,)."""

    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]


def query_terms(terms: csr_matrix) -> QueryTerms:
    """Return the terms of a query (1, vocab_size) with their weights as Lucene reads them of `impact_query`.

    It writes 9 decimals: the product of a float32 with 1e9 is exact, and so this is the same number.
    """
    if not np.isfinite(terms.data).all():
        raise ValueError("a query term weight is not finite")
    kept = terms.data >= 1e-9
    weights = (np.rint(terms.data[kept].astype(np.float64) * 1e9) / 1e9).astype(np.float32)
    return QueryTerms(terms.indices[kept].astype(np.uint32), weights)


def by_numpy(postings: Postings, query: QueryTerms, eligible: BoolArray, count: int) -> Found:
    """Return the eligible rows with the best `count` scores above 0, and all that tie with the last.

    eligible: bool (rows,). The scores are float32 values.
    """
    found = no_hits()
    for block, first in zip(postings.blocks, postings.first_rows, strict=True):
        scores = np.where(eligible[first : first + block.rows], block_scores(block, query), 0)
        rows = np.flatnonzero(scores)
        found = best_of(found, Found(rows + first, scores[rows]), count)
    return found


def block_scores(block: Block, query: QueryTerms) -> NDArray[np.float64]:
    """Return the scores of the rows of a block, float32 values."""
    scores = np.zeros(BLOCK_ROWS)
    places = np.searchsorted(block.terms, query.terms)
    for place, term, weight in zip(places.tolist(), query.terms.tolist(), query.weights, strict=True):
        if place < len(block.terms) and block.terms[place] == term:
            postings = block.postings(place)
            rows, impacts = postings.rows, postings.impacts.astype(np.float32)
            if postings.largest > LARGEST:
                first = np.flatnonzero(np.diff(rows, prepend=-1))
                rows, impacts = rows[first], np.add.reduceat(impacts, first)
            scores[rows] += weight * impacts
    return scores[: block.rows].astype(np.float32).astype(np.float64)


def best_of(found: Found, more: Found, count: int) -> Found:
    """Return the best `count` of both, and all that tie with the last one."""
    rows, scores = np.concatenate([found.rows, more.rows]), np.concatenate([found.scores, more.scores])
    if len(rows) <= count:
        return Found(rows, scores)
    chosen = scores >= np.partition(scores, -count)[-count]
    return Found(rows[chosen], scores[chosen])
