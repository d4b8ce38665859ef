"""Normalisations: functions of the scores of one ranking, float64 (n,), n >= 1, all finite, which keep their order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

__all__ = ["NORMALISATIONS", "by_max", "by_sum", "min_max", "non_negative", "unnormalised", "z_score"]


def unnormalised(scores: Scores) -> Scores:
    """Return the scores as they are."""
    return scores


def min_max(scores: Scores) -> Scores:
    """Map the lowest score to 0 and the highest to 1; equal scores, or a lone one, all become 1.

    ranx gives 0 to equal scores, which hides the only hit of a leg; Anserini and Pyserini give 1, as here.
    """
    low, high = scores.min(), scores.max()
    return _all(scores, 1.0) if low == high else (scores - low) / (high - low)


def by_max(scores: Scores) -> Scores:
    """Divide by the highest score, or where none is above 0 by the largest magnitude; zeros stay zeros."""
    high = scores.max()
    scaled: Scores = scores / ((high if high > 0 else -scores.min()) or 1.0)
    return scaled


def by_sum(scores: Scores) -> Scores:
    """Move the lowest score to 0 and make the sum 1; n equal scores all become 1/n (ranx: 0)."""
    low = scores.min()
    if low == scores.max():
        return _all(scores, 1.0 / len(scores))
    moved = scores - low
    shares: Scores = moved / math.fsum(moved)
    return shares


def z_score(scores: Scores) -> Scores:
    """Give the scores zero mean and unit (population) variance; equal scores, or a lone one, all become 0.

    0 is then the average hit: combine it with missing="min", or a document that a leg lacks counts as average there.
    """
    if scores.min() == scores.max():
        return _all(scores, 0.0)
    moved = scores - math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum(moved * moved) / len(scores))
    return moved / deviation if deviation else _all(scores, 0.0)


def non_negative(scores: Scores) -> Scores:
    """Divide by the highest score, moved up first if some are below 0; equal scores of 0 or less become 1."""
    low = min(0.0, scores.min())
    high = scores.max() - low
    return (scores - low) / high if high else _all(scores, 1.0)


def _all(scores: Scores, value: float) -> Scores:
    return scores * 0.0 + value


NORMALISATIONS: dict[str, Callable[[Scores], Scores]] = {
    "none": unnormalised,
    "min-max": min_max,
    "max": by_max,
    "sum": by_sum,
    "z-score": z_score,
}
"""Those a user can choose, by name."""
