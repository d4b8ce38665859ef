"""Distil an encoder of another trunk from its parent: every hidden state and the pooled vector, all layers together."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from retriever.network.packing import pack
from retriever.train.experts.carve import decay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retriever.network.model import RetrieverModel
    from retriever.network.packing import Packed

__all__ = ["distil"]

TOKENS = 3000
LEARNING_RATE = 1e-4
POOLED = 10.0
"""What the cosine of the pooled vectors counts for beside the hidden states."""
BUCKET = 512


def distil(
    model: RetrieverModel,
    parent: RetrieverModel,
    texts: Sequence[Sequence[int]],
    *,
    steps: int,
    seed: int = 0,
    done: Callable[[float, float], None] = lambda *_: None,
) -> None:
    """Train the layers of `model`, but for their routers, to give what those of `parent` give.

    texts: framed token ids. The loss is the squared error of each layer's states as a share of their variance, later
    layers counted more, and 1 - cosine of the pooled vectors. done: told the error and the cosine of each step.
    """
    model.requires_grad_(False)
    weights = [
        value.requires_grad_(True) for name, value in model.layers.named_parameters() if not name.endswith(".router")
    ]
    optimiser = torch.optim.Adam(weights, lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: decay(step, steps))
    layers = torch.arange(1, len(parent.layers) + 1)
    share = layers / layers.sum()
    batches = _batches(texts, random.Random(seed))
    for _ in range(steps):
        packed = next(batches)
        with torch.autocast(model.device.type, torch.bfloat16):
            with torch.no_grad():
                wanted = _states(parent, packed)
            found = _states(model, packed)
        errors = torch.stack([_error(*pair) for pair in zip(found, wanted, strict=True)])
        cosine = (model.pool(found[-1], packed) * parent.pool(wanted[-1], packed)).sum(1).mean()
        loss = (errors * share.to(errors.device)).sum() + POOLED * (1 - cosine)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        done(float((errors.detach() * share.to(errors.device)).sum()), float(cosine.detach()))
    model.requires_grad_(True)


def _error(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared error as a share of the variance."""
    wanted = wanted.float()
    return (found.float() - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()


def _states(model: RetrieverModel, packed: Packed) -> list[Tensor]:
    """Return the states (n, hidden) after each layer."""
    states = [model.embeddings(packed)]
    for layer in model.layers:
        states.append(layer(states[-1], packed.groups, None)[0])
    return states[1:]


def _batches(texts: Sequence[Sequence[int]], draw: random.Random) -> Iterator[Packed]:
    """Yield batches of about TOKENS tokens of texts of about one length, again and again, in random order."""
    while True:
        order = list(range(len(texts)))
        draw.shuffle(order)
        for first in range(0, len(order), BUCKET):
            batches: list[list[Sequence[int]]] = [[]]
            for text in sorted((texts[number] for number in order[first : first + BUCKET]), key=len):
                if batches[-1] and sum(map(len, batches[-1])) + len(text) > TOKENS:
                    batches.append([])
                batches[-1].append(text)
            draw.shuffle(batches)
            yield from map(pack, batches)
