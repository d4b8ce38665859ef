"""Oracles: scipy's own tests, enumeration by hand, the closed testing procedure that Holm's method shortens."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from retriever.eval.significance import (
    bootstrap_interval,
    effect_size,
    holm,
    paired_differences,
    paired_t_test,
    randomisation_test,
)

Floats = NDArray[np.float64]
VALUE = st.integers(0, 1000).map(lambda n: n / 1000)
PAIRS = st.lists(st.tuples(VALUE, VALUE), min_size=2, max_size=10).map(lambda pairs: np.array(pairs, dtype=np.float64))


def normal(count: int, mean: float, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(mean, 1, count)


@given(PAIRS)
@settings(deadline=None)
def test_t_test_is_scipys_paired_one(pairs: Floats) -> None:
    values, baseline = pairs.T
    differences = paired_differences(values, baseline)
    if np.ptp(differences):
        expected = stats.ttest_rel(values, baseline)
        assert paired_t_test(differences) == pytest.approx(expected.pvalue, abs=1e-9)
        # Cohen's d of the differences is t over the root of n.
        assert effect_size(differences) * math.sqrt(len(values)) == pytest.approx(expected.statistic, abs=1e-6)


def test_t_test_and_effect_size_by_hand() -> None:
    # Mean 2, standard deviation 1, t = 2 sqrt(3) with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2).
    differences = np.array([1.0, 2.0, 3.0])
    assert effect_size(differences) == pytest.approx(2)
    assert paired_t_test(differences) == pytest.approx(1 - math.sqrt(12 / 14))


@given(PAIRS)
@settings(deadline=None, max_examples=50)
def test_randomisation_of_few_queries_counts_every_outcome(pairs: Floats) -> None:
    differences = paired_differences(*pairs.T)
    thousandths = [round(1000 * difference) for difference in differences]
    sums = [
        sum(sign * n for sign, n in zip(signs, thousandths, strict=True))
        for signs in itertools.product([1, -1], repeat=len(thousandths))
    ]
    expected = sum(abs(outcome) >= abs(sum(thousandths)) for outcome in sums) / len(sums)
    assert randomisation_test(differences) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mean", [0.0, 0.2, 0.4])
def test_randomisation_of_many_queries_draws_outcomes(mean: float) -> None:
    differences = normal(60, mean)
    scipys = stats.permutation_test(
        (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=20_000
    )
    p = randomisation_test(differences)
    assert p == pytest.approx(scipys.pvalue, abs=0.015)
    assert p == pytest.approx(paired_t_test(differences), abs=0.02)  # alike for normal data
    assert randomisation_test(differences) == p, "the draw is repeatable"


def test_randomisation_draws_what_it_could_count() -> None:
    differences = normal(14, 0.4)
    exact = randomisation_test(differences)
    assert randomisation_test(differences, samples=2**14 - 1) == pytest.approx(exact, abs=0.015)


def test_randomisation_never_gives_zero() -> None:
    assert randomisation_test(np.ones(40), samples=999) == 1 / 1000
    assert randomisation_test(np.ones(8)) == 2 / 256


def test_bootstrap_is_scipys_percentile_interval() -> None:
    differences = normal(80, 0.3)
    scipys = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=10_000).confidence_interval
    assert bootstrap_interval(differences) == pytest.approx((scipys.low, scipys.high), abs=0.02)


def test_bootstrap_of_two_queries_by_hand() -> None:
    # Draws of two of two: mean 0 or 2 with probability 1/4 each, 1 with 1/2.
    differences = np.array([0.0, 2.0])
    assert bootstrap_interval(differences, level=0.95) == (0, 2)
    assert bootstrap_interval(differences, level=0.4) == (1, 1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    intervals = [bootstrap_interval(normal(40, 0.5, seed), samples=1000) for seed in range(400)]
    assert 0.90 < np.mean([interval.low <= 0.5 <= interval.high for interval in intervals]) < 0.98


@given(PAIRS)
@settings(deadline=None, max_examples=30)
def test_swapping_the_systems_changes_signs_alone(pairs: Floats) -> None:
    values, baseline = pairs.T
    there, back = paired_differences(values, baseline), paired_differences(baseline, values)
    assert (there == -back).all()
    assert paired_t_test(there) == pytest.approx(paired_t_test(back))
    assert randomisation_test(there) == randomisation_test(back)
    assert effect_size(there) == pytest.approx(-effect_size(back))
    interval = bootstrap_interval(there)
    assert bootstrap_interval(back) == pytest.approx((-interval.high, -interval.low))
    assert interval.low - 1e-12 <= there.mean() <= interval.high + 1e-12


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_closed_testing_by_bonferroni(p_values: list[float]) -> None:
    places = range(len(p_values))
    for place, corrected in zip(places, holm(p_values), strict=True):
        families = [
            family
            for size in range(1, len(p_values) + 1)
            for family in itertools.combinations(places, size)
            if place in family
        ]
        worst = max(min(1.0, len(family) * min(p_values[i] for i in family)) for family in families)
        assert corrected == pytest.approx(worst, rel=1e-12)


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.9]) == [1.0, 1.0]
    assert holm([0.04, math.nan, 0.01]) == pytest.approx([0.04, math.nan, 0.02], nan_ok=True)


def test_one_query() -> None:
    one = np.array([0.5])
    assert math.isnan(paired_t_test(one)) and math.isnan(effect_size(one))
    assert all(map(math.isnan, bootstrap_interval(one)))
    assert randomisation_test(one) == 1


def test_no_difference() -> None:
    none = np.zeros(30)
    assert (paired_t_test(none), randomisation_test(none), effect_size(none)) == (1, 1, 0)
    assert bootstrap_interval(none) == (0, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_same_difference_everywhere(sign: int) -> None:
    values = np.array([0.1, 0.2, 0.3, 0.7])
    same = sign * paired_differences(values + 0.1, values)  # equal only when rounded
    assert paired_t_test(same) == 0
    assert effect_size(same) == sign * math.inf
    assert randomisation_test(same) == 2 / 16
    assert bootstrap_interval(same) == pytest.approx((sign * 0.1, sign * 0.1))


@pytest.mark.parametrize(("values", "baseline"), [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])])
def test_values_must_pair(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match="need one value per query"):
        paired_differences(values, baseline)


def test_no_sample_is_lost_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever.eval.significance.CHUNK", 300)
    balanced = np.array([1.0, -1.0] * 15)
    assert randomisation_test(balanced, samples=101) == 1, "every outcome is as far from 0 as the observed one"
    assert bootstrap_interval(normal(30, 0.3)) == pytest.approx(bootstrap_interval(normal(30, 0.3), seed=1), abs=0.03)
