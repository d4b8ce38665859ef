"""The sparse leg by its postings: the products of all postings of the query's terms are added up, block by block.

Every ranking is Lucene's to the last tie: an impact times a weight is a float32, these are summed as float64, and the
sum counts as a float32.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.calls import Found
from retriever.index.postings.blocks import BLOCK_ROWS
from retriever.lazy import lazy
from retriever.machine_code import Argument, Kernel, argument, kept, load_kernels
from retriever.ranking import check_top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from retriever.index.contract import LegReader, Selection
    from retriever.index.postings.sparse import Postings
    from retriever.types import BoolArray, Ranking


__all__ = ["QueryTerms", "StoredPostings", "sparse_kernel", "sparse_kernel_kept"]

KERNELS = "retriever.search.kernels.sparse"
SOURCES = ("retriever.instructions", "retriever.search.kernels.sparse_sums")
CHOSEN, SMALL = 16_384, 256 + 4_096 + 65_536
"""`MANY` of the kernel, and `SMALL` of `sparse_sums`: they are not imported to search."""


class StoredPostings:
    """Exact, without Java, from the memory-mapped postings; an index that has none yet is searched by Lucene."""

    def __init__(self, reader: LegReader) -> None:
        self._reader = reader
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

    def among(self, terms: csr_matrix, rows: Sequence[int]) -> dict[int, float]:
        """Return the scores above 0 of some live rows, by row, as `search` gives them, where there are postings."""
        postings = self._reader.postings
        assert postings is not None
        eligible = np.zeros_like(self._reader.alive)
        eligible[rows] = True
        found = self._best(postings, query_terms(terms), eligible, len(rows))
        return dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True))

    def _best(self, postings: Postings, query: QueryTerms, eligible: BoolArray, count: int) -> Found:
        found = self.best_rows(postings, query, eligible, count)
        return found._replace(scores=found.scores / self._reader.settings.impact_scale)

    def best_rows(self, postings: Postings, query: QueryTerms, eligible: BoolArray, count: int) -> Found:
        """Return the eligible rows with the best `count` scores above 0, and all that tie with the last.

        eligible: bool (rows,). The scores are float32 values.
        """
        scratch = getattr(self._scratch, "arrays", None)
        if scratch is None:
            scratch = self._scratch.arrays = _Scratch.of(len(eligible))
        n, heap = len(query.terms), np.zeros(min(count, len(eligible)))
        room = np.empty((5, n), np.int64), np.empty((3, n), np.uint16), np.empty(n, np.float32)
        found = self._kernel(self._table, *query, eligible, heap, *room, *scratch)
        return Found(scratch.rows.array[:found].copy(), scratch.scores.array[:found].copy())

    @lazy
    def _kernel(self) -> Kernel:
        return sparse_kernel()

    @lazy
    def _table(self) -> Argument:
        """Return where the kernel finds the blocks, int64 (blocks, 9).

        Of each its first row and its rows, its number of terms, the addresses of its terms, starts, sizes, largest and
        data, and the step of its starts.
        """
        postings = self._reader.postings
        assert postings is not None
        table = [
            (first, block.rows, len(block.terms), *(part.ctypes.data for part in block[1:6]), block.step)
            for first, block in zip(postings.first_rows, postings.blocks, strict=True)
        ]
        return argument(np.array(table, np.int64).reshape(-1, 9))


class _Scratch(NamedTuple):
    """What a thread computes in, as the kernel takes it; slots are 0."""

    sums: Argument
    slots: Argument
    small: Argument
    wide: Argument
    chosen_rows: Argument
    chosen_scores: Argument
    rows: Argument
    scores: Argument

    @classmethod
    def of(cls, rows: int) -> _Scratch:
        arrays: tuple[NDArray[Any], ...] = (
            np.empty(BLOCK_ROWS, np.uint16),
            np.zeros(BLOCK_ROWS, np.uint16),
            np.empty(SMALL, np.uint16),
            np.empty(BLOCK_ROWS),
            np.empty(CHOSEN, np.int64),
            np.empty(CHOSEN),
            # what is found is few of these, and memory that is not touched is not taken
            np.empty(rows, np.int64),
            np.empty(rows),
        )
        return cls(*map(argument, arrays))


def sparse_kernel() -> Kernel:
    """Return the compiled search; compiling it, once after an installation, takes some seconds."""
    return load_kernels(KERNELS, ("best_rows",), sources=SOURCES)["best_rows"]


def sparse_kernel_kept() -> bool:
    """Say whether it was compiled for this processor before."""
    return kept(KERNELS, SOURCES)


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
