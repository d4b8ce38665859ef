"""The formulas of the lexical part against their definitions, written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retriever.network.lexical import PRIOR_DOCUMENTS, blended_fractions, document_terms, idf, saturation, token_counts
from retriever.network.model import RetrieverConfig
from retriever.network.sparse_head import LexicalHead

VOCAB = 12
STEM = np.array([0, 1, 1, 3, 4, 4, 4, -1, 8, 9, -1, 9], np.int32)
Texts = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=30), max_size=6)


@given(Texts)
def test_token_counts(texts: list[list[int]]) -> None:
    found = token_counts(texts, np.arange(VOCAB, dtype=np.int32))
    assert found.shape == (len(texts), VOCAB) and found.dtype == np.float32
    assert found.has_sorted_indices and (found.data > 0).all()
    assert found.toarray().tolist() == [[ids.count(term) for term in range(VOCAB)] for ids in texts]


@given(Texts)
def test_tokens_of_one_stem_count_together(texts: list[list[int]]) -> None:
    expected = np.zeros((len(texts), VOCAB))
    for row, ids in enumerate(texts):
        for token in ids:
            if STEM[token] >= 0:
                expected[row, STEM[token]] += 1
    found = token_counts(texts, STEM)
    assert found.has_sorted_indices and (found.data > 0).all()
    np.testing.assert_array_equal(found.toarray(), expected)


@given(Texts, st.floats(0.1, 5))
def test_document_terms(texts: list[list[int]], gain: float) -> None:
    """BM25's term frequency part (Robertson et al. 1994), k1 1.2, b 0.75, without its factor k1 + 1."""
    counts = token_counts(texts, np.arange(VOCAB, dtype=np.int32))
    before = counts.copy()
    found = document_terms(counts, gain).toarray()
    for row, ids in zip(found, texts, strict=True):
        for term in range(VOCAB):
            frequency = ids.count(term)
            expected = gain * frequency / (frequency + 1.2 * (1 - 0.75 + 0.75 * len(ids) / 150)) if frequency else 0.0
            assert math.isclose(row[term], expected, rel_tol=1e-5)
    np.testing.assert_array_equal(counts.toarray(), before.toarray())
    with torch.no_grad():
        head = LexicalHead(RetrieverConfig(vocab_size=VOCAB))
        head.gain.fill_(gain)
        np.testing.assert_allclose(head.documents(torch.from_numpy(counts.toarray())), found, rtol=1e-5)


@given(st.integers(1, 500), st.integers(1, 2000))
def test_saturation_grows_with_the_count_and_falls_with_the_length(count: int, length: int) -> None:
    value = saturation(float(count), float(length))
    assert 0 < value < 1
    assert saturation(float(count + 1), float(length)) > value > saturation(float(count), float(length + 1))


@given(st.floats(1e-5, 1.0), st.floats(1e-5, 1.0))
def test_rarer_terms_weigh_more(one: float, other: float) -> None:
    weights = idf(np.array([one, other], np.float32))
    assert (weights > 0).all() and weights.dtype == np.float32
    assert weights[0] == pytest.approx(math.log(1 + 1 / one), rel=1e-5)
    assert (weights[0] >= weights[1]) == (np.float32(one) <= np.float32(other)) or weights[0] == weights[1]


@given(st.floats(0.001, 0.9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_fractions_go_from_the_prior_to_the_collections_own(prior: float, frequency: int, more: int) -> None:
    documents = frequency + more
    [found] = blended_fractions(np.array([prior], np.float32), np.array([frequency]), documents)
    assert found == pytest.approx((frequency + 300 * prior) / (documents + 300), rel=1e-4)
    own = frequency / documents if documents else prior
    assert min(own, prior) - 1e-6 <= found <= max(own, prior) + 1e-6
    assert documents or found == pytest.approx(prior, rel=1e-5)
    assert PRIOR_DOCUMENTS == 300


def test_queries_of_the_head_by_hand() -> None:
    head = LexicalHead(RetrieverConfig(vocab_size=3))
    with torch.no_grad():
        head.fraction.copy_(torch.tensor([0.5, 0.25, 1.0]))
        head.log_weight.copy_(torch.tensor([0.0, math.log(2), 0.0]))
        head.expansion.fill_(0.5)
        counts, expansions = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 4.0, 1.0]])
        torch.testing.assert_close(head.queries(counts), torch.tensor([[2 * math.log(3), 2 * math.log(5), 0.0]]))
        expected = torch.tensor([[2 * math.log(3), (1 + 0.5 * 4) * 2 * math.log(5), 0.5 * math.log(2)]])
        torch.testing.assert_close(head.queries(counts, expansions), expected)
