"""The nearest rows of bytes, all of them compared: exact, and for tens of thousands of rows faster than a graph."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from retriever.index.vectors.halves import Halves
from retriever.index.vectors.whole_query import GROUP, STEP, WholeQuery, least_of_best
from retriever.lazy import lazy
from retriever.machine_code import argument, load_kernels, processor_instructions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.index.vectors.row_formats import StoredVectors
    from retriever.machine_code import Argument, Kernel
    from retriever.types import BoolArray, FloatArray

__all__ = ["Scan", "processor_scans", "scan_kernel", "scannable"]

KERNELS = "retriever.network.int8.kernels.scan"
"""Compiled by numba, which is not needed any more afterwards."""
LIMITS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
"""Environment variables that tell numba of another processor."""
PLAIN_QUERIES = 32
"""To make `Halves` takes as long as they save in so many."""


def processor_scans() -> bool:
    """Say whether the processor has the instruction that kernels of rows of bytes are made of, and numba may use it."""
    limited = any(os.environ.get(name) for name in LIMITS) or os.environ.get("NUMBA_ENABLE_AVX") == "0"
    return not limited and {"avx512f", "avx512vnni"} <= processor_instructions()


def scannable(vectors: StoredVectors) -> bool:
    """Say whether rows can be scanned: they are bytes, of a length that fits, and the processor can."""
    codes = vectors.records.dtype.names is not None and 0 < vectors.dim <= 2_048 and vectors.dim % STEP == 0
    return codes and processor_scans()


def scan_kernel() -> Kernel:
    """Return the compiled scan; compiling it, once after an installation, takes a second or two."""
    return load_kernels(KERNELS, ("approximate",), sources=("retriever.instructions",))["approximate"]


class Scan:
    """Scans the rows of one commit, from any number of threads.

    The query is rounded to 16 bits, and all products are added up in whole numbers. How far a score may be off is
    known: all rows that may be among the nearest are found. After some queries `Halves` say which ones are looked at:
    half of the memory is read, and more of all else that a search reads stays in the cache.
    """

    def __init__(self, vectors: StoredVectors) -> None:
        self._vectors = vectors
        self._room = threading.local()
        self._queries = 0

    def nearest(self, query: FloatArray, top_k: int, eligible: BoolArray) -> NDArray[np.int64]:
        """Return rows, ascending, among which are the eligible ones with the `top_k` best scores and all ties.

        query: float32 (dim,), not zero. eligible: bool (n,), of the first n rows.
        """
        if not np.isfinite(self._largest_scale):  # of a damaged row, which shows where it is scored
            return np.flatnonzero(eligible)
        whole = WholeQuery.of(query, self._largest_scale)
        self._queries += 1
        if self._queries > PLAIN_QUERIES and Halves.worth(self._vectors, top_k):
            return self._halves.nearest(whole, top_k, eligible)
        return self._among_all(whole, top_k, eligible)

    def _among_all(self, query: WholeQuery, top_k: int, eligible: BoolArray) -> NDArray[np.int64]:
        whole, scores, most = self._arrays(len(eligible))
        records, found = self._vectors.records, scores.array
        address = records.__array_interface__["data"][0]
        self._kernel(address, records.itemsize, query.values, query.unit, whole, argument(eligible), scores, most)
        least = least_of_best(most.array, top_k)
        rows = np.flatnonzero(found > -np.inf if least == -np.inf else found >= least - 2 * query.error)
        own = found[rows]
        return rows[own >= least_of_best(own, top_k) - 2 * query.error]

    @lazy
    def _kernel(self) -> Kernel:
        return scan_kernel()

    @lazy
    def _halves(self) -> Halves:
        return Halves(self._vectors)

    @lazy
    def _largest_scale(self) -> float:
        return float(np.abs(self._vectors.records["scale"]).max(initial=0))

    def _arrays(self, count: int) -> tuple[Argument, ...]:
        """Return room for the query, the scores of so many rows and of their groups, kept for this thread."""
        known: tuple[Argument, ...] | None = getattr(self._room, "arrays", None)
        if known is None or len(known[1].array) != count:
            scores, most = (argument(np.empty(n, np.float32)) for n in (count, -(-count // GROUP)))
            known = self._room.arrays = argument(np.empty(2 * self._vectors.dim, np.uint8)), scores, most
        return known
