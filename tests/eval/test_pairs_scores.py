from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.eval.pairs.scores import bias_score, wilson_interval


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing scipy.stats
@settings(deadline=None)  # the first example imports scipy
@given(st.integers(1, 500), st.data())
def test_the_interval_is_scipys(trials: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest

    wins = data.draw(st.integers(0, trials))
    expected = binomtest(wins, trials).proportion_ci(method="wilson")
    found = wilson_interval(wins / trials, trials)
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_ties_count_half() -> None:
    score = bias_score("set", "dense", "brevity", [0.5, -0.1, 0.0, 2.0])
    assert (score.pairs, score.value) == (4, 2.5 / 4)
    assert 0 < score.low < score.value < score.high < 1


def test_all_won_reaches_one() -> None:
    assert bias_score("set", "dense", "brevity", [1.0] * 10).high == pytest.approx(1.0)
