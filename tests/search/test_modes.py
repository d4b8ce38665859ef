"""Fused modes: what stands deep in a leg changes nothing in front."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.search.fusion.fusion import METHODS, FusionConfig, fuse
from retriever.search.leg import LEGS
from retriever.search.modes import CANDIDATES, Plan
from retriever.types import ScoredDoc


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    lengths=st.lists(st.integers(0, 2 * CANDIDATES), min_size=3, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_the_first_candidates_decide_and_the_rest_follows(method: str, lengths: list[int], seed: int) -> None:
    plan = Plan(tuple(LEGS), FusionConfig(method=method))
    random, rankings = Random(seed), {}
    for leg, length in zip(LEGS, lengths, strict=True):
        found = random.sample(range(3 * CANDIDATES), length)
        rankings[leg] = [ScoredDoc(str(number), 50.0 - rank / 10) for rank, number in enumerate(found)]
    fused = plan.fuse(rankings).ranking
    weights = dict(plan.fusion.weights)
    if rankings["bm25"]:  # a silent leg's weight is BM25's
        weights = {leg: weight for leg, weight in weights.items() if rankings[leg]}
        weights["bm25"] += sum(weight for leg, weight in plan.fusion.weights.items() if not rankings[leg])
    fusion = FusionConfig(method=method, weights=weights)
    alone = fuse({leg: ranking[:CANDIDATES] for leg, ranking in rankings.items()}, fusion).ranking
    assert fused[: len(alone)] == alone
    assert sorted(hit.doc_id for hit in fused) == sorted({hit.doc_id for hits in rankings.values() for hit in hits})
    assert all(before.score >= after.score for before, after in pairwise(fused))


def test_a_document_of_every_leg_has_a_normalised_score_in_each() -> None:
    ranking = [ScoredDoc(str(number), 1000.0 - number) for number in range(CANDIDATES + 10)]
    fused = Plan(("bm25", "dense"), FusionConfig()).fuse({"bm25": ranking, "dense": ranking})
    assert set(fused.normalised["dense"]) == {hit.doc_id for hit in ranking}
    assert fused.ranking == sorted(fused.ranking, key=lambda hit: -hit.score)
