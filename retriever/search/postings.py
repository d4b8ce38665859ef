"""The sparse leg by its postings: the products of all postings of the query's terms are added up, block by block.

Every ranking is Lucene's to the last tie: an impact times a weight is a float32, these are summed as float64, and the
sum counts as a float32.
"""

from __future__ import annotations

import sys
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
    from retriever.types import Ranking

    Scores = NDArray[np.float64]

__all__ = ["QueryTerms", "StoredPostings"]


class StoredPostings:
    """Exact, without Java, from the memory-mapped postings; an index that has none yet is searched by Lucene.

    The first query of a process is added up by NumPy, and those that follow by compiled kernels: loading these takes
    longer than some queries do.
    """

    def __init__(self, reader: FolderReader) -> None:
        self._reader = reader
        self._asked = False

    def search(self, terms: csr_matrix, top_k: int, selection: Selection | None = None) -> Ranking:
        """Add up the postings of the query's terms."""
        postings = self._reader.postings
        if postings is None:
            return self._reader.sparse(terms, top_k, selection)
        check_top_k(top_k)
        query = query_terms(terms)
        compiled = self._asked or "numba" in sys.modules
        self._asked = True
        eligible = self._reader.alive if selection is None else self._reader.alive & selection.rows
        complete = selection is None and self._reader.num_chunks == len(eligible)

        def best(count: int) -> Found:
            found = no_hits()
            for block, first in zip(postings.blocks, postings.first_rows, strict=True):
                scores = block_scores(block, query, compiled)
                if not complete:
                    scores[~eligible[first : first + block.rows]] = 0
                found = best_of(found, scores, first, count)
            return found._replace(scores=found.scores / self._reader.settings.impact_scale)

        return self._reader.ranking(best, top_k)


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


def block_scores(block: Block, query: QueryTerms, compiled: bool) -> Scores:
    """Return the scores of a block's rows, float64 (rows,)."""
    scores = np.zeros(BLOCK_ROWS)
    if not len(block.terms):
        return scores[: block.rows]
    places = np.minimum(np.searchsorted(block.terms, query.terms), len(block.terms) - 1)
    held = np.flatnonzero(block.terms[places] == query.terms)
    places, weights = places[held], query.weights[held]
    if compiled:
        from retriever.search.kernels import add_up

        pairs = block.data[: len(block.data) // 2 * 2].view("<u2")
        add_up(pairs, block.data, block.starts, block.largest, places, weights, scores)
        return scores[: block.rows]
    for place, weight in zip(places.tolist(), weights, strict=True):
        postings = block.postings(place)
        rows, impacts = postings.rows, postings.impacts.astype(np.float32)
        if postings.largest > LARGEST:
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            rows, impacts = rows[first], np.add.reduceat(impacts, first)
        scores[rows] += weight * impacts
    return scores[: block.rows]


def best_of(found: Found, scores: Scores, first: int, count: int) -> Found:
    """Return the best `count` of what was found before and of a block's rows, and all that tie with the last one."""
    least = 0.0 if len(found.scores) < count else found.scores.min()
    rows = np.flatnonzero(scores >= least if least else scores)
    kept = Found(
        np.concatenate([found.rows, rows + first]),
        np.concatenate([found.scores, scores[rows].astype(np.float32).astype(np.float64)]),
    )
    if len(kept.rows) <= count:
        return kept
    chosen = kept.scores >= np.partition(kept.scores, -count)[-count]
    return Found(kept.rows[chosen], kept.scores[chosen])
