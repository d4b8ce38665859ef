"""A router that is decided from the start: its rows are the centres of the hidden states that it will see."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cluster_rows"]

ENTROPY_SHARE = 0.4
"""Mean entropy of a token's probabilities, as a share of the most that so many experts allow: about 1.6 of 4 bits."""
ROUNDS = 15
HALVINGS = 40
LARGEST_SCALE = 1e4


def cluster_rows(hidden: Tensor, experts: int, seed: int) -> Tensor:
    """Return router rows (experts, hidden) that send alike hidden states (n, hidden) to the same expert.

    The rows are centres by spherical k-means of the states less their mean, so that each expert begins with a region of
    its own (Gururangan et al. 2023, "Scaling Expert Language Models with Unsupervised Domain Discovery", there of
    documents). They are scaled until the probabilities have ENTROPY_SHARE of the largest entropy.
    """
    import faiss

    hidden = hidden.float()
    mean = hidden.mean(0)
    states = torch.nn.functional.normalize(hidden - mean, dim=-1).cpu().numpy()
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(states)}  # all, and without a warning
    clusters = faiss.Kmeans(states.shape[1], experts, niter=ROUNDS, spherical=True, seed=seed + 1, **limits)
    clusters.train(states)
    rows = torch.from_numpy(clusters.centroids).to(hidden.device)
    # What a centre has of the mean would make its expert every token's a little more, or a little less.
    rows = rows - torch.outer(rows @ mean / (mean @ mean), mean)
    logits = hidden @ rows.T
    low, high = 1 / LARGEST_SCALE, LARGEST_SCALE
    for _ in range(HALVINGS):
        scale = math.sqrt(low * high)
        if _entropy(logits * scale) > ENTROPY_SHARE * math.log2(experts):
            low = scale
        else:
            high = scale
    return rows * high


def _entropy(logits: Tensor) -> float:
    """Return the mean entropy in bits of the distributions (n, experts)."""
    shares = logits.softmax(-1)
    return float(-(shares * shares.clamp_min(1e-12).log2()).sum(-1).mean())
