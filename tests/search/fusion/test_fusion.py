"""Fusion against hand-written fractions, ranx and properties."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.config import from_mapping
from retriever.ranking import RowRanking, order
from retriever.search.fusion import fusion
from retriever.search.fusion.fusion import FusionConfig, fuse, product, reciprocal_rank_fusion, weighted_sum
from retriever.search.fusion.normalisation import NORMALISATIONS, non_negative
from retriever.types import Ranking, ScoredDoc, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ranking(**scores: float) -> Ranking:
    return order(ScoredDoc(doc_id, score) for doc_id, score in scores.items())


def ids(hits: Ranking) -> list[str]:
    return [hit.doc_id for hit in hits]


# Quarters: exact in binary, far enough apart that no normalisation makes two of them equal by rounding.
quarters = st.integers(-400, 4000).map(lambda value: value / 4)
rankings = st.dictionaries(st.text(max_size=3), quarters, max_size=12).map(
    lambda scores: order(ScoredDoc(doc_id, score) for doc_id, score in scores.items())
)
methods = st.sampled_from(sorted(fusion.METHODS))
configs = st.builds(
    FusionConfig,
    method=methods,
    normalisation=st.sampled_from(sorted(NORMALISATIONS)),
    missing=st.sampled_from(["zero", "min"]),
)
runs = st.fixed_dictionaries({"bm25": rankings, "sparse": rankings, "dense": rankings})


def test_reciprocal_rank_fusion_is_the_papers_sum() -> None:
    legs = {"x": ranking(a=9, b=8, c=7), "y": ranking(c=0.5, d=0.4)}
    fused = {hit.doc_id: hit.score for hit in reciprocal_rank_fusion(legs)}
    expected = {
        "a": Fraction(1, 60 + 1),
        "b": Fraction(1, 60 + 2),
        "c": Fraction(1, 60 + 3) + Fraction(1, 60 + 1),
        "d": Fraction(1, 60 + 2),
    }
    assert fused == {doc_id: pytest.approx(float(score), abs=1e-15) for doc_id, score in expected.items()}
    assert ids(reciprocal_rank_fusion(legs)) == ["c", "a", "b", "d"]


def test_reciprocal_rank_fusion_weights_k_and_base() -> None:
    legs = {"x": ranking(a=9, b=8), "y": ranking(b=1)}
    fused = reciprocal_rank_fusion(legs, weights={"x": 1, "y": 3}, k=2, rank_base=0)
    assert fused == [ScoredDoc("b", 1 / 3 + 3 / 2), ScoredDoc("a", 1 / 2)]


def test_weighted_sum_by_hand() -> None:
    legs = {"x": ranking(a=10, b=5, c=0), "y": ranking(b=4, d=3)}
    fused = weighted_sum(legs, {"x": 0.5, "y": 0.25})
    assert fused == [ScoredDoc("a", 0.5), ScoredDoc("b", 0.5), ScoredDoc("c", 0.0), ScoredDoc("d", 0.0)]
    raw = weighted_sum(legs, {"x": 1, "y": 1}, normalisation="none", missing="min")
    assert raw == [ScoredDoc("a", 13.0), ScoredDoc("b", 9.0), ScoredDoc("c", 3.0), ScoredDoc("d", 3.0)]


def test_product_by_hand() -> None:
    legs = {"lexical": ranking(a=8, b=4), "dense": ranking(b=1.0, a=0.25, c=0.5)}
    assert product(legs) == [ScoredDoc("b", 0.5), ScoredDoc("a", 0.25), ScoredDoc("c", 0.25)]
    assert product(legs, missing="zero") == [ScoredDoc("b", 0.5), ScoredDoc("a", 0.25), ScoredDoc("c", 0.0)]
    assert product(legs, {"lexical": 2, "dense": 0}) == [ScoredDoc("a", 1.0), ScoredDoc("b", 0.25)]


@pytest.mark.parametrize(
    ("name", "varied", "equal", "lone", "negative"),
    [
        ("none", [3, 1, 1], [2, 2], [5], [-1, -3]),
        ("min-max", [1, 0, 0], [1, 1], [1], [1, 0]),
        ("max", [1, 1 / 3, 1 / 3], [1, 1], [1], [-1 / 3, -1]),
        ("sum", [1, 0, 0], [0.5, 0.5], [1], [1, 0]),
        ("z-score", [2**0.5, -(0.5**0.5), -(0.5**0.5)], [0, 0], [0], [1, -1]),
    ],
)
def test_normalisations_and_their_degenerate_cases(
    name: str, varied: list[float], equal: list[float], lone: list[float], negative: list[float]
) -> None:
    for scores, expected in (([3, 1, 1], varied), ([2, 2], equal), ([5], lone), ([-1, -3], negative)):
        assert NORMALISATIONS[name](np.array(scores, np.float64)).tolist() == pytest.approx(expected)
    assert fusion.normalise([], name) == {}


def test_equal_scores_that_no_float_mean_equals_stay_equal() -> None:
    assert NORMALISATIONS["z-score"](np.full(3, 0.1)).tolist() == [0.0] * 3
    assert NORMALISATIONS["max"](np.zeros(2)).tolist() == [0.0, 0.0]


def test_products_need_no_negative_scores() -> None:
    assert non_negative(np.array([1.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]
    assert non_negative(np.array([4.0, 2.0])).tolist() == [1.0, 0.5]
    assert non_negative(np.array([0.0])).tolist() == non_negative(np.array([-2.0])).tolist() == [1.0]


def test_order_breaks_ties_by_code_point() -> None:
    hits = [ScoredDoc(doc_id, 1.0) for doc_id in ("é", "b", "B", "\U0001f6b2", "\uffff", "10", "9")]
    assert ids(order(hits)) == ["10", "9", "B", "b", "é", "\uffff", "\U0001f6b2"]


@given(rankings, configs)
def test_a_single_leg_keeps_its_order(hits: Ranking, config: FusionConfig) -> None:
    assert ids(fuse({"bm25": hits}, config).ranking) == ids(hits)


@given(rankings, configs)
def test_empty_legs_change_nothing(hits: Ranking, config: FusionConfig) -> None:
    alone = fuse({"dense": hits}, config).ranking
    assert fuse({"bm25": [], "dense": hits, "sparse": []}, config).ranking == alone
    assert fuse({"bm25": []}, config).ranking == fuse({}, config).ranking == []


@given(rankings, configs)
def test_the_same_leg_three_times_keeps_its_order(hits: Ranking, config: FusionConfig) -> None:
    assert ids(fuse({"bm25": hits, "sparse": hits, "dense": hits}, config).ranking) == ids(hits)


@given(runs, configs)
def test_fusion_orders_the_union_and_mutates_nothing(legs: dict[str, Ranking], config: FusionConfig) -> None:
    before = copy.deepcopy(legs)
    found = fuse(legs, config)
    fused, normalised = found.ranking, found.normalised
    assert legs == before
    assert sorted(ids(fused)) == sorted({hit.doc_id for hits in legs.values() for hit in hits})
    assert fused == sorted(fused, key=lambda hit: (-hit.score, hit.doc_id))
    assert {leg: set(scores) for leg, scores in normalised.items()} == {leg: set(ids(legs[leg])) for leg in legs}


@given(runs, configs, st.permutations(["bm25", "sparse", "dense"]))
def test_the_order_of_the_legs_does_not_matter(
    legs: dict[str, Ranking], config: FusionConfig, names: list[str]
) -> None:
    assert fuse({leg: legs[leg] for leg in names}, config).ranking == fuse(legs, config).ranking


@given(runs, configs, st.integers(1, 15))
def test_the_best_alone_are_those_of_all(legs: dict[str, Ranking], config: FusionConfig, top_k: int) -> None:
    assert fuse(legs, config, top_k=top_k).ranking == fuse(legs, config).ranking[:top_k]


@given(runs, st.integers(-8, 8))
def test_scaling_all_weights_keeps_the_order(legs: dict[str, Ranking], exponent: int) -> None:
    weights = {"bm25": 0.5, "sparse": 0.25, "dense": 1.0}
    scaled = {leg: weight * 2.0**exponent for leg, weight in weights.items()}
    for function in (weighted_sum, reciprocal_rank_fusion):
        assert ids(function(legs, weights)) == ids(function(legs, scaled))


@given(rankings, rankings)
def test_a_weight_of_zero_switches_a_leg_off(one: Ranking, other: Ranking) -> None:
    for function in (weighted_sum, reciprocal_rank_fusion, product):
        assert function({"x": one, "y": other}, {"x": 1, "y": 0}) == function({"x": one})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", sorted(fusion.METHODS))
def test_scores_that_are_no_finite_numbers_are_refused(method: str, bad: float) -> None:
    with pytest.raises(ValueError, match=r"score of 'b' is -?(nan|inf)"):
        fuse({"bm25": [ScoredDoc("a", 1.0), ScoredDoc("b", bad)]}, FusionConfig(method=method))
    with pytest.raises(ValueError, match="twice"):
        fuse({"bm25": [ScoredDoc("a", 1.0), ScoredDoc("a", 1.0)]}, FusionConfig(method=method))


def test_order_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        order([ScoredDoc("a", 1.0), ScoredDoc("b", float("nan"))])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "sum"}, r"fusion method: found 'sum', allowed: rrf, weighted-sum, product"),
        ({"normalisation": "minmax"}, r"normalisation: found 'minmax', allowed: none, min-max, max, sum, z-score"),
        ({"missing": "max"}, r"missing: found 'max', allowed: zero, min"),
        ({"weights": {"bm52": 1.0}}, r"leg: found 'bm52', allowed: bm25, sparse, dense"),
        ({"weights": {"bm25": -1.0}}, r"weight of bm25: found -1.0, need a number of 0 or more"),
        ({"weights": {"bm25": float("nan")}}, r"weight of bm25: found nan"),
        ({"weights": {"bm25": "much"}}, r"weight of bm25: found 'much'"),
        ({"weights": {"bm25": 0, "dense": 0.0}}, r"weights: bm25, dense all have 0"),
        ({"weights": {}}, r"weights: found \{\}"),
        ({"weights": [1, 2]}, r"weights is \[1, 2\]"),
        ({"k": -1}, r"k: found -1, need k \+ rank_base above 0"),
        ({"k": "60"}, r"k is '60'"),
        ({"rank_base": 2}, r"rank_base: found 2, allowed: 0, 1"),
    ],
)
def test_a_wrong_setting_is_named_with_the_allowed_ones(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        from_mapping(FusionConfig, settings, "test")
    assert "\n" not in str(caught.value)


def test_legs_must_be_known_and_have_a_weight() -> None:
    with pytest.raises(UserError, match="leg: found 'colbert', allowed: bm25, sparse, dense"):
        fuse({"colbert": ranking(a=1)})
    with pytest.raises(UserError, match="leg 'y' has none"):
        weighted_sum({"x": ranking(a=1), "y": ranking(a=1)}, {"x": 1})
    with pytest.raises(UserError, match="bm25 all have 0"):
        fuse({"bm25": ranking(a=1)}, FusionConfig(weights={"dense": 1.0}))


def test_the_configuration_is_frozen_and_parts_are_given_back() -> None:
    config = FusionConfig(weights={"bm25": 0.3, "dense": 0.4})
    with pytest.raises(FrozenInstanceError):
        config.k = 3  # type: ignore[misc]
    fused = fuse({"bm25": ranking(a=4, b=2, c=3), "dense": ranking(c=0.5)}, config)
    assert fused.normalised == {"bm25": {"a": 1.0, "c": 0.5, "b": 0.0}, "dense": {"c": 1.0}}
    assert fused.ranking == [ScoredDoc("c", 0.3 * 0.5 + 0.4), ScoredDoc("a", 0.3), ScoredDoc("b", 0.0)]


RANX = """
import json, sys
from ranx import Run, fuse
job = json.load(sys.stdin)
answer = {}
for name, (norm, method, params) in job["settings"].items():
    fused = fuse(runs=[Run(run) for run in job["runs"]], norm=norm, method=method, params=params)
    answer[name] = {query_id: dict(scores) for query_id, scores in fused.run.items()}
json.dump(answer, sys.stdout)
"""


def test_parity_with_ranx() -> None:
    generator = random.Random(20)
    pools = {"bm25": (5.0, 30.0), "sparse": (0.1, 60.0), "dense": (0.2, 0.9)}
    queries = [
        {
            leg: order(
                ScoredDoc(f"d{number}", generator.uniform(low, high))
                for number in generator.sample(range(40), generator.randint(2, 20))
            )
            for leg, (low, high) in pools.items()
        }
        for _ in range(20)
    ]
    weights = {"bm25": 0.3, "sparse": 0.2, "dense": 0.5}
    norms = {"min-max": "min-max", "max": "max", "sum": "sum", "z-score": "zmuv", "none": None}
    job = {
        "runs": [
            {f"q{number}": {hit.doc_id: hit.score for hit in legs[leg]} for number, legs in enumerate(queries)}
            for leg in pools
        ],
        "settings": {name: (norm, "wsum", {"weights": list(weights.values())}) for name, norm in norms.items()}
        | {"rrf": (None, "rrf", {"k": 60})},
    }
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}  # compiling would take a minute
    done = subprocess.run(
        [sys.executable, "-c", RANX], input=json.dumps(job), capture_output=True, text=True, env=environment, check=True
    )
    expected = json.loads(done.stdout)
    for number, legs in enumerate(queries):
        ours = {name: weighted_sum(legs, weights, normalisation=name) for name in norms}
        ours["rrf"] = reciprocal_rank_fusion(legs)
        for name, fused in ours.items():
            theirs = expected[name][f"q{number}"]
            assert {hit.doc_id: hit.score for hit in fused} == pytest.approx(theirs, abs=1e-9), name


@given(runs, configs)
def test_rankings_of_rows_are_fused_as_those_of_ids(legs: dict[str, Ranking], config: FusionConfig) -> None:
    names = sorted({hit.doc_id for hits in legs.values() for hit in hits}, key=lambda name: name[::-1])
    asked: list[str] = []

    def ids_of(rows: NDArray[np.int64]) -> list[str]:
        asked.extend(found := [names[row] for row in rows.tolist()])
        return found

    def of_rows(hits: Ranking) -> RowRanking:
        shuffled = random.Random(len(hits)).sample(list(hits), len(hits))
        rows = np.array([names.index(hit.doc_id) for hit in shuffled], np.int64)
        return RowRanking.ordered(rows, np.array([hit.score for hit in shuffled], np.float64), ids_of)

    by_row = {leg: of_rows(hits) for leg, hits in legs.items()}
    tied = [hit for hits in legs.values() for hit in hits if sum(hit.score == other.score for other in hits) > 1]
    assert sorted(asked) == sorted(hit.doc_id for hit in tied)
    found, expected = fuse(by_row, config), fuse(legs, config)
    assert found.ranking == expected.ranking and found.normalised == expected.normalised
    assert found.ranking[:2] == expected.ranking[:2] and by_row == legs
    assert pickle.loads(pickle.dumps(by_row)) == legs
