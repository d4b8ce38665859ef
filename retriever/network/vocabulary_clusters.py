"""Give an encoder vocabulary experts: the clusters that its decoder's rows form, and their centres as a router.

A term's logit is scale * (row . h) + bias, so what is clustered is (scale * row, bias), by direction (spherical
k-means, Dhillon and Modha 2001); no cluster may have more than SLACK times its share of the terms. A centre is the
mean of its terms' directions, and its score for a token the mean of what they would score, but for their lengths.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor

from retriever.network.checkpoint import add_weights, read_settings
from retriever.network.folder import new_folder
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.network.model import RetrieverModel
    from retriever.network.reach import Reach

__all__ = ["VocabularyClusters", "cluster_points", "cluster_vocabulary", "save_with_clusters"]

SLACK = 1.1
ROUNDS = 10
EXPERTS = "sparse_head.vocabulary."


class VocabularyClusters(NamedTuple):
    """cluster: int32 (vocab,), -1 for terms that never count; router: float32 (clusters, hidden); bias: (clusters,)."""

    cluster: Tensor
    router: Tensor
    bias: Tensor


def cluster_vocabulary(model: RetrieverModel, clusters: int, *, seed: int = 0) -> VocabularyClusters:
    """Cluster the terms that may count by their decoder rows; the result depends on the seed alone.

    Raises UserError for fewer than one cluster, or more than there are terms.
    """
    head = model.sparse_head
    allowed = head.allowed.nonzero().flatten()
    if not 1 <= clusters <= len(allowed):
        raise UserError(f"--clusters is {clusters}, allowed are 1 to the number of terms ({len(allowed)})")
    with torch.no_grad():
        rows = model.embeddings.word.weight[allowed].float() * head.scale[allowed].float().unsqueeze(1)
        points = F.normalize(torch.cat([rows, head.bias[allowed].float().unsqueeze(1)], dim=1))  # (terms, hidden + 1)
        found, _ = cluster_points(points, clusters, seed=seed)
        counts = torch.bincount(found, minlength=clusters).clamp_min(1)
        means = torch.zeros(clusters, points.shape[1]).index_add(0, found, points) / counts.unsqueeze(1)
    cluster = torch.full((len(head.allowed),), -1, dtype=torch.int32)
    cluster[allowed] = found.int()
    return VocabularyClusters(cluster, means[:, :-1].contiguous(), means[:, -1].contiguous())


def cluster_points(
    points: Tensor, clusters: int, *, weights: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return a cluster for each of n unit vectors (n, dim), int64 (n,), and the centres, (clusters, dim) unit vectors.

    weights: (n,) how much each point counts for its centre. No cluster has more than SLACK times its share of points.
    """
    capacity = math.ceil(SLACK * len(points) / clusters)
    pulls = torch.ones(len(points)) if weights is None else weights
    start = torch.multinomial(pulls, clusters, generator=torch.Generator().manual_seed(seed))
    pulls, centres = points * pulls.unsqueeze(1), points[start]
    for _ in range(ROUNDS):
        found = _assigned(points @ centres.T, capacity)
        centres = F.normalize(torch.zeros_like(centres).index_add(0, found, pulls))
    return found, centres


def _assigned(similarity: Tensor, capacity: int) -> Tensor:
    """Return for each point, of its similarities (points, clusters), a cluster, int64 (points,), none over capacity.

    Points ask for their nearest clusters in turn, and a full one keeps those nearest to it: a stable matching (Gale and
    Shapley 1962).
    """
    points, clusters = similarity.shape
    wishes = similarity.argsort(dim=1, descending=True, stable=True)
    turn = torch.zeros(points, dtype=torch.long)
    everyone = torch.arange(points)
    while True:
        asked = wishes[everyone, turn]
        # Each cluster's candidates from the nearest on; those beyond its capacity ask elsewhere.
        order = similarity[everyone, asked].argsort(descending=True, stable=True)
        order = order[asked[order].argsort(stable=True)]
        counts = torch.bincount(asked, minlength=clusters)
        first = (counts.cumsum(0) - counts)[asked[order]]
        refused = order[torch.arange(points) - first >= capacity]
        if not len(refused):
            return asked
        turn[refused] += 1


def save_with_clusters(source: Path, found: VocabularyClusters, *, reach: Reach, output: str | Path) -> Path:
    """Write a copy of an encoder folder that has these vocabulary experts, its other weights as they are stored.

    Raises UserError if the output folder exists and is not empty, or for more clusters a token than there are.
    """
    clusters = len(found.router)
    if not 1 <= reach.per_token <= clusters:
        raise UserError(f"--per-token is {reach.per_token}, allowed are 1 to the number of clusters ({clusters})")
    settings = read_settings(source)
    with new_folder(output) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
        settings |= {"vocabulary_experts": clusters, "vocabulary_experts_per_token": reach.per_token}
        settings["vocabulary_experts_per_text"] = reach.per_text
        (part / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        values = {"cluster": found.cluster, "router": found.router, "router_bias": found.bias}
        add_weights(part, {EXPERTS + name: value for name, value in values.items()})
    return Path(output)
