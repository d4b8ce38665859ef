"""The order of hits, a query's own document and tied scores, each against its definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.ranking import order, order_scores, separate_ties, without_self
from retriever.types import ScoredDoc

SCORES = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 0.5000000001, 2.0]), st.floats(-1e6, 1e6))
SCORED = st.dictionaries(st.text(min_size=1, max_size=3), SCORES, max_size=12)


@given(SCORED, st.integers(1, 15))
def test_the_order_is_that_of_the_definition_and_is_cut_last(scored: dict[str, float], top_k: int) -> None:
    expected = sorted((ScoredDoc(*pair) for pair in scored.items()), key=lambda hit: (-hit.score, hit.doc_id))
    assert order(scored.items()) == expected
    assert order(scored.items(), top_k=top_k) == expected[:top_k]
    scores = np.array([*scored.values()], np.float64)
    assert order_scores([*scored], scores) == expected
    assert order_scores([*scored], scores, top_k=top_k) == expected[:top_k]


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="'b' is NaN"):
        order([("a", 1.0), ("b", float("nan"))])
    with pytest.raises(ValueError, match="'b' is NaN"):
        order_scores(["a", "b"], np.array([1.0, np.nan]))


@given(SCORED, st.text(min_size=1, max_size=3))
def test_the_querys_own_document_alone_is_left_out(scored: dict[str, float], query_id: str) -> None:
    ranking = order(scored.items())
    assert without_self(ranking, query_id, exclude=False) == ranking
    assert dict(without_self(ranking, query_id)) == {name: s for name, s in scored.items() if name != query_id}


@given(SCORED)
def test_separated_scores_order_alike_by_every_rule_for_ties(scored: dict[str, float]) -> None:
    ranking = order(scored.items())
    separate = separate_ties(ranking)
    single = [np.float32(hit.score) for hit in separate]
    assert [hit.doc_id for hit in separate] == [hit.doc_id for hit in ranking]
    assert all(before > after for before, after in pairwise(single))
