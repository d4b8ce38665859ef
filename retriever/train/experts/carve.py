"""Carve a dense trunk into experts: a token meets a part of each feed-forward layer's neurons, chosen by a router.

- The router: tokens are clustered by what enters the layer (spherical k-means); a cluster is an expert, and its centre
  the expert's row.
- Neurons: those that matter alike in all clusters are shared, each expert takes those that matter most in its own
  cluster (a neuron may go to several). What a neuron matters is how much its part of the output varies. What is left
  out stands in the bias, at its mean in the cluster.
- Recovery: layer after layer, the carved layer learns to give what the parent's gives, from the states that the carved
  layers before it leave (layer-wise distillation). No labels: any text serves.

After Zhang et al. 2022, "MoEfication", and Pei et al. 2025, "CMoE". Without routed experts it is pruning: the same
neurons for every token, which is the control.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from retriever.network.model import RetrieverConfig, RetrieverModel
from retriever.network.moe import MoELayer
from retriever.network.packing import pack
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retriever.network.model import Layer
    from retriever.network.packing import Packed

__all__ = ["CarveConfig", "CarvedLayer", "carve_trunk", "decay"]

TEXTS = 64
SAMPLE = 50_000
"""Tokens that decide clusters and neurons."""
ROUNDS = 25
LEAST_SHARE = 1 / 8
"""A cluster with less than this part of an even share of the tokens starts anew from a random token."""
BLOCK = 8192


@dataclass(frozen=True)
class CarveConfig:
    """How a layer is carved: `shared_experts` and `experts` (of which a token meets one) of `neurons` each.

    steps, tokens, learning_rate: of the training of each layer, by Adam with a cosine schedule.
    """

    experts: int = 3
    shared_experts: int = 1
    neurons: int = 384
    steps: int = 300
    tokens: int = 4096
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that make no layer."""
        if self.experts < 0 or self.shared_experts < 0 or self.experts + self.shared_experts == 0:
            raise UserError(f"experts {self.experts} and shared_experts {self.shared_experts}: need one or more")
        if self.neurons < 1:
            raise UserError(f"neurons is {self.neurons}, allowed is 1 or more")
        if self.steps < 0 or self.tokens < 1 or not self.learning_rate > 0:
            raise UserError("steps, tokens and learning_rate must be positive numbers")


class CarvedLayer(NamedTuple):
    """What became of a layer: the error of its output, as a share of the variance, before and after training.

    layer: its number, from 1; load: the share of the tokens of each expert.
    """

    layer: int
    before: float
    after: float
    load: tuple[float, ...]


def carve_trunk(
    parent: RetrieverModel,
    texts: Sequence[Sequence[int]],
    config: CarveConfig,
    *,
    done: Callable[[CarvedLayer], None] = lambda _: None,
) -> RetrieverModel:
    """Return a copy of an encoder whose trunk is carved, all else as it is.

    texts: framed token ids, on which layers are carved and trained; ten of a hundred only measure the errors that
    `done` is told after each layer.

    Raises:
        UserError: the trunk has experts already, or fewer neurons than asked for.
    """
    shape = parent.config
    if shape.moe_layers:
        raise UserError("the trunk has MoE layers already; carve a dense one")
    if (config.shared_experts + min(config.experts, 1)) * config.neurons > shape.intermediate_size:
        raise UserError(f"a token would meet more neurons than a layer has ({shape.intermediate_size}); ask for fewer")
    model = _empty(parent, config)
    with torch.no_grad():
        ours = _States(parent, [text for number, text in enumerate(texts) if number % 10])
        held = _States(parent, texts[::10])
    layer: Any  # torch types the members of a list of modules as Tensor or Module
    carved: Any
    for number, (layer, carved) in enumerate(zip(parent.layers, model.layers, strict=True), 1):
        with torch.no_grad():
            training, test = ours.enter(layer), held.enter(layer)
            start = _Carving(layer, training, config)
            before = test.error(start, layer)
        start.train(training, layer, config)
        with torch.no_grad():
            found = CarvedLayer(number, before, test.error(start, layer), start.load)
            ours.leave(start, layer, training)
            held.leave(start, layer, test)
            start.put_into(carved.feed_forward)
        done(found)
    model.train(False)
    return model


def _empty(parent: RetrieverModel, config: CarveConfig) -> RetrieverModel:
    """Return a network of the carved shape with all that stays as it is."""
    values = parent.config.to_dict()
    if config.experts:
        values |= {"moe_layers": list(range(parent.config.num_hidden_layers)), "intermediate_size": config.neurons}
        values |= {"num_experts": config.experts, "experts_per_token": 1, "granularity": 1, "routed_scale": 1.0}
        values |= {"shared_experts": config.shared_experts}
    else:
        values |= {"intermediate_size": config.shared_experts * config.neurons}
    known = RetrieverConfig().to_dict()
    model = RetrieverModel(RetrieverConfig(**{name: value for name, value in values.items() if name in known}))
    kept = {name: value for name, value in parent.state_dict().items() if ".feed_forward." not in name}
    model.load_state_dict(kept, strict=False)
    return model


class _Inputs(NamedTuple):
    """What enters a feed-forward layer (n, hidden), in the carved trunk, and what the parent's trunk makes there.

    wanted: (n, hidden), the state after the parent's layer; before: the same before its norm.
    """

    x: Tensor
    wanted: Tensor
    before: Tensor

    def error(self, carving: _Carving, layer: Layer) -> float:
        """Return the squared error of what the carved layer gives, as a share of the variance of what is wanted."""
        given = carving.output(self.x, layer)
        return float((given - self.wanted).square().sum() / (self.wanted - self.wanted.mean(0)).square().sum())


class _States:
    """The states of some texts' tokens before a layer: the parent's, and those that the carved layers leave."""

    def __init__(self, model: RetrieverModel, texts: Sequence[Sequence[int]]) -> None:
        ordered = sorted(texts, key=len)
        self._packed: list[Packed] = [pack(ordered[at : at + TEXTS]) for at in range(0, len(ordered), TEXTS)]
        self._sizes = [len(packed.input_ids) for packed in self._packed]
        self._parent = torch.cat([model.embeddings(packed) for packed in self._packed])
        self._carved = self._parent

    def enter(self, layer: Layer) -> _Inputs:
        """Run both through the layer's attention, and the parent's states through the whole layer."""
        x, parent = self._mixed(layer, self._carved), self._mixed(layer, self._parent)
        before = torch.cat([part + layer.feed_forward(part) for part in torch.split(parent, BLOCK)])
        return _Inputs(x, layer.feed_forward_norm(before), before)

    def leave(self, carving: _Carving, layer: Layer, inputs: _Inputs) -> None:
        """Go on to the states after the layer."""
        self._parent, self._carved = inputs.wanted, carving.output(inputs.x, layer)

    def _mixed(self, layer: Layer, states: Tensor) -> Tensor:
        parts = zip(torch.split(states, self._sizes), self._packed, strict=True)
        return torch.cat([layer.attention_norm(x + layer.attention(x, packed.groups, None)) for x, packed in parts])


class _Carving:
    """The weights of a carved layer while it is trained: [up, up_bias, down, down_bias] of the shared and each expert.

    router: (experts, hidden). load: the share of the tokens of each expert.
    """

    def __init__(self, layer: Layer, inputs: _Inputs, config: CarveConfig) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        x = inputs.x[torch.randperm(len(inputs.x), generator=generator)[:SAMPLE]]
        self.router = _centres(x, config.experts, generator)
        inner: Any = layer.feed_forward  # a dense one
        up, down = inner.up, inner.down
        neurons = inner.activation(F.linear(x, up.weight, up.bias))
        expert = self.expert(x)
        parts = [neurons[expert == number] for number in range(max(config.experts, 1))]
        self.load = tuple(len(part) / len(x) for part in parts)
        matters = torch.stack([part.var(0) for part in parts]) * down.weight.square().sum(0)
        # A neuron is shared for how much it matters where it matters least.
        everywhere = (matters / matters.sum(1, keepdim=True)).amin(0)
        shared = everywhere.topk(config.shared_experts * config.neurons).indices
        groups, biases = [shared], [torch.zeros_like(down.bias)]
        for part, values in zip(parts, matters, strict=True):
            own = values.index_fill(0, shared, -1).topk(config.neurons if config.experts else 0).indices
            left = torch.ones_like(values).index_fill(0, torch.cat([shared, own]), 0)
            groups.append(own)
            biases.append(down.bias + down.weight @ (part.mean(0) * left))
        if not config.experts:
            groups, biases = groups[:1], biases[1:]
        self.weights = [
            torch.nn.Parameter(value.clone())
            for group, bias in zip(groups, biases, strict=True)
            for value in (up.weight[group], up.bias[group], down.weight[:, group], bias)
        ]
        self._activation = inner.activation

    def expert(self, x: Tensor) -> Tensor:
        """Return the expert of each token, int64 (n,)."""
        return (x @ self.router.T).argmax(1) if len(self.router) else torch.zeros(len(x), dtype=torch.long)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return what the layer adds to x (n, hidden)."""
        shared, *experts = (self.weights[at : at + 4] for at in range(0, len(self.weights), 4))
        y = self._one(x, *shared)
        if not experts:
            return y
        chosen = self.expert(x)
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=len(experts)).tolist()
        parts = zip(torch.split(x[order], counts), experts, strict=True)
        return y + torch.cat([self._one(part, *weights) for part, weights in parts])[order.argsort()]

    def _one(self, x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor) -> Tensor:
        found: Tensor = F.linear(self._activation(F.linear(x, up, up_bias)), down, down_bias)
        return found

    def output(self, x: Tensor, layer: Layer) -> Tensor:
        """Return the states after the layer, (n, hidden)."""
        return torch.cat([layer.feed_forward_norm(part + self.feed_forward(part)) for part in torch.split(x, BLOCK)])

    def train(self, inputs: _Inputs, layer: Layer, config: CarveConfig) -> None:
        """Learn to give what is wanted."""
        optimiser = torch.optim.Adam(self.weights, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: decay(step, config.steps))
        generator = torch.Generator().manual_seed(config.seed)
        for _ in range(config.steps):
            rows = torch.randint(len(inputs.x), (config.tokens,), generator=generator)
            x = inputs.x[rows]
            given = layer.feed_forward_norm(x + self.feed_forward(x))
            loss = (given - inputs.wanted[rows]).square().sum(1).mean()
            gradients = torch.autograd.grad(loss, self.weights)
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = gradient
            optimiser.step()
            schedule.step()

    def put_into(self, feed_forward: Any) -> None:
        """Copy the weights into a layer of the network."""
        shared, *experts = (self.weights[at : at + 4] for at in range(0, len(self.weights), 4))
        if isinstance(feed_forward, MoELayer):
            layer = feed_forward
            targets = [layer.shared_up_proj, layer.shared_up_bias, layer.shared_down_proj, layer.shared_down_bias]
            for number, weights in enumerate(experts):
                own = layer.up_proj, layer.up_bias, layer.down_proj, layer.down_bias
                for target, value in zip(own, weights, strict=True):
                    target[number].copy_(value)
            layer.router.copy_(self.router)
        else:
            up, down = feed_forward.up, feed_forward.down
            targets = [up.weight, up.bias, down.weight, down.bias]
        for target, value in zip(targets, shared, strict=True):
            target.copy_(value)


def decay(step: int, steps: int) -> float:
    """Return the learning rate's factor: a short rise, then half a cosine."""
    return min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))


def _centres(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Return the centres (clusters, hidden), of unit length, of tokens (n, hidden): spherical k-means."""
    points = F.normalize(x, dim=-1)
    centres = points[torch.randperm(len(points), generator=generator)[:clusters]]
    least = LEAST_SHARE * len(points) / max(clusters, 1)
    for _ in range(ROUNDS if clusters else 0):
        found = (points @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add(0, found, points)
        for small in (torch.bincount(found, minlength=clusters) < least).nonzero().flatten().tolist():
            sums[small] = points[int(torch.randint(len(points), (1,), generator=generator))]
        centres = F.normalize(sums, dim=-1)
    return centres
