"""What minimal pairs say about a system: how often it prefers the text that answers, for each bias."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.significance import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BiasScore", "bias_score", "wilson_interval"]


class BiasScore(NamedTuple):
    """How often a system preferred the text that answers, of `pairs` pairs, and the 95 % interval of that share.

    1 is a system that the bias does not lead astray, 0.5 a coin, 0 one that follows the bias alone.
    """

    dataset: str
    system: str
    bias: str
    pairs: int
    value: float
    low: float
    high: float


def bias_score(dataset: str, system: str, bias: str, margins: Sequence[float]) -> BiasScore:
    """Score a system by its margins, the preferred text's score minus the other's for each pair, at least one.

    A tie counts half: nothing but chance then decides which text stands above the other.
    """
    value = math.fsum((margin > 0) + 0.5 * (margin == 0) for margin in margins) / len(margins)
    return BiasScore(dataset, system, bias, len(margins), value, *wilson_interval(value, len(margins)))


def wilson_interval(share: float, trials: int, level: float = 0.95) -> Interval:
    """Return the interval of a binomial share (Wilson 1927): unlike the normal one it stays inside 0 and 1.

    >>> wilson_interval(1.0, 10).low > 0.72
    True
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Interval(max(centre - half, 0.0), min(centre + half, 1.0))
