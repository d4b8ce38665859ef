"""The sparsely activated feed-forward layer: router, experts, and the losses that are functions of the routing.

A token is sent to `experts_per_token` of the routed experts and to every shared expert (Shazeer et al. 2017;
Fedus et al. 2021; Dai et al. 2024). Nothing is ever dropped and no expert has a capacity, so the output of a token
depends on that token alone, never on its neighbours in the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from retriever.network.matmul import ROWS, linear

__all__ = ["ExpertShape", "MoELayer", "Routing", "feed_forward", "load_balancing_loss", "router_z_loss"]


class Routing(NamedTuple):
    """Where each of n tokens went; auxiliary losses and reports are functions of it.

    expert_ids: int64 (n, active); weights: float32 (n, active), what each choice is multiplied by;
    logits: float32 (n, routed); mask: bool (n,), False for padding.
    """

    expert_ids: Tensor
    weights: Tensor
    logits: Tensor
    mask: Tensor


class ExpertShape(NamedTuple):
    """The sizes of one MoE layer, in fine-grained experts (Krajewski et al. 2024).

    routed, shared: how many experts; active: routed experts per token; intermediate: neurons of one expert.
    """

    routed: int
    shared: int
    active: int
    hidden: int
    intermediate: int


def feed_forward(
    x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, activation: nn.Module
) -> Tensor:
    """Return the outputs (n, hidden) of one expert for tokens (n, hidden)."""
    if torch.is_grad_enabled() or x.shape[0] <= ROWS:
        return linear(activation(linear(x, up, up_bias)), down, down_bias)
    return torch.cat([linear(activation(linear(part, up, up_bias)), down, down_bias) for part in torch.split(x, ROWS)])


class MoELayer(nn.Module):
    """A feed-forward layer of experts.

    y = routed_scale * sum over the chosen experts of weight_e * FFN_e(x) + sum over the shared experts of FFN_s(x)

    Experts are 3-D parameters (expert, out, in), the layout of transformers' expert back ends. The router works in
    float32: softmax over all experts, then the best `active`, renormalised to sum to one (He et al. 2024, "Upcycling
    Large Language Models into Mixture of Experts", found this order better than top-k first).
    """

    def __init__(self, shape: ExpertShape, activation: nn.Module, routed_scale: float = 1.0) -> None:
        super().__init__()
        routed, shared, active, hidden, inner = shape
        if not 1 <= active <= routed:
            raise ValueError(f"experts_per_token gives {active} active experts, allowed are 1 to {routed}")
        self.shape = shape
        self.routed_scale = routed_scale
        self.activation = activation
        self.router = nn.Parameter(torch.zeros(routed, hidden))
        self.up_proj = nn.Parameter(torch.zeros(routed, inner, hidden))
        self.up_bias = nn.Parameter(torch.zeros(routed, inner))
        self.down_proj = nn.Parameter(torch.zeros(routed, hidden, inner))
        self.down_bias = nn.Parameter(torch.zeros(routed, hidden))
        # Shared experts see every token, so that together they are one feed-forward layer of shared * inner neurons.
        self.shared_up_proj = nn.Parameter(torch.zeros(shared * inner, hidden))
        self.shared_up_bias = nn.Parameter(torch.zeros(shared * inner))
        self.shared_down_proj = nn.Parameter(torch.zeros(hidden, shared * inner))
        self.shared_down_bias = nn.Parameter(torch.zeros(hidden))

    def route(self, x: Tensor, mask: Tensor | None = None) -> Routing:
        """Choose experts for tokens (n, hidden); mask (n,) marks the real ones."""
        logits = linear(x.float(), self.router.float())  # (n, routed)
        # The best logits are the best probabilities; a stable sort of them breaks ties by expert number, so that a
        # token torn between two copies of the parent takes one of them whole, not slices of both.
        best, expert_ids = logits.sort(dim=-1, descending=True, stable=True)
        expert_ids = expert_ids[:, : self.shape.active]  # (n, active)
        weights = best[:, : self.shape.active].softmax(-1)  # softmax over all, renormalised over the chosen
        if mask is None:
            mask = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        return Routing(expert_ids, weights, logits, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Routing]:
        """Return (n, hidden) outputs and the routing of tokens (n, hidden)."""
        routing = self.route(x, mask)
        y = self._routed(x, routing)
        if self.shape.shared:
            shared = self.shared_up_proj, self.shared_up_bias, self.shared_down_proj, self.shared_down_bias
            y = y + feed_forward(x, *shared, self.activation)
        return y, routing

    def _routed(self, x: Tensor, routing: Routing) -> Tensor:
        """Sort the (token, choice) pairs by expert, so that each expert is one pair of matrix products."""
        flat_ids = routing.expert_ids.flatten()  # (n * active,)
        order = flat_ids.argsort(stable=True)
        # Not x[...]: several threads would add up the gradient of a token's choices in any order.
        rows = F.embedding(order // self.shape.active, x)  # (n * active, hidden), grouped by expert
        counts = torch.bincount(flat_ids, minlength=self.shape.routed)
        if x.device.type == "cuda" and not torch.is_grad_enabled() and x.dtype in (torch.bfloat16, torch.float16):
            out = self.grouped(rows, counts)
        else:
            out = self._one_by_one(rows, counts)
        out = out[order.argsort()]  # back to (token, choice) order
        out = out.view(*routing.expert_ids.shape, x.shape[-1])  # (n, active, hidden)
        weights = (self.routed_scale * routing.weights).to(x.dtype)
        return (weights.unsqueeze(-1) * out).sum(1)

    def _one_by_one(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return the experts' outputs for rows (n, hidden) sorted by expert, `counts` (routed,) of them for each."""
        parts = [rows[:0]]  # something to join where there are no tokens
        # Taken apart at once: a gradient through an index of one expert would fill zeros for all the others, each time.
        weights = (self.up_proj, self.up_bias, self.down_proj, self.down_bias)
        experts = zip(*(weight.unbind() for weight in weights), strict=True)
        for part, (up, up_bias, down, down_bias) in zip(torch.split(rows, counts.tolist()), experts, strict=True):
            if part.shape[0]:
                parts.append(feed_forward(part, up, up_bias, down, down_bias, self.activation))
        return torch.cat(parts)

    def grouped(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Return what `_one_by_one` does with one grouped product for all experts: fewer, larger steps for a GPU."""
        ends = counts.cumsum(0, dtype=torch.int32)
        expert = torch.repeat_interleave(counts)  # (n,)
        up = F.grouped_mm(rows, self.up_proj.transpose(1, 2), offs=ends) + self.up_bias[expert]
        return F.grouped_mm(self.activation(up), self.down_proj.transpose(1, 2), offs=ends) + self.down_bias[expert]


def load_balancing_loss(routing: Routing) -> Tensor:
    """Return E * sum_e f_e P_e, 1 when tokens spread evenly (Fedus et al. 2021, equation 4, for any number of choices).

    f_e is the share of the (token, choice) pairs that went to expert e, P_e its mean router probability; padding is
    left out.
    """
    experts = routing.logits.shape[-1]
    chosen = F.one_hot(routing.expert_ids[routing.mask], experts).float()  # (n, active, experts)
    share = chosen.mean((0, 1))
    probability = routing.logits[routing.mask].softmax(-1).mean(0)
    return experts * (share * probability).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Return the mean over real tokens of logsumexp(logits)^2: it keeps logits small (Zoph et al. 2022, eq. 5)."""
    return routing.logits[routing.mask].logsumexp(-1).square().mean()
