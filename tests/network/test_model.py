"""The network against transformers' BERT and against the sparse head's definition."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

import retriever.network.sparse_head
from retriever.network.model import RetrieverConfig, RetrieverModel, pack
from retriever.network.upcycle import UpcycleConfig, upcycle

if TYPE_CHECKING:
    from tests.conftest import Parent

TEXTS = [[2, 7, 8, 9, 3], [2, 40, 3], [2, 50, 60, 70, 80, 90, 100, 3], [2, 11, 3], [2, 7, 8, 9, 3]]


@pytest.fixture(scope="module")
def model(tiny_parent: Parent) -> RetrieverModel:
    settings = UpcycleConfig(num_experts=4, experts_per_token=2, granularity=2, shared_experts=1)
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, settings)
    generator = torch.Generator().manual_seed(4)
    head = model.sparse_head
    for value in (head.transform.weight, head.transform.bias, head.scale, head.bias):
        value.data.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    return model


def padded(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return input_ids and attention_mask, padded on the right with a real token, which nothing may read."""
    length = max(map(len, texts))
    ids = torch.tensor([text + [17] * (length - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts])
    return ids, mask


def parent_states(parent: Parent) -> list[tuple[Tensor, ...]]:
    """Return the hidden states of each text, run alone through transformers' BERT."""
    with torch.inference_mode():
        return [
            tuple(state[0] for state in parent.model(torch.tensor([text]), output_hidden_states=True).hidden_states)
            for text in TEXTS
        ]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_dense_view_is_berts_pooled_output(model: RetrieverModel, tiny_parent: Parent, pooling: str) -> None:
    model.config.pooling = pooling
    order = sorted(range(len(TEXTS)), key=lambda i: len(TEXTS[i]))
    with torch.inference_mode():
        from_padded = model(*padded(TEXTS)).dense
        from_packed = model.encode(pack([TEXTS[i] for i in order])).dense
        assert from_packed is not None
        from_packed = from_packed[torch.tensor(order).argsort()]
    model.config.pooling = "mean"
    last = [states[-1] for states in parent_states(tiny_parent)]
    expected = torch.stack([state[0] if pooling == "cls" else state.mean(0) for state in last])
    torch.testing.assert_close(from_padded, torch.nn.functional.normalize(expected, dim=-1), rtol=0, atol=2e-6)
    assert torch.equal(from_padded, from_packed)


def by_stem(weights: Tensor, stem: Tensor) -> Tensor:
    """Return (vocab,) the largest weight of each stem at its place, 0 at its other terms."""
    out = torch.zeros_like(weights)
    for term, first in enumerate(stem.tolist()):
        if first >= 0:
            out[first] = max(out[first], weights[term])
    return out


def test_sparse_view_is_its_definition(model: RetrieverModel, tiny_parent: Parent) -> None:
    """Weights per token first, then the max over the tokens, as SPLADE defines them."""
    head = model.sparse_head
    with torch.inference_mode():
        found = model(*padded(TEXTS)).sparse
        assert found is not None
        for row, states in zip(found, parent_states(tiny_parent), strict=True):
            hidden = torch.stack([states[i] for i in model.config.sparse_layers]).mean(0)
            h = head.norm(hidden + head.transform(hidden)).double()
            logits = h @ tiny_parent.model.embeddings.word_embeddings.weight.T.double()
            # A negative scale makes the largest logit the smallest weight: the head takes the max before scaling.
            logits = logits.amax(0) * head.scale.double() + head.bias.double()
            expected = torch.log1p(torch.relu(logits)) * head.allowed
            torch.testing.assert_close(row.double(), by_stem(expected, head.stem), rtol=1e-4, atol=1e-5)
            # Where all scales of a stem are positive, the max over the tokens of the weights is the same.
            per_token = (h @ tiny_parent.model.embeddings.word_embeddings.weight.T.double()) * head.scale + head.bias
            splade = torch.log1p(torch.relu(per_token)).amax(0) * head.allowed
            positive = by_stem((head.scale <= 0).double(), head.stem) == 0
            splade = by_stem(splade, head.stem)
            torch.testing.assert_close(row.double()[positive], splade[positive], rtol=1e-4, atol=1e-5)
    assert (found > 0).any() and (found == 0).any()
    assert (found[:, ~head.allowed] == 0).all()


def test_special_and_unused_terms_are_not_allowed(model: RetrieverModel, tiny_parent: Parent) -> None:
    vocabulary = tiny_parent.tokenizer.convert_ids_to_tokens(list(range(200)))
    refused = [term for term, allowed in zip(vocabulary, model.sparse_head.allowed, strict=True) if not allowed]
    assert refused == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]"]


@pytest.mark.parametrize(("tokens", "terms"), [(1, 1000), (10, 16), (1000, 150)])
def test_sparse_view_does_not_depend_on_the_blocks(
    model: RetrieverModel, monkeypatch: pytest.MonkeyPatch, tokens: int, terms: int
) -> None:
    texts = sorted(TEXTS * 5, key=len)
    with torch.inference_mode():
        whole = model.encode(pack(texts)).sparse
        monkeypatch.setattr(retriever.network.sparse_head, "HEAD_TOKENS", tokens)
        monkeypatch.setattr(retriever.network.sparse_head, "HEAD_TERMS", terms)
        torch.testing.assert_close(model.encode(pack(texts)).sparse, whole, rtol=0, atol=1e-6)


def test_views_are_computed_only_when_asked_for(model: RetrieverModel) -> None:
    packed = pack([[2, 7, 3]])
    with torch.inference_mode():
        assert model.encode(packed, sparse=False).sparse is None
        assert model.encode(packed, dense=False).dense is None


def test_routings_cover_every_real_token_and_no_padding(model: RetrieverModel) -> None:
    with torch.inference_mode():
        routings = model(*padded(TEXTS)).routings
    assert len(routings) == len(model.config.moe_layers) == 1
    assert routings[0].expert_ids.shape == (sum(map(len, TEXTS)), 4)


def test_both_views_train(model: RetrieverModel) -> None:
    """Gradients reach every part of the network that a text uses; the lexical part's is not in the forward pass."""
    model.zero_grad()
    out = model(*padded(TEXTS))
    counts = torch.zeros(len(TEXTS), 200)
    for row, text in enumerate(TEXTS):
        counts[row, text] = 1.0
    lexical = model.lexical.queries(counts, out.sparse.detach()).sum() + model.lexical.documents(counts).sum()
    (out.dense[:, 0].sum() + out.sparse.sum() + lexical).backward()
    unused = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().max() > 0]
    model.zero_grad()
    assert unused == []


def test_routers_stay_in_float32(tiny_parent: Parent) -> None:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig()).set_precision("bfloat16")
    kinds = {name.rsplit(".", 1)[-1]: value.dtype for name, value in model.named_parameters()}
    assert kinds["router"] == torch.float32
    assert kinds["up_proj"] == kinds["weight"] == torch.bfloat16


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_values_per_term_stay_in_float32(tiny_parent: Parent, precision: str) -> None:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig()).set_precision(precision)
    lexical = {name: value.dtype for name, value in model.lexical.state_dict().items()}
    assert set(lexical) == {"fraction", "log_weight", "gain", "expansion"}
    assert set(lexical.values()) == {torch.float32}
    assert model.sparse_head.scale.dtype == model.sparse_head.bias.dtype == torch.float32
    assert model.sparse_head.allowed.dtype == torch.bool


def test_pack() -> None:
    packed = pack([[1, 2], [3, 4], [5, 6, 7]])
    assert packed.input_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert packed.positions.tolist() == [0, 1, 0, 1, 0, 1, 2]
    assert [tuple(group) for group in packed.groups] == [(0, 2, 2), (4, 1, 3)]
    assert [group.stop for group in packed.groups] == [4, 7]


def test_expert_shape_counts_fine_grained_experts() -> None:
    config = RetrieverConfig(num_experts=4, experts_per_token=2, granularity=4, shared_experts=1, moe_layers=[1])
    assert config.expert_shape == (16, 1, 8, 384, 384)
    assert math.isclose(config.routed_scale, 1.0)
