"""Attention against its definition, text by text."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.network.attention import LENGTH_STEP, Attention, padded_together
from retriever.network.model import RetrieverConfig
from retriever.network.packing import pack

HEADS, HIDDEN = 3, 24


@pytest.fixture(scope="module")
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(RetrieverConfig(hidden_size=HIDDEN, num_attention_heads=HEADS))


def naive(attention: Attention, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Head by head and text by text, in float64."""
    qkv = x.double() @ attention.qkv.weight.double().T + attention.qkv.bias.double()
    texts = []
    for text in torch.split(qkv, lengths):
        heads = []
        for head in range(HEADS):
            query, key, value = (
                part[:, head * HIDDEN // HEADS : (head + 1) * HIDDEN // HEADS] for part in torch.split(text, HIDDEN, 1)
            )
            heads.append((query @ key.T / math.sqrt(HIDDEN // HEADS)).softmax(-1) @ value)
        texts.append(torch.cat(heads, 1))
    return torch.cat(texts) @ attention.out.weight.double().T + attention.out.bias.double()


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_both_ways_are_the_definition(attention: Attention, lengths: list[int], seed: int) -> None:
    lengths = sorted(lengths)
    groups = pack([[1] * length for length in lengths]).groups
    x = torch.randn(sum(lengths), HIDDEN, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = naive(attention, x, lengths)
        torch.testing.assert_close(attention(x, groups).double(), expected, rtol=1e-4, atol=1e-5)
        padded = copy.deepcopy(attention).bfloat16()(x.bfloat16(), groups, padded_together(groups)).double()
    assert (padded - expected).norm() / expected.norm() < 0.02


def test_large_scores_are_cut_not_overflown(attention: Attention) -> None:
    groups = pack([[1] * 20, [1] * 33]).groups
    x = torch.randn(53, HIDDEN, generator=torch.Generator().manual_seed(1)).bfloat16() * 300
    with torch.inference_mode():
        assert copy.deepcopy(attention).bfloat16()(x, groups, padded_together(groups)).isfinite().all()


def test_spans_join_lengths_and_lose_no_token() -> None:
    lengths = [1, 3, 3, 16, 17, 40]
    spans = padded_together(pack([[1] * length for length in lengths]).groups)
    assert [(span.start, span.stop, span.texts, span.length) for span in spans] == [
        (0, 23, 4, LENGTH_STEP),
        (23, 40, 1, 2 * LENGTH_STEP),
        (40, 80, 1, 3 * LENGTH_STEP),
    ]
    assert spans[0].slots.tolist() == [0, 16, 17, 18, 32, 33, 34, *range(48, 64)]
