"""transformers' Trainer for our objective: weights of the losses by step, rates by kind of parameter, figures."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from retriever.train.figures import Figures
from retriever.train.losses import quadratic_warmup

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retriever.train.objective import Batch, Outcome
    from retriever.train.settings import TrainConfig

__all__ = ["ObjectiveTrainer", "loss_weights", "parameter_groups"]

WEIGHT_DECAY = 0.01


class ObjectiveTrainer(Trainer):
    """Weighs the parts of the loss by the step, and groups the parameters by how fast they may learn."""

    def __init__(self, config: TrainConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._settings = config
        self._figures = Figures()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the weighted sum of the parts."""
        batch: Batch = inputs["batch"]
        outcome: Outcome = model(batch, self.state.global_step)
        weights = loss_weights(self._settings, self.state.global_step)
        loss = torch.stack([weights[name] * part for name, part in outcome.losses.items() if weights[name]]).sum()
        self._figures.add(outcome)
        return (loss, outcome) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the figures since the last line."""
        if "loss" in logs:
            logs = logs | self._figures.collect()
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, model: Any = None) -> Any:
        """Give each kind of parameter its learning rate."""
        if self.optimizer is None:
            config = self._settings
            rates = {
                "trunk": config.learning_rate,
                "experts": config.expert_learning_rate,
                "head": config.head_learning_rate,
                "terms": config.term_learning_rate,
            }
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": values, "lr": rates[kind], "weight_decay": 0.0 if kind == "terms" else WEIGHT_DECAY}
                    for kind, values in parameter_groups(self.model).items()
                ],
                betas=(0.9, 0.98),
            )
        return self.optimizer


def loss_weights(config: TrainConfig, step: int) -> dict[str, float]:
    """Return what each part of the loss counts at a step."""
    losses = config.losses
    warm = quadratic_warmup(step, losses.flops_warmup)
    left = 1 - step / config.steps
    return {
        "contrastive_dense": losses.contrastive_dense,
        "contrastive_lexical": losses.contrastive,
        "contrastive_encoder": losses.contrastive,
        "contrastive_fused": losses.contrastive,
        "distillation_dense": losses.fused_distillation * losses.contrastive_dense,
        "distillation_lexical": losses.fused_distillation,
        "distillation_encoder": losses.fused_distillation,
        "dense_distillation_lexical": losses.dense_distillation,
        "dense_distillation_encoder": losses.dense_distillation,
        "anchor": losses.anchor,
        "matryoshka": losses.matryoshka,
        "teacher": losses.teacher,
        "margin": losses.margin,
        "flops_query": losses.flops_query * warm,
        "flops_document": losses.flops_document * warm,
        "load_balancing": losses.load_balancing * left,
        "router_z": losses.router_z * left,
    }


def parameter_groups(objective: Any) -> dict[str, list[Tensor]]:
    """Return the parameters of a module that learn, by kind: "trunk", "experts" (of the trunk), "head" and "terms"."""
    groups: dict[str, list[Tensor]] = defaultdict(list)
    for name, value in objective.named_parameters():
        if value.requires_grad:
            groups[_kind(name)].append(value)
    return groups


def _kind(name: str) -> str:
    """Name the group of a parameter."""
    if "lexical." in name or name.endswith(("sparse_head.scale", "sparse_head.bias", "log_sparse_scale")):
        return "terms"
    if "sparse_head." in name:
        return "head"
    return "experts" if name.endswith(("_proj", "_bias", "router")) else "trunk"
