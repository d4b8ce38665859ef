"""Routers that begin as clusters: planted groups get an expert each, at the entropy that is asked for."""

from __future__ import annotations

import math

import pytest
import torch

from retriever.train.experts.router_start import ENTROPY_SHARE, cluster_rows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing faiss


def entropy_bits(logits: torch.Tensor) -> float:
    shares = logits.double().softmax(1)
    return float(-(shares * shares.log2()).sum(1).mean())


def test_each_planted_group_has_an_expert() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.linalg.qr(torch.randn(32, 6, generator=generator)).Q.T * 3
    group = torch.arange(600) % 6
    hidden = centres[group] + 0.3 * torch.randn(600, 32, generator=generator)
    rows = cluster_rows(hidden, 6, seed=0)
    assert rows.shape == (6, 32)
    logits = hidden @ rows.T
    experts = [set(logits[group == each].argmax(1).tolist()) for each in range(6)]
    assert all(len(found) == 1 for found in experts) and len(set.union(*experts)) == 6
    assert entropy_bits(logits) == pytest.approx(ENTROPY_SHARE * math.log2(6), abs=1e-3)
    assert torch.equal(rows, cluster_rows(hidden, 6, seed=0))


@pytest.mark.parametrize("experts", [2, 15])
def test_the_entropy_follows_the_number_of_experts(experts: int) -> None:
    hidden = torch.randn(500, 24, generator=torch.Generator().manual_seed(1)) + 2
    found = hidden @ cluster_rows(hidden, experts, seed=3).T
    assert entropy_bits(found) == pytest.approx(ENTROPY_SHARE * math.log2(experts), abs=1e-3)
    assert set(found.argmax(1).tolist()) == set(range(experts))
    assert not torch.equal(cluster_rows(hidden, experts, seed=3), cluster_rows(hidden, experts, seed=4))
