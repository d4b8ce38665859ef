"""Impacts against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from retriever.index.postings.quantise import LARGEST_IMPACT, impact_query, impact_strings, quantise, strongest

WEIGHTS = st.lists(st.floats(0, 600, width=32), min_size=1, max_size=30)


@given(WEIGHTS, st.sampled_from([1, 10, 100]))
def test_round_trip_error_is_half_a_step(weights: list[float], scale: int) -> None:
    impacts = quantise(csr_matrix(np.array([weights], dtype=np.float32)), scale)
    assert impacts.dtype == np.int32 and (impacts.data > 0).all()
    assert (np.abs(np.array(weights) - impacts.toarray()[0] / scale) <= 0.5 / scale + 1e-9).all()


@given(WEIGHTS)
def test_strings_hold_every_term_once(weights: list[float]) -> None:
    impacts = quantise(csr_matrix(np.array([weights, weights[::-1]])), 100)
    for line, row in zip(impact_strings(impacts), impacts.toarray(), strict=True):
        read = {int(term): int(count) for term, count in (pair.split("|") for pair in line.split())}
        assert read == {term: count for term, count in enumerate(row) if count}


def test_clipped_and_argument_untouched() -> None:
    weights = csr_matrix([[1e9, -2.0, 1.0]])
    assert quantise(weights, 100).toarray().tolist() == [[LARGEST_IMPACT, 0, 100]]
    assert weights.toarray().tolist() == [[1e9, -2.0, 1.0]]


def test_query_is_fixed_point() -> None:
    query = csr_matrix([[1e-12, 1e-7, 1e20, -1.0, 1.5]])
    assert impact_query(query) == "1^0.000000100 2^100000000000000000000.000000000 4^1.500000000"
    assert impact_query(csr_matrix((1, 5))) == ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_is_refused(value: float) -> None:
    for function in (lambda weights: quantise(weights, 100), impact_query):
        with pytest.raises(ValueError, match="not finite"):
            function(csr_matrix([[1.0, value]]))


@given(st.lists(WEIGHTS, min_size=1, max_size=5), st.integers(1, 8))
def test_the_strongest_terms_are_kept(rows: list[list[float]], count: int) -> None:
    dense = np.zeros((len(rows), 30), np.float32)
    for place, values in enumerate(rows):
        dense[place, : len(values)] = values
    weights = csr_matrix(dense)
    kept = strongest(weights, count).toarray()
    for row, before in zip(kept, dense, strict=True):
        wanted = sorted((term for term in range(30) if before[term] > 0), key=lambda term: (-before[term], term))[
            :count
        ]
        assert {term: row[term] for term in np.flatnonzero(row)} == {term: before[term] for term in wanted}
    assert (weights.toarray() == dense).all()
