"""Fusion of whole runs, whatever made them: each is a leg, and every query is fused by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.search.fusion.fusion import product, reciprocal_rank_fusion, weighted_sum
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from retriever.types import Ranking, Run

__all__ = ["RUN_FUSIONS", "fuse_runs"]

RUN_FUSIONS: dict[str, tuple[Callable[..., Ranking], tuple[str, ...]]] = {
    "weighted-sum": (weighted_sum, ("normalisation", "missing")),
    "rrf": (reciprocal_rank_fusion, ("k", "rank_base")),
    "product": (product, ("missing",)),
}
"""The ways to fuse by name, each with the settings that it reads."""


def fuse_runs(
    runs: Sequence[Run],
    weights: Sequence[float] | None = None,
    *,
    method: str = "weighted-sum",
    top_k: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Fuse runs of the same queries; a run that lacks a query adds nothing to it.

    weights: one for each run, in their order; equal ones by default. settings: of the method, as its function has them.

    Raises:
        UserError: fewer than two runs, another number of weights, or a setting that the method does not read.
    """
    function, read = RUN_FUSIONS[method]
    if len(runs) < 2:
        raise UserError(f"found {len(runs)} run, need two or more to fuse; name another one")
    if weights is not None and len(weights) != len(runs):
        raise UserError(f"found {len(weights)} weights for {len(runs)} runs; give one for each, in their order")
    for name in settings or {}:
        if name not in read:
            raise UserError(f"{method} does not read {name}, only {' and '.join(read)}; leave it out")
    names = [f"run {number}" for number in range(1, len(runs) + 1)]
    share = None if weights is None else dict(zip(names, weights, strict=True))
    fused: dict[str, Ranking] = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        rankings = {name: run.get(query_id, []) for name, run in zip(names, runs, strict=True)}
        fused[query_id] = function(rankings, share, **(settings or {}))[:top_k]
    return fused
