"""Normalisations: functions of the scores of one ranking (at least one score, all finite), which keep their order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NORMALISATIONS", "by_max", "by_sum", "min_max", "non_negative", "unnormalised", "z_score"]


def unnormalised(scores: Sequence[float]) -> list[float]:
    """Return the scores as they are."""
    return list(scores)


def min_max(scores: Sequence[float]) -> list[float]:
    """Map the lowest score to 0 and the highest to 1; equal scores, or a lone one, all become 1.

    ranx gives 0 to equal scores, which hides the only hit of a leg; Anserini and Pyserini give 1, as here.
    """
    low, high = min(scores), max(scores)
    if low == high:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def by_max(scores: Sequence[float]) -> list[float]:
    """Divide by the highest score, or where none is above 0 by the largest magnitude; zeros stay zeros."""
    high = max(scores)
    scale = (high if high > 0 else -min(scores)) or 1.0
    return [score / scale for score in scores]


def by_sum(scores: Sequence[float]) -> list[float]:
    """Move the lowest score to 0 and make the sum 1; n equal scores all become 1/n (ranx: 0)."""
    low = min(scores)
    if low == max(scores):
        return [1.0 / len(scores)] * len(scores)
    total = math.fsum(score - low for score in scores)
    return [(score - low) / total for score in scores]


def z_score(scores: Sequence[float]) -> list[float]:
    """Give the scores zero mean and unit (population) variance; equal scores, or a lone one, all become 0.

    0 is then the average hit: combine it with missing="min", or a document that a leg lacks counts as average there.
    """
    if min(scores) == max(scores):
        return [0.0] * len(scores)
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    return [(score - mean) / deviation for score in scores] if deviation else [0.0] * len(scores)


def non_negative(scores: Sequence[float]) -> list[float]:
    """Divide by the highest score, moved up first if some are below 0; equal scores of 0 or less become 1."""
    low = min(0.0, *scores)
    high = max(scores) - low
    return [(score - low) / high for score in scores] if high else [1.0] * len(scores)


NORMALISATIONS: dict[str, Callable[[Sequence[float]], list[float]]] = {
    "none": unnormalised,
    "min-max": min_max,
    "max": by_max,
    "sum": by_sum,
    "z-score": z_score,
}
"""Those a user can choose, by name."""
