"""The MoE layer against a loop over tokens written from the definition, and its losses against numbers by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from retriever.network.moe import ExpertShape, MoELayer, Routing, load_balancing_loss, router_z_loss

HIDDEN, INNER = 16, 24


def make_layer(routed: int, shared: int, active: int, seed: int = 0, routed_scale: float = 1.0) -> MoELayer:
    generator = torch.Generator().manual_seed(seed)
    layer = MoELayer(ExpertShape(routed, shared, active, HIDDEN, INNER), nn.GELU(), routed_scale)
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    return layer


def naive(layer: MoELayer, x: Tensor) -> Tensor:
    """Each token alone: softmax over all experts, the best ones renormalised, plus every shared expert."""
    shape = layer.shape
    rows = []
    for token in x:
        probabilities = (layer.router @ token).softmax(0)
        chosen = sorted(range(shape.routed), key=lambda e: (-probabilities[e].item(), e))[: shape.active]
        total = sum((probabilities[e] for e in chosen), torch.zeros((), dtype=x.dtype))
        y = torch.zeros(shape.hidden, dtype=x.dtype)
        for e in chosen:
            inner = layer.activation(layer.up_proj[e] @ token + layer.up_bias[e])
            out = layer.down_proj[e] @ inner + layer.down_bias[e]
            y = y + layer.routed_scale * probabilities[e] / total * out
        for s in range(shape.shared):
            neurons = slice(s * shape.intermediate, (s + 1) * shape.intermediate)
            inner = layer.activation(layer.shared_up_proj[neurons] @ token + layer.shared_up_bias[neurons])
            y = y + layer.shared_down_proj[:, neurons] @ inner
        if shape.shared:
            y = y + layer.shared_down_bias
        rows.append(y)
    return torch.stack(rows)


def assert_equal_to_naive(layer: MoELayer, x: Tensor) -> None:
    """Compare outputs and the gradients of the input and of every parameter."""
    oracle = copy.deepcopy(layer).double()
    x, exact_x = x.clone().requires_grad_(), x.double().requires_grad_()
    y, exact = layer(x)[0], naive(oracle, exact_x)
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    torch.autograd.backward([(y * seed).sum(), (exact * seed.double()).sum()])
    assert x.grad is not None and exact_x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact_x.grad, rtol=1e-4, atol=1e-3)
    for (name, value), expected in zip(layer.named_parameters(), oracle.parameters(), strict=True):
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        wanted = torch.zeros_like(expected) if expected.grad is None else expected.grad
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-3, msg=name)


@pytest.mark.parametrize("tokens", [1, 3, 50])
@pytest.mark.parametrize(
    ("routed", "shared", "active"), [(1, 0, 1), (4, 0, 1), (4, 0, 2), (4, 2, 4), (8, 1, 2), (3, 3, 1), (32, 1, 8)]
)
def test_equals_the_naive_loop(routed: int, shared: int, active: int, tokens: int) -> None:
    layer = make_layer(routed, shared, active, routed_scale=2.0)
    assert_equal_to_naive(layer, torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(5)))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_equals_the_naive_loop_for_any_shape(data: st.DataObject) -> None:
    routed = data.draw(st.integers(1, 9))
    shared, active = data.draw(st.integers(0, 3)), data.draw(st.integers(1, routed))
    layer = make_layer(routed, shared, active, seed=data.draw(st.integers(0, 99)))
    tokens = data.draw(st.integers(1, 40))
    assert_equal_to_naive(layer, torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(tokens)))


def test_ties_go_to_the_lower_expert_number() -> None:
    layer = make_layer(8, 0, 2)
    with torch.no_grad():
        layer.router.copy_(layer.router[:1].expand(8, -1))
    x = torch.randn(40, HIDDEN, generator=torch.Generator().manual_seed(2))
    assert layer(x)[1].expert_ids.tolist() == [[0, 1]] * 40
    assert_equal_to_naive(layer, x)


def test_experts_without_tokens_have_zero_gradients() -> None:
    layer = make_layer(4, 0, 1)
    with torch.no_grad():
        layer.router[0] = 50.0
        layer.router[1:] = -50.0
    x = torch.rand(20, HIDDEN, generator=torch.Generator().manual_seed(2)) + 0.1
    y, routing = layer(x)
    assert set(routing.expert_ids.flatten().tolist()) == {0}
    torch.autograd.backward(y.sum())
    assert layer.up_proj.grad is not None
    assert layer.up_proj.grad[0].abs().max() > 0
    assert layer.up_proj.grad[1:].abs().max() == 0


def test_no_tokens_at_all() -> None:
    y, routing = make_layer(4, 1, 2)(torch.zeros(0, HIDDEN))
    assert y.shape == (0, HIDDEN)
    assert routing.expert_ids.shape == (0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_does_not_depend_on_its_neighbours(dtype: torch.dtype) -> None:
    layer = make_layer(4, 1, 2).to(dtype)
    x = torch.randn(70, HIDDEN, generator=torch.Generator().manual_seed(3)).to(dtype)
    with torch.inference_mode():
        together = layer(x)[0]
        alone = torch.cat([layer(row[None])[0] for row in x])
        shuffled = layer(x.flip(0))[0].flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together, shuffled)


def test_grouped_products_are_the_experts_one_by_one() -> None:
    layer = make_layer(4, 0, 2).bfloat16()
    counts = torch.tensor([5, 0, 11, 2])
    rows = torch.randn(18, HIDDEN, generator=torch.Generator().manual_seed(5)).bfloat16()
    with torch.inference_mode():
        grouped = layer.grouped(rows, counts)
        alone = []
        for row, expert in zip(rows, [0] * 5 + [2] * 11 + [3] * 2, strict=True):
            hidden = layer.activation(layer.up_proj[expert] @ row + layer.up_bias[expert])
            alone.append(layer.down_proj[expert] @ hidden + layer.down_bias[expert])
    torch.testing.assert_close(grouped, torch.stack(alone), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(("routed", "active"), [(4, 0), (4, 5)])
def test_impossible_numbers_of_active_experts_are_refused(routed: int, active: int) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to 4"):
        MoELayer(ExpertShape(routed, 0, active, HIDDEN, INNER), nn.GELU())


def make_routing(logits: list[list[float]], expert_ids: list[list[int]], mask: list[bool]) -> Routing:
    return Routing(torch.tensor(expert_ids), torch.ones(len(mask), 1), torch.tensor(logits), torch.tensor(mask))


def test_load_balancing_loss_by_hand() -> None:
    even = make_routing([[0.0, 0.0], [0.0, 0.0]], [[0], [1]], [True, True])
    assert load_balancing_loss(even).item() == pytest.approx(1.0)
    # Both tokens go to expert 0 with probability 3/4: 2 * (1 * 3/4 + 0 * 1/4).
    skewed = make_routing([[math.log(3), 0.0]] * 2, [[0], [0]], [True, True])
    assert load_balancing_loss(skewed).item() == pytest.approx(1.5)
    # Two choices of three experts: f = (1/2, 1/4, 1/4), P = (1/3 + 3/5) / 2, (1/3 + 1/5) / 2 twice.
    two = make_routing([[0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0]], [[0, 1], [0, 2]], [True, True])
    assert load_balancing_loss(two).item() == pytest.approx(3 * (1 / 2 * 14 / 30 + 1 / 4 * 8 / 30 + 1 / 4 * 8 / 30))


def test_router_z_loss_by_hand() -> None:
    routing = make_routing([[0.0, 0.0], [math.log(3), 0.0]], [[0], [0]], [True, True])
    assert router_z_loss(routing).item() == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)


@pytest.mark.parametrize("loss", [load_balancing_loss, router_z_loss])
def test_losses_leave_padding_out(loss: Callable[[Routing], Tensor]) -> None:
    real = make_routing([[0.5, -1.0], [2.0, 0.0]], [[0], [0]], [True, True])
    padded = make_routing([[0.5, -1.0], [9.0, -9.0], [2.0, 0.0]], [[0], [1], [0]], [True, False, True])
    assert loss(padded).item() == pytest.approx(loss(real).item())


def test_the_mask_reaches_the_routing() -> None:
    layer = make_layer(4, 0, 2)
    x, mask = torch.randn(5, HIDDEN), torch.tensor([True, True, False, True, False])
    assert layer(x, mask)[1].mask.tolist() == mask.tolist()
    assert layer(x)[1].mask.all()


def test_losses_reach_the_router() -> None:
    layer = make_layer(4, 0, 2)
    routing = layer(torch.randn(30, HIDDEN, generator=torch.Generator().manual_seed(2)))[1]
    torch.autograd.backward(load_balancing_loss(routing) + router_z_loss(routing))
    assert layer.router.grad is not None and layer.router.grad.abs().max() > 0
    assert layer.up_proj.grad is None


def test_the_same_gradient_every_time() -> None:
    """A token's choices add up to its gradient, whichever of several threads comes first."""
    layer = make_layer(8, 0, 4)
    x = torch.randn(6000, HIDDEN, generator=torch.Generator().manual_seed(3), requires_grad=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found: list[Tensor] = []
        for _ in range(4):
            x.grad = None
            layer.zero_grad()
            torch.autograd.backward(layer(x)[0].square().sum())
            assert x.grad is not None and layer.router.grad is not None
            found.append(torch.cat([x.grad.flatten(), layer.router.grad.flatten()]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
