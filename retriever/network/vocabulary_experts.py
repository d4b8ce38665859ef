"""Vocabulary experts: the sparse head's decoder cut into clusters of terms, of which each token computes a few.

The product with the vocabulary is the largest of the network, and a text keeps a few hundred terms of it. So the
decoder's rows are the experts of a Mixture-of-Experts layer: a router scores the clusters for each token, which
computes the best of them, the cluster of its own term always among them. Nothing is dropped and no cluster
is ever full, so what a token computes depends on that token and the length of its text alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from retriever.network.matmul import linear
from retriever.network.packing import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.network.reach import Reach

__all__ = ["VocabularyExperts", "best_of_clusters", "terms_by_cluster"]

WIDTH_STEP = 64
"""All clusters are multiplied at one width, a multiple of it: oneDNN keeps a kernel for each."""


class VocabularyExperts(nn.Module):
    """Which terms a token computes.

    cluster: int32 (vocab,) the cluster of each term, -1 for terms that never count. Scores of clusters are
    router h + router_bias, router (clusters, hidden), for the states h that the decoder multiplies. limits: how many
    clusters a token computes.
    """

    cluster: Tensor

    def __init__(self, vocabulary: int, hidden: int, clusters: int, limits: Reach) -> None:
        super().__init__()
        self.limits = limits
        self.router = nn.Parameter(torch.zeros(clusters, hidden))
        self.router_bias = nn.Parameter(torch.zeros(clusters))
        self.register_buffer("cluster", torch.arange(vocabulary, dtype=torch.int32) % clusters)

    def reach(self, h: Tensor, token_ids: Tensor, groups: Sequence[Group]) -> Tensor:
        """Return which clusters tokens h (n, hidden) of terms token_ids (n,) compute, bool (n, clusters).

        Of equal scores the first cluster's is the better one.
        """
        scores = linear(h.float(), self.router.float(), self.router_bias.float())
        own = self.cluster[token_ids].long().unsqueeze(1)  # (n, 1)
        scores = scores.scatter(
            1, own.clamp_min(0), torch.where(own >= 0, torch.inf, scores.gather(1, own.clamp_min(0)))
        )
        lengths = np.array([group.length for group in groups], np.int64)
        counts = self.limits.clusters(lengths, len(self.router)).repeat(
            [group.count * group.length for group in groups]
        )
        order = scores.sort(dim=1, descending=True, stable=True).indices
        chosen = torch.arange(order.shape[1], device=h.device) < torch.from_numpy(counts).to(h.device).unsqueeze(1)
        return torch.zeros_like(chosen).scatter(1, order, chosen)


class Best(NamedTuple):
    """For each text and term the largest logit over the tokens that compute the term, and which token has it.

    logits: float32 (texts, terms), -inf where no token computes the term; tokens: int64 (texts, terms), from the
    text's first one on.
    """

    logits: Tensor
    tokens: Tensor


def terms_by_cluster(cluster: Tensor, clusters: int) -> tuple[Tensor, ...]:
    """Return the places of each cluster's terms, int64, for the clusters (terms,) of some terms."""
    counted = cluster >= 0
    places = counted.nonzero().flatten()[cluster[counted].argsort(stable=True)]
    return torch.split(places, torch.bincount(cluster[counted], minlength=clusters).tolist())


def best_of_clusters(
    h: Tensor, group: Group, *, word_embeddings: Tensor, reach: Tensor, terms: tuple[Tensor, ...]
) -> Best:
    """Return what the texts of `group` have, for word_embeddings (terms, hidden) and the clusters that tokens reach.

    reach: of all tokens (n_tokens, clusters), as h. terms: `terms_by_cluster`.
    """
    h, reach = h[group.start : group.stop], reach[group.start : group.stop]
    shape = group.count, len(word_embeddings)
    best = Best(
        h.new_full(shape, -torch.inf, dtype=torch.float32), torch.zeros(shape, dtype=torch.long, device=h.device)
    )
    widest = max(map(len, terms))
    widest += -widest % WIDTH_STEP
    for number, places in enumerate(terms):
        tokens = reach[:, number].nonzero().flatten()
        if not len(tokens) or not len(places):
            continue
        rows = F.pad(word_embeddings[places], (0, 0, 0, widest - len(places)))
        logits = h.new_full((len(h), len(places)), -torch.inf)
        logits[tokens] = linear(h[tokens], rows)[:, : len(places)]
        found = logits.view(group.count, group.length, -1).max(1)
        best.logits[:, places] = found.values.float()
        best.tokens[:, places] = found.indices
    return best
