"""The sparse leg by its postings: the products of all postings of the query's terms are added up, block by block.

Every ranking is Lucene's to the last tie: an impact times a weight is a float32, these are summed as float64, and the
sum counts as a float32.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.lucene.hits import Found, no_hits
from retriever.index.postings import BLOCK_ROWS, LARGEST
from retriever.index.quantise import impact_query
from retriever.index.reader import check_top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.postings import Block
    from retriever.index.reader import FolderReader, Selection
    from retriever.types import BoolArray, Ranking


__all__ = ["QueryTerms", "StoredPostings"]


class StoredPostings:
    """Exact, without Java, from the memory-mapped postings; an index that has none yet is searched by Lucene.

    The first query of a process is added up by NumPy, and those that follow by compiled kernels: loading these takes
    longer than some queries do.
    """

    def __init__(self, reader: FolderReader) -> None:
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
        search = self._compiled if self._asked or "numba" in sys.modules else by_numpy
        self._asked = True

        def best(count: int) -> Found:
            found = no_hits()
            for block, first in zip(postings.blocks, postings.first_rows, strict=True):
                more = search(block, query, eligible[first : first + block.rows], count, least_of(found, count))
                found = best_of(found, more._replace(rows=more.rows + first), count)
            return found._replace(scores=found.scores / self._reader.settings.impact_scale)

        return self._reader.ranking(best, top_k)

    def _compiled(self, block: Block, query: QueryTerms, eligible: BoolArray, count: int, least: float) -> Found:
        """Return what `by_numpy` does."""
        from retriever.search.kernels import best_rows

        scratch = self._scratch
        if not hasattr(scratch, "scores"):
            scratch.scores, scratch.rows = np.empty(BLOCK_ROWS), np.empty(BLOCK_ROWS, np.int64)
        parts = block.data, block.data.view("<u2"), block.terms, block.starts, block.largest
        found = best_rows(*parts, *query, eligible, count, least, scratch.scores, scratch.rows)
        rows = scratch.rows[:found].copy()
        return Found(rows, scratch.scores[rows])


class QueryTerms(NamedTuple):
    """What Lucene reads of a query: vocabulary ids, uint32 (n,), and weights above 0, float32 (n,)."""

    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]


def query_terms(terms: csr_matrix) -> QueryTerms:
    """Return the terms of a query (1, vocab_size) with their weights as `impact_query` writes them, in 9 decimals."""
    pairs = [pair.split("^") for pair in impact_query(terms).split()]
    return QueryTerms(
        np.array([term for term, _ in pairs], np.uint32),
        np.array([weight for _, weight in pairs], np.float64).astype(np.float32),
    )


def by_numpy(block: Block, query: QueryTerms, eligible: BoolArray, count: int, least: float) -> Found:
    """Return the eligible rows of a block, from its first one, that score at least so much: the best `count`, or more.

    eligible: bool (rows of the block,). The scores are float32 values.
    """
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
    scores = np.where(eligible, scores[: block.rows].astype(np.float32), 0).astype(np.float64)
    found = np.flatnonzero(scores >= least if least else scores)
    return best_of(no_hits(), Found(found, scores[found]), count)


def best_of(found: Found, more: Found, count: int) -> Found:
    """Return the best `count` of both, and all that tie with the last one."""
    rows, scores = np.concatenate([found.rows, more.rows]), np.concatenate([found.scores, more.scores])
    if len(rows) <= count:
        return Found(rows, scores)
    chosen = scores >= np.partition(scores, -count)[-count]
    return Found(rows[chosen], scores[chosen])


def least_of(found: Found, count: int) -> float:
    """Return what a row must score to be among the best `count`, when these were found before."""
    return float(found.scores.min()) if len(found.scores) >= count else 0.0
