"""A query in whole numbers, and how far products with it may be off."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from retriever.types import FloatArray

__all__ = ["GROUP", "STEP", "WholeQuery", "least_of_best"]

STEP, GROUP = 64, 32
"""As in `retriever.network.int8.kernels.scan`, which is not imported to search."""
LARGEST, LARGEST_SUM, LARGEST_CODE = 32_767, 2**31 - 2**16, 127
ROUNDING = 1e-5
"""How far a float32 sum of products is from the truth at most, as a share of the sum of their magnitudes; and that of a
few hundred numbers is much closer."""


class WholeQuery(NamedTuple):
    """A query (dim,), not zero, which kernels round to whole numbers of 16 bits. unit: what one of them is.

    error: how far the score of a row, in units, is off at most.
    """

    values: FloatArray
    unit: float
    error: float

    @classmethod
    def of(cls, query: FloatArray, largest_scale: float) -> WholeQuery:
        """Round a query for rows of bytes whose scales are no larger."""
        magnitudes = float(np.abs(query, dtype=np.float64).sum())
        unit = max(float(np.abs(query).max()) / LARGEST, LARGEST_CODE * magnitudes / LARGEST_SUM)
        # A code is LARGEST_CODE at most, and a rounded number half a unit off.
        return cls(query, unit, LARGEST_CODE * (len(query) / 2 + ROUNDING * magnitudes / unit) * largest_scale)


def least_of_best(scores: FloatArray, top_k: int) -> float:
    """Return the lowest of the best scores, minus infinity where there are fewer."""
    return float(np.partition(scores, -top_k)[-top_k]) if top_k <= len(scores) else -np.inf
