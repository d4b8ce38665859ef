"""What to watch of a training run: means of the losses, how sparse the sparse view is, how the experts are used."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from retriever.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from retriever.train.objective import Outcome

__all__ = ["Figures"]

FEWEST_TERMS = 1
MOST_TERMS = 0.25
"""Expanded terms of a mean document, the larger a share of the vocabulary, outside which the sparse view is useless."""
SATURATED = 0.5
"""A term that this share of the passages has tells them apart no more."""


class Figures:
    """Adds up the outcomes of steps; nothing leaves the device before `collect`."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, int] = defaultdict(int)
        self._seen: Tensor | None = None
        self._active: Tensor | None = None
        self._loads: list[Tensor] = []

    def add(self, outcome: Outcome) -> None:
        """Take in one step."""
        for name, value in (outcome.losses | outcome.figures).items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
            self._steps[name] += 1  # not every batch has a teacher's scores
        self._seen = outcome.seen if self._seen is None else self._seen + outcome.seen
        self._active = outcome.active if self._active is None else self._active + outcome.active
        loads = [torch.bincount(r.expert_ids.flatten(), minlength=r.logits.shape[-1]) for r in outcome.routings]
        self._loads = [old + new for old, new in zip(self._loads, loads, strict=True)] if self._loads else loads

    def collect(self) -> dict[str, float]:
        """Return the figures since the last call, none without a step, and begin anew.

        dead_terms, saturated_terms: shares of the terms that were looked at, no passage and more than half of the
        passages having them. expert_load_max_i, expert_entropy_i: of MoE layer i, the sparse head's last; 1 / experts
        and 1 are even. dropped_tokens: 0 by construction, experts have no capacity.

        Raises:
            UserError: a loss is not finite, or the sparse view has collapsed.
        """
        if self._seen is None or self._active is None:
            return {}
        figures = {name: round(float(value) / self._steps[name], 4) for name, value in self._sums.items()}
        _refuse_collapse(figures, len(self._seen))
        share = self._active[self._seen > 0] / self._seen[self._seen > 0]
        figures["dead_terms"] = round(float((share == 0).float().mean()), 4)
        figures["saturated_terms"] = round(float((share > SATURATED).float().mean()), 4)
        for layer, load in enumerate(self._loads):
            shares = (load / load.sum()).tolist()
            entropy = -sum(part * math.log(part) for part in shares if part) / math.log(max(len(shares), 2))
            figures[f"expert_load_max_{layer}"] = round(max(shares), 4)
            figures[f"expert_entropy_{layer}"] = round(entropy, 4)
        figures["dropped_tokens"] = 0
        self._clear()
        return figures


def _refuse_collapse(figures: dict[str, float], vocab_size: int) -> None:
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(
            f"the run diverged: {', '.join(wrong)} not finite; lower the learning rates, or use precision: float32"
        )
    terms, most = figures["document_terms"], MOST_TERMS * vocab_size
    if not FEWEST_TERMS <= terms <= most:
        remedy = "lower" if terms < FEWEST_TERMS else "raise"
        raise UserError(
            f"the sparse view collapsed: {terms:.1f} expanded terms a document, sensible are {FEWEST_TERMS} to "
            f"{most:.0f}; {remedy} losses.flops_document, or lower the learning rates"
        )
