"""MMR against its definition, one step after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.rank import Mmr, Pipeline
from retriever.rank.mmr import maximal_marginal_relevance
from retriever.search.retriever import Retriever

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def by_definition(relevance: list[float], vectors: np.ndarray, balance: float) -> list[tuple[int, float]]:
    left, chosen = list(range(len(relevance))), list[tuple[int, float]]()
    while left:
        worth = {
            i: balance * relevance[i] - (1 - balance) * max([0.0, *(float(vectors[i] @ vectors[j]) for j, _ in chosen)])
            for i in left
        }
        best = max(left, key=lambda i: worth[i])
        chosen.append((best, worth[best]))
        left.remove(best)
    return chosen


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
def test_each_step_takes_the_best(count: int, balance: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.sort(random.random(count))[::-1]
    scores = maximal_marginal_relevance(relevance, vectors @ vectors.T, balance)
    steps = by_definition(relevance.tolist(), vectors, balance)
    assert scores[[i for i, _ in steps]] == pytest.approx([worth for _, worth in steps])
    assert all(one >= other - 1e-12 for (_, one), (_, other) in itertools.pairwise(steps))


def test_balance_1_changes_nothing_and_less_brings_variety(retriever: Retriever, queries: list[str]) -> None:
    for query in queries[:5]:
        plain = [hit.doc_id for hit in retriever.search(query, 30)]
        assert [hit.doc_id for hit in retriever.search(query, 30, pipeline=Pipeline(stages=(Mmr(1.0),)))] == plain
        various = [hit.doc_id for hit in retriever.search(query, 30, pipeline=Pipeline(stages=(Mmr(0.3, 30),)))]
        assert sorted(various) == sorted(plain)
        stored = retriever.reader.stored(plain)
        vectors = dict(zip(plain, retriever.reader.stored_vectors([stored[name] for name in plain]), strict=True))

        def likeness(ids: list[str], vectors: dict[str, np.ndarray] = vectors) -> float:
            head = np.array([vectors[name] for name in ids[:5]])
            return float((head @ head.T).sum())

        assert likeness(various) < likeness(plain)
