"""How many parameters a network has, and how many of them one token meets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.types import Parameters

if TYPE_CHECKING:
    from retriever.network.model import RetrieverConfig

__all__ = ["count_parameters"]


def count_parameters(config: RetrieverConfig) -> Parameters:
    """Count from the configuration, without weights: a quantised head holds other numbers than it stands for."""
    import torch

    from retriever.network.model import RetrieverModel
    from retriever.network.moe import MoELayer

    with torch.device("meta"):
        model = RetrieverModel(config)
    total = sum(value.numel() for value in model.parameters())
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
    idle = sum(
        value.numel() * (layer.shape.routed - layer.shape.active) // layer.shape.routed
        for layer in layers
        for value in (layer.up_proj, layer.up_bias, layer.down_proj, layer.down_bias)
    )
    if config.vocabulary_experts:  # clusters have about equal sizes; the embeddings looked up are a row
        reached = config.vocabulary_experts_per_token / config.vocabulary_experts
        idle += round(model.embeddings.word.weight.numel() * (1 - reached))
    return Parameters(total - idle, total)
