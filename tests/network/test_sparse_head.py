"""The sparse head against its definition: values and gradients over all logits, with and without experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from retriever.network.model import RetrieverConfig, pack
from retriever.network.sparse_head import SparseHead
from retriever.network.upcycle import UpcycleConfig, upcycle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.network.packing import Group
    from tests.conftest import Parent

HIDDEN, VOCAB = 8, 40
LENGTHS = (1, 2, 2, 5, 5, 5, 9)


def head_with(experts: int, shared: int = 0) -> SparseHead:
    """Return a head with every parameter drawn, two terms not allowed, and some of one stem."""
    config = RetrieverConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_attention_heads=2,
        head_experts=experts,
        head_experts_per_token=2 if experts else 1,
        head_granularity=2,
        head_intermediate_size=12,
        head_shared_experts=shared,
    )
    head = SparseHead(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in head.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
        head.allowed[[3, 17]] = False
        head.stem[[3, 17]] = -1
        head.stem[[8, 9]] = 6  # 6, 8 and 9 are of one stem, and so are 30 and 31
        head.stem[31] = 30
    return head


@pytest.fixture
def states() -> Tensor:
    return torch.randn(sum(LENGTHS), HIDDEN, generator=torch.Generator().manual_seed(6), requires_grad=True)


@pytest.fixture
def embeddings() -> Tensor:
    return torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(7))


TOKENS = torch.randint(VOCAB, (sum(LENGTHS),), generator=torch.Generator().manual_seed(4))
GROUPS = pack([[0] * length for length in LENGTHS]).groups


def naive(head: SparseHead, states: Tensor, groups: Sequence[Group], embeddings: Tensor) -> Tensor:
    """Return log(1 + relu(scale * max over tokens + bias)) of every text, from all logits."""
    change = states @ head.transform.weight.T + head.transform.bias
    h = states + change
    if head.experts is not None:
        h = h + head.experts(states)[0]
    logits = torch.nn.functional.layer_norm(h, (HIDDEN,), head.norm.weight, head.norm.bias, head.norm.eps)
    logits = logits @ embeddings.T
    rows, start = [], 0
    for group in groups:
        for _ in range(group.count):
            rows.append(logits[start : start + group.length].amax(0))
            start += group.length
    weights = torch.log1p(torch.relu(torch.stack(rows) * head.scale + head.bias)) * head.allowed
    columns = [torch.zeros(len(rows))] * VOCAB
    for term in range(VOCAB):
        stem = int(head.stem[term])
        if stem >= 0:
            columns[stem] = torch.maximum(columns[stem], weights[:, term])
    return torch.stack(columns, 1)


@pytest.mark.parametrize(("experts", "shared"), [(0, 0), (3, 0), (3, 2)])
@pytest.mark.parametrize("terms", [None, [5, 3, 30, 31, 20], list(range(VOCAB))])
def test_values_and_all_gradients(
    states: Tensor, embeddings: Tensor, experts: int, shared: int, terms: list[int] | None
) -> None:
    head = head_with(experts, shared)
    columns = None if terms is None else torch.tensor(terms)
    width = VOCAB if terms is None else len(terms)
    probe = torch.randn(len(LENGTHS), width, generator=torch.Generator().manual_seed(8))

    def gradients(weights: Tensor) -> dict[str, Tensor | None]:
        head.zero_grad()
        states.grad = None
        (weights * probe).sum().backward()  # type: ignore[no-untyped-call]
        named = {name: value.grad for name, value in head.named_parameters() if shared or "shared" not in name} | {
            "states": states.grad
        }
        return {name: None if value is None else value.clone() for name, value in named.items()}

    expected = naive(head, states, GROUPS, embeddings)
    expected = expected if columns is None else expected[:, columns]
    assert (expected > 0).any() and (expected == 0).any()
    wanted = gradients(expected)
    found, routing = head(states, GROUPS, embeddings, columns, token_ids=TOKENS)
    torch.testing.assert_close(found, expected)
    assert (routing is None) == (experts == 0)
    for name, value in gradients(found).items():
        other = wanted[name]
        assert value is not None and other is not None, name
        assert name == "norm.bias" or value.abs().max() > 0, name
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-6)


def test_no_gradient_gives_the_same_values(states: Tensor, embeddings: Tensor) -> None:
    head = head_with(3)
    terms = torch.tensor([1, 2, 3])
    with_gradient = head(states, GROUPS, embeddings, token_ids=TOKENS)[0]
    some_with_gradient = head(states, GROUPS, embeddings, terms, token_ids=TOKENS)[0]
    with torch.no_grad():
        torch.testing.assert_close(head(states, GROUPS, embeddings, token_ids=TOKENS)[0], with_gradient)
        torch.testing.assert_close(head(states, GROUPS, embeddings, terms, token_ids=TOKENS)[0], some_with_gradient)


def test_the_same_gradient_every_time(embeddings: Tensor) -> None:
    """Enough active terms for several threads, whose sums would come in any order."""
    head = head_with(0)
    states = torch.randn(4000, HIDDEN, generator=torch.Generator().manual_seed(9), requires_grad=True)
    groups = pack([[0] * 2] * 2000).groups
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found: list[Tensor] = []
        for _ in range(3):
            states.grad = None
            head.zero_grad()
            head(states, groups, embeddings, token_ids=torch.zeros(4000, dtype=torch.long))[0].square().sum().backward()
            assert states.grad is not None and head.bias.grad is not None and head.scale.grad is not None
            found.append(torch.cat([states.grad.flatten(), head.bias.grad, head.scale.grad]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("granularity", [1, 2])
def test_experts_of_the_head_add_nothing_at_the_start(tiny_parent: Parent, granularity: int) -> None:
    settings: dict[str, Any] = {"head_experts_per_token": 2, "head_intermediate_size": 16}
    plain = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(logit_bias=0.0))
    more = UpcycleConfig(logit_bias=0.0, head_experts=4, head_granularity=granularity, **settings)
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, more)
    packed = pack([[2, 7, 8, 3], [2, 50, 60, 70, 80, 3]])
    with torch.inference_mode():
        found, expected = model.encode(packed), plain.encode(packed)
    torch.testing.assert_close(found.sparse, expected.sparse, rtol=0, atol=0)
    torch.testing.assert_close(found.dense, expected.dense, rtol=0, atol=0)
    assert expected.sparse is not None and (expected.sparse > 0).any()
    assert len(found.routings) == len(expected.routings) + 1
    routing = found.routings[-1]
    assert routing.expert_ids.shape == (10, 2 * granularity)
    assert (
        len(set(routing.expert_ids.flatten().tolist())) > granularity
    )  # they differ, so that they can learn different things
