from __future__ import annotations

import numpy as np
import pytest

from retriever.eval.evaluator import evaluate_run
from retriever.experiments.tuning import candidates, ndcg_of_candidates, tune
from retriever.ranking import order, separate_ties
from retriever.search.fusion.fusion import NORMALISATIONS, FusionConfig, fuse
from retriever.types import Qrels, Ranking, ScoredDoc, UserError

LEGS = ("bm25", "sparse", "dense")
DOCS = [f"d{n:02}" for n in range(40)]


def made(seed: int, queries: int, signal: dict[str, float]) -> tuple[dict[str, dict[str, Ranking]], Qrels]:
    """Return runs whose scores are noise plus `signal` for relevant documents; each leg finds 25 of 40 documents."""
    rng = np.random.default_rng(seed)
    runs: dict[str, dict[str, Ranking]] = {leg: {} for leg in signal}
    qrels: Qrels = {}
    for n in range(queries):
        qrels[f"q{n}"] = {doc_id: int(rng.integers(-1, 3)) for doc_id in rng.choice(DOCS, 8, replace=False).tolist()}
        for leg, strength in signal.items():
            scores = {doc_id: rng.normal() + strength * max(qrels[f"q{n}"].get(doc_id, 0), 0) for doc_id in DOCS}
            runs[leg][f"q{n}"] = order([ScoredDoc(doc_id, float(s)) for doc_id, s in scores.items()])[:25]
    return runs, qrels


@pytest.mark.parametrize("legs", [LEGS, ("bm25", "dense")])
def test_candidates_are_the_simplex_in_steps_of_a_twentieth(legs: tuple[str, ...]) -> None:
    found = candidates(legs)
    assert len(found) == len(NORMALISATIONS) * {3: 231, 2: 21}[len(legs)]
    assert len({(fusion.normalisation, *fusion.weights.values()) for fusion in found}) == len(found)
    for fusion in found:
        assert sum(fusion.weights.values()) == pytest.approx(1) and tuple(fusion.weights) == legs
    assert found[0].normalisation == FusionConfig().normalisation
    nearest = {3: FusionConfig().weights, 2: {"bm25": 0.4, "dense": 0.6}}[len(legs)]
    assert found[0].weights == pytest.approx(nearest)


def test_bulk_values_are_those_of_fusion_and_trec_eval() -> None:
    runs, qrels = made(1, 3, {"bm25": 0.5, "sparse": 0.1, "dense": 1.0})
    runs["dense"]["q1"] = []
    runs["bm25"]["q2"] = [ScoredDoc(doc_id, 1.0) for doc_id in DOCS[:25]]  # all tied
    fusions = candidates(LEGS)[::7]
    for query_id, grades in qrels.items():
        rankings = {leg: run[query_id] for leg, run in runs.items()}
        values = ndcg_of_candidates(rankings, grades, fusions)
        for fusion, value in zip(fusions, values, strict=True):
            run = {query_id: separate_ties(fuse(rankings, fusion).ranking)}
            expected = evaluate_run(run, {query_id: grades}, measures=["nDCG@10"]).mean["nDCG@10"]
            assert value == pytest.approx(expected, abs=1e-9), fusion


def test_the_leg_that_knows_is_found_and_the_gain_is_real() -> None:
    found = tune(*made(2, 40, {"bm25": 0.0, "dense": 1.5}))
    assert found.fusion.weights["dense"] >= 0.8
    assert found.queries == 40
    assert 0 < found.gain == pytest.approx(found.cross_validated - found.default)
    assert 0 < found.interval.low < found.gain < found.interval.high
    assert found.cross_validated <= found.fitted


def test_noise_fits_but_does_not_validate() -> None:
    found = tune(*made(3, 30, dict.fromkeys(("bm25", "dense"), 0.0)))
    assert found.fitted > found.default
    assert found.cross_validated < found.fitted and found.interval.low < 0


def test_the_default_stays_where_nothing_is_better() -> None:
    qrels: Qrels = {f"q{n}": {"a": 1} for n in range(6)}
    runs: dict[str, dict[str, Ranking]] = {leg: {query_id: [ScoredDoc("a", 1.0)] for query_id in qrels} for leg in LEGS}
    found = tune(runs, qrels)
    assert found.fusion.weights == pytest.approx(FusionConfig().weights)
    assert (found.default, found.cross_validated, found.gain, found.interval) == (1, 1, 0, (0, 0))


def test_a_query_without_hits_counts_as_zero() -> None:
    runs, qrels = made(4, 9, {"bm25": 0.5, "dense": 1.0})
    before = tune(runs, qrels)
    after = tune(runs, qrels | {"none": {"d01": 1}, "unjudged": {}})
    assert after.queries == 10 and after.default == pytest.approx(before.default * 0.9)


def test_too_few_queries() -> None:
    with pytest.raises(UserError, match="found 4 judged queries, need 5 or more"):
        tune(*made(5, 4, {"bm25": 0.5, "dense": 1.0}))
