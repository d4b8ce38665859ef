"""The nearest rows of bytes, all of them compared: exact, and for tens of thousands of rows faster than a graph."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from retriever.lazy import lazy
from retriever.machine_code import argument, load_kernels, processor_instructions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.index.vectors.row_formats import StoredVectors
    from retriever.machine_code import Argument, Kernel
    from retriever.types import BoolArray, FloatArray

__all__ = ["Scan", "scannable"]

KERNELS = "retriever.network.int8.kernels.scan"
"""Compiled by numba, which is not needed any more afterwards."""
STEP, GROUP = 64, 32
"""As there: it is not imported to search."""
LIMITS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
"""Environment variables that tell numba of another processor."""
LARGEST, LARGEST_SUM, LARGEST_CODE = 32_767, 2**31 - 2**16, 127
ROUNDING = 1e-5
"""How far a float32 sum of products is from the truth at most, as a share of the sum of their magnitudes; and that of a
few hundred numbers is much closer."""


def scannable(vectors: StoredVectors) -> bool:
    """Say whether rows can be scanned: they are bytes, of a length that fits, and the processor has the instruction."""
    codes = vectors.records.dtype.names is not None and 0 < vectors.dim <= 2_048 and vectors.dim % STEP == 0
    limited = any(os.environ.get(name) for name in LIMITS) or os.environ.get("NUMBA_ENABLE_AVX") == "0"
    return codes and not limited and {"avx512f", "avx512vnni"} <= processor_instructions()


def scan_kernel() -> Kernel:
    """Return the compiled scan; compiling it, once after an installation, takes a second or two."""
    return load_kernels(KERNELS, ("approximate",))["approximate"]


class Scan:
    """Scans the rows of one commit, from any number of threads.

    The query is rounded to 16 bits, and all products are added up in whole numbers. How far a score may be off is
    known: all rows that may be among the nearest are found.
    """

    def __init__(self, vectors: StoredVectors) -> None:
        self._vectors = vectors
        self._room = threading.local()

    def nearest(self, query: FloatArray, top_k: int, eligible: BoolArray) -> NDArray[np.int64]:
        """Return rows, ascending, among which are the eligible ones with the `top_k` best scores and all ties.

        query: float32 (dim,), not zero. eligible: bool (n,), of the first n rows.
        """
        if not np.isfinite(self._largest_scale):  # of a damaged row, which shows where it is scored
            return np.flatnonzero(eligible)
        records, count = self._vectors.records, len(eligible)
        magnitudes = float(np.abs(query, dtype=np.float64).sum())
        unit = max(float(np.abs(query).max()) / LARGEST, LARGEST_CODE * magnitudes / LARGEST_SUM)
        scores, most = self._arrays(count)
        address = records.__array_interface__["data"][0]
        self._kernel(address, records.itemsize, _in_bytes(query, unit), argument(eligible), scores, most)
        found, groups = scores.array[:count], most.array
        # In units; a code is LARGEST_CODE at most, and a rounded number half a unit off.
        error = LARGEST_CODE * (len(query) / 2 + ROUNDING * magnitudes / unit) * self._largest_scale
        least = np.partition(groups, -top_k)[-top_k] if top_k < len(groups) else -np.inf
        rows = np.flatnonzero(found > -np.inf if least == -np.inf else found >= least - 2 * error)
        if len(rows) > top_k:
            own = found[rows]
            rows = rows[own >= np.partition(own, -top_k)[-top_k] - 2 * error]
        return rows

    @lazy
    def _kernel(self) -> Kernel:
        return scan_kernel()

    @lazy
    def _largest_scale(self) -> float:
        return float(self._vectors.records["scale"].max(initial=0))

    def _arrays(self, count: int) -> tuple[Argument, Argument]:
        """Return room for the scores of so many rows and of their groups, kept for this thread's next query."""
        known = getattr(self._room, "arrays", None)
        if known is None or len(known[0].array) != count:
            known = tuple(argument(np.empty(n, np.float32)) for n in (count, -(-count // GROUP)))
            self._room.arrays = known
        return known


def _in_bytes(query: FloatArray, unit: float) -> NDArray[np.uint8]:
    """Return the query in units, whole numbers, as the kernel reads them: 64 upper bytes, 64 lower ones, and so on."""
    whole = np.rint(query.astype(np.float64) / unit).astype(np.int64) + (128 << 8)
    halves = np.stack([(whole >> 8).reshape(-1, STEP), (whole & 255).reshape(-1, STEP)], axis=1)
    return np.ascontiguousarray(halves.ravel(), np.uint8)
