"""The training losses: pure functions of scores, weights and vectors, each with its paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "anchor_loss",
    "contrastive_loss",
    "flops_loss",
    "listwise_distillation",
    "margin_mse",
    "matryoshka_loss",
    "quadratic_warmup",
]

EXCLUDED = -1e4
"""The logit of a candidate that does not count; finite, so that no gradient becomes nan."""


def contrastive_loss(scores: Tensor, targets: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Return InfoNCE, the mean over queries of -log softmax(scores)[target] (van den Oord et al. 2018; DPR 2020).

    scores: (queries, candidates), the temperature already in them; targets: int64 (queries,), the column of each
    query's positive; excluded: bool (queries, candidates), True for candidates that may be positives, too.
    """
    if excluded is not None:
        scores = scores.masked_fill(excluded, EXCLUDED)
    return F.cross_entropy(scores, targets)


def listwise_distillation(scores: Tensor, teacher: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Return KL(softmax(teacher) || softmax(scores)), the mean over queries (Hofstätter et al. 2020; BGE-M3, 2024).

    scores, teacher: (queries, candidates), each with its temperature in it. The teacher gets no gradient.
    """
    if excluded is not None:
        scores, teacher = scores.masked_fill(excluded, EXCLUDED), teacher.masked_fill(excluded, EXCLUDED)
    return F.kl_div(scores.log_softmax(-1), teacher.detach().log_softmax(-1), reduction="batchmean", log_target=True)


def margin_mse(
    positive: Tensor,
    negatives: Tensor,
    teacher_positive: Tensor,
    teacher_negatives: Tensor,
    excluded: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error of the margins positive - negative (Hofstätter et al. 2020, "Margin-MSE").

    positive, teacher_positive: (queries,); negatives, teacher_negatives: (queries, negatives); excluded: bool
    (queries, negatives), True for negatives that do not count, at least one of which must be False.
    """
    margins = positive.unsqueeze(1) - negatives
    wanted = (teacher_positive.unsqueeze(1) - teacher_negatives).detach()
    if excluded is not None:
        margins, wanted = margins[~excluded], wanted[~excluded]
    return F.mse_loss(margins, wanted)


def anchor_loss(vectors: Tensor, parent: Tensor) -> Tensor:
    """Return the mean of 1 - cosine of unit vectors (n, dim) to the parent's: the dense view stays where it was.

    Embedding distillation (Reimers and Gurevych 2020) with the parent as its teacher.
    """
    return 1 - (vectors * parent.detach()).sum(-1).mean()


def flops_loss(weights: Tensor, times: Tensor | None = None) -> Tensor:
    """Return the sum over terms of the squared mean weight (Paria et al. 2020; SPLADE, Formal et al. 2021).

    weights: (texts, terms), >= 0; times: (terms,), how many terms each column stands for where they are a sample. In a
    distributed run the mean is over the texts of all processes, whose columns must be the same: their average is what a
    term costs in the index, and the mean of squares would not be.
    """
    mean = weights.mean(0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Each process has equally many texts of a kind, so the mean of means is the mean. Its gradient with respect to
        # the process's own mean is that of the one loss once the processes' gradients are averaged.
        total = mean.detach().clone()
        torch.distributed.all_reduce(total)
        mean = mean + (total / torch.distributed.get_world_size() - mean).detach()
    return (mean.square() if times is None else mean.square() * times).sum()


def matryoshka_loss(
    queries: Tensor,
    documents: Tensor,
    targets: Tensor,
    dims: Sequence[int],
    scale: float,
    excluded: Tensor | None = None,
) -> Tensor:
    """Return the mean InfoNCE of the prefixes of length `dims` of the dense vectors (Kusupati et al. 2022).

    queries: (queries, dim); documents: (candidates, dim); scale: the inverse temperature of the cosines.
    """
    losses = [
        contrastive_loss(
            scale * F.normalize(queries[:, :dim], dim=-1) @ F.normalize(documents[:, :dim], dim=-1).T, targets, excluded
        )
        for dim in dims
    ]
    return torch.stack(losses).mean()


def quadratic_warmup(step: int, steps: int) -> float:
    """Return min(1, (step / steps)^2), the schedule of the FLOPS weights (Paria et al. 2020); 1 for steps = 0.

    >>> quadratic_warmup(5, 10)
    0.25
    """
    return 1.0 if step >= steps else (step / steps) ** 2
