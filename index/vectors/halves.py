"""Rows of bytes with their upper halves apart: these say which rows may be among the nearest, exactly."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.vectors.whole_query import GROUP, STEP
from retriever.machine_code import argument, load_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.index.vectors.row_formats import StoredVectors
    from retriever.index.vectors.whole_query import WholeQuery
    from retriever.machine_code import Argument, Kernel
    from retriever.types import BoolArray

__all__ = ["Halves", "halves_kernels"]

KERNELS = "retriever.network.int8.kernels.halves"
SOURCES = ("retriever.network.int8.kernels.scan", "retriever.instructions")
LARGEST_COPY = 128 * 2**20
"""Bytes of rows that are copied at most."""
MOST_HITS = 500
"""Where more are wanted, so many rows may be among them that to scan all is faster."""


def halves_kernels() -> dict[str, Kernel]:
    """Return the compiled steps; compiling them, once after an installation, takes some seconds."""
    return load_kernels(KERNELS, ("pack", "nearest"), sources=SOURCES)


class Halves:
    """A copy of all rows; a score by upper halves is off by the norm of what they lack times the query's at most."""

    def __init__(self, vectors: StoredVectors) -> None:
        """Copy rows for which `worth` says so."""
        records, rows = vectors.records, len(vectors)
        self._kernels, self._room, self._dim = halves_kernels(), threading.local(), vectors.dim
        upper, lower = (argument(np.empty((rows, vectors.dim // 2), np.uint8)) for _ in range(2))
        scales, lacking = (argument(np.empty(rows, np.float32)) for _ in range(2))
        self._parts, largest = (upper, lower, scales, lacking), np.zeros(1)
        self._kernels["pack"](records.__array_interface__["data"][0], records.itemsize, *self._parts, largest)
        self._largest = float(largest[0])

    @staticmethod
    def worth(vectors: StoredVectors, top_k: int) -> bool:
        """Say whether they are faster than a scan of all rows, and not too large."""
        return top_k <= MOST_HITS and not vectors.dim % (2 * STEP) and vectors.records.nbytes <= LARGEST_COPY

    def nearest(self, query: WholeQuery, top_k: int, eligible: BoolArray) -> NDArray[np.int64]:
        """Return what `Scan.nearest` does."""
        room = self._arrays(len(eligible))
        number = self._kernels["nearest"](
            *self._parts, self._largest, query.values, query.unit, query.error, top_k, argument(eligible), *room
        )
        found: NDArray[np.int64] = room.rows.array[:number].copy()
        return found

    def _arrays(self, count: int) -> _Room:
        """Return room for so many rows, kept for this thread's next query."""
        known: _Room | None = getattr(self._room, "arrays", None)
        if known is None or len(known.scores.array) != count:
            dim, floats = self._dim, (np.float32, count)
            sizes = (np.uint8, 2 * dim), (np.int8, dim), floats, (np.float32, -(-count // GROUP)), (np.int64, count)
            arrays = (argument(np.empty(size, kind)) for kind, size in (*sizes, floats, floats))
            known = self._room.arrays = _Room(*arrays)
        return known


class _Room(NamedTuple):
    """What the kernel writes over; memory that is not touched is not taken."""

    whole: Argument
    rounded: Argument
    scores: Argument
    most: Argument
    rows: Argument
    found: Argument
    spare: Argument
