from __future__ import annotations

import math

import pytest
from scipy import stats

from retriever.eval.comparison import compare
from retriever.eval.evaluator import Evaluation, evaluate_run
from retriever.types import Qrels, Run, ScoredDoc, UserError

QRELS: Qrels = {f"q{n}": {"good": 1} for n in range(6)}


def run_with(places: list[int]) -> Run:
    """Return a run whose query n has its relevant document at rank places[n]; 0: no hits."""
    return {
        f"q{n}": [ScoredDoc("good" if rank == place else f"d{rank}", 10.0 - rank) for rank in range(1, place + 1)]
        for n, place in enumerate(places)
        if place
    }


def test_wins_ties_losses_and_means() -> None:
    first, second = (
        evaluate_run(run_with(p), QRELS, measures=["RR"]) for p in ([1, 2, 2, 0, 1, 4], [1, 1, 1, 2, 2, 0])
    )
    [found] = compare({"a": first, "b": second})
    assert (found.run, found.baseline, found.measure) == ("b", "a", "RR")
    assert (found.wins, found.ties, found.losses) == (3, 1, 2)
    assert found.baseline_mean == pytest.approx((1 + 0.5 + 0.5 + 0 + 1 + 0.25) / 6)
    assert found.mean == pytest.approx((1 + 1 + 1 + 0.5 + 0.5 + 0) / 6)
    assert found.difference == pytest.approx(found.mean - found.baseline_mean)
    assert found.interval.low < found.difference < found.interval.high
    assert found.p_t_test == pytest.approx(stats.ttest_rel([1, 1, 1, 0.5, 0.5, 0], [1, 0.5, 0.5, 0, 1, 0.25]).pvalue)
    # The differences are 2, 2, 2, -2, -1 quarters; 20 of the 32 choices of their signs sum to 3 or more, or -3 or less.
    assert found.p_randomisation == 20 / 32


def test_every_run_and_measure_counts_in_the_correction() -> None:
    runs = {"a": [2, 2, 2, 3, 4, 2], "b": [1, 1, 2, 1, 1, 1], "c": [1, 2, 2, 3, 4, 2]}
    evaluations = {name: evaluate_run(run_with(places), QRELS, measures=["RR", "P@1"]) for name, places in runs.items()}
    found = compare(evaluations)
    assert [(one.measure, one.run) for one in found] == [("RR", "b"), ("RR", "c"), ("P@1", "b"), ("P@1", "c")]
    alone = [
        compare({name: Evaluation({m: e.mean[m]}, e.per_query, 6, 0, 0) for name, e in pair.items()})[0]
        for m in ("RR", "P@1")
        for pair in ({"a": evaluations["a"], other: evaluations[other]} for other in ("b", "c"))
    ]
    smallest = min(one.p_t_test for one in alone)
    assert min(one.p_t_test for one in found) == pytest.approx(4 * smallest)
    for corrected, single in zip(found, alone, strict=True):
        assert single.p_t_test <= corrected.p_t_test <= 1 and single.p_randomisation <= corrected.p_randomisation <= 1
        assert corrected._replace(p_t_test=0, p_randomisation=0) == single._replace(p_t_test=0, p_randomisation=0)


def test_a_run_against_its_equal() -> None:
    same = evaluate_run(run_with([1, 2, 3, 4, 1, 2]), QRELS, measures=["RR"])
    [found] = compare({"a": same, "b": same})
    assert (found.difference, found.p_t_test, found.p_randomisation, found.effect_size) == (0, 1, 1, 0)
    assert (found.wins, found.ties, found.losses) == (0, 6, 0)


def test_one_query() -> None:
    qrels: Qrels = {"q0": {"good": 1}}
    [found] = compare({str(place): evaluate_run(run_with([place]), qrels, measures=["RR"]) for place in (2, 1)})
    assert (found.difference, found.p_randomisation, found.wins) == (0.5, 1, 1)
    assert all(map(math.isnan, [found.p_t_test, found.effect_size, *found.interval]))


def test_what_cannot_be_compared_is_refused() -> None:
    evaluation = evaluate_run({}, QRELS, measures=["RR"])
    with pytest.raises(UserError, match="found 1 run to compare, need a baseline"):
        compare({"a": evaluation})
    for other in (evaluate_run({}, QRELS, measures=["P@1"]), evaluate_run({}, {"q0": {"good": 1}}, measures=["RR"])):
        with pytest.raises(UserError, match="b and a were not measured alike"):
            compare({"a": evaluation, "b": other})
