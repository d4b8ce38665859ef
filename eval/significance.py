"""Whether a difference between two systems on the same queries is more than chance: tests, interval, effect size.

All take the differences of one measure, an array of shape (queries,), in any order of the queries.

- One query: the t-test's p, the interval and the effect size are NaN, for they need a spread; the randomisation test's
  p is 1, the share of the two equally extreme outcomes.
- All differences zero: both p are 1, the interval is (0, 0), the effect size is 0.
- All differences equal but not zero: the t-test's p is 0, the effect size infinite, the interval the difference itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

__all__ = [
    "Interval",
    "bootstrap_interval",
    "bootstrap_interval_of_mean",
    "effect_size",
    "holm",
    "paired_differences",
    "paired_t_test",
    "randomisation_test",
]

DECIMALS = 12
CHUNK = 2**22  # numbers of resampled data held at once: 32 MiB


class Interval(NamedTuple):
    """An interval that holds the true value as often as its level says."""

    low: float
    high: float


def paired_differences(values: ArrayLike, baseline: ArrayLike) -> Floats:
    """Return values - baseline, query by query, rounded to 12 decimals; raise ValueError for unlike or empty arrays.

    Without rounding, 0.3 - 0.2 and 0.2 - 0.1 differ in their last bits, and what is equal would not tie.
    """
    system, other = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if system.ndim != 1 or system.shape != other.shape or not system.size:
        raise ValueError(
            f"found shapes {system.shape} and {other.shape}, need one value per query, of the same queries"
        )
    return np.round(system - other, DECIMALS)


def paired_t_test(differences: Floats) -> float:
    """Return the two-sided p of Student's paired t-test, whose null hypothesis is a mean difference of 0."""
    from scipy import stats

    if len(differences) < 2:
        return math.nan
    if not np.ptp(differences):
        return 0.0 if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def randomisation_test(differences: Floats, samples: int = 100_000, seed: int = 0) -> float:
    """Return the two-sided p of Fisher's paired randomisation test of the mean (Smucker et al. 2007).

    If the systems are alike, a query's two values could as well be swapped: p is the share of the swaps, drawn for each
    query by a coin, that give a mean difference at least as far from 0 as the observed one. Where no more than
    `samples` outcomes are possible, all are counted and p is exact; otherwise `samples` are drawn, and the observed
    outcome counts as one more, so that p is never 0 (Phipson & Smyth 2010).
    """
    moved = differences[differences != 0]  # a swap of equal values changes nothing
    outcomes = 2 ** len(moved)
    swaps = _all_swaps(len(moved)) if outcomes <= samples else _drawn_swaps(len(moved), samples, seed)
    total = moved.sum()
    least = abs(total) - 1e-12 * np.abs(moved).sum()  # sums of the same numbers in other orders differ that little
    extreme = sum(int(np.count_nonzero(np.abs(total - 2 * (swapped @ moved)) >= least)) for swapped in swaps)
    return extreme / outcomes if outcomes <= samples else (extreme + 1) / (samples + 1)


def _all_swaps(count: int) -> Iterator[Floats]:
    codes = np.arange(2**count, dtype=np.int64)[:, None]
    yield (codes >> np.arange(count) & 1).astype(np.float64)  # (outcomes, count)


def _drawn_swaps(count: int, samples: int, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    for rows in _chunks(samples, count):
        coins = rng.integers(0, 256, (rows, -(-count // 8)), dtype=np.uint8)
        yield np.unpackbits(coins, axis=1, count=count).astype(np.float64)  # (rows, count)


def bootstrap_interval(differences: Floats, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of the mean difference (Efron 1979): queries drawn with replacement."""
    return bootstrap_interval_of_mean([differences], level, samples, seed)


def bootstrap_interval_of_mean(
    differences: Sequence[Floats], level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the interval of the mean over data sets of their mean differences: each set's queries are drawn anew."""
    if min(map(len, differences)) < 2:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(seed)
    means = [_drawn_means(one, samples, rng) for one in differences]
    low, high = np.quantile(np.mean(means, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _drawn_means(differences: Floats, samples: int, rng: np.random.Generator) -> Floats:
    count = len(differences)
    means = [differences[rng.integers(0, count, (rows, count))].mean(axis=1) for rows in _chunks(samples, count)]
    return np.concatenate(means)


def effect_size(differences: Floats) -> float:
    """Return Cohen's d of the differences: their mean in units of their standard deviation (n - 1)."""
    if len(differences) < 2:
        return math.nan
    if not np.ptp(differences):
        return math.copysign(math.inf, differences[0]) if differences[0] else 0.0
    return float(differences.mean() / differences.std(ddof=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for several comparisons (Holm 1979), in the order given; NaN stays and counts as none.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ascending = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected = list(p_values)
    highest = 0.0
    for step, (p, place) in enumerate(ascending):
        highest = max(highest, min(1.0, (len(ascending) - step) * p))
        corrected[place] = highest
    return corrected


def _chunks(samples: int, width: int) -> Iterator[int]:
    """Yield numbers of rows that sum to `samples`; a chunk of rows of this width fits into CHUNK numbers."""
    rows = max(CHUNK // width, 1)
    for start in range(0, samples, rows):
        yield min(rows, samples - start)
