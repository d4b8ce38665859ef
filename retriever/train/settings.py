"""The settings of a training run, as a YAML file in configs/train/ gives them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retriever.config import from_mapping, load_yaml
from retriever.network.checkpoint import STORAGE
from retriever.train.data.examples import SourceConfig
from retriever.types import UserError

__all__ = ["LossWeights", "TrainConfig", "load_train_config"]

PRECISIONS = ("float32", "bfloat16")
ROUTERS = ("random", "kmeans")
AT_LEAST = {
    "steps": 1,
    "batch": 1,
    "topic_window": 0,
    "negatives": 0,
    "query_tokens": 3,
    "document_tokens": 3,
    "learning_rate": 0,
    "expert_learning_rate": 0,
    "head_learning_rate": 0,
    "term_learning_rate": 0,
    "warmup_steps": 0,
    "frozen_layers": 0,
    "dense_scale": 0,
    "teacher_scale": 0,
    "seed": 0,
    "log_every": 1,
    "save_every": 1,
}


@dataclass(frozen=True)
class LossWeights:
    """What each part of the loss counts; 0 leaves it out.

    contrastive: InfoNCE of the dense, the lexical-query, the encoder-query and the fused score, each;
    fused_distillation: KL from the fused score to each view; dense_distillation: KL from the dense score to each sparse
    one; teacher: KL from the scores in the data to the fused score; margin: MarginMSE, the same; anchor: 1 - cosine to
    the parent's vectors; matryoshka: InfoNCE of prefixes;
    flops_query, flops_document: on the expansions, reached by a quadratic warm-up over `flops_warmup` steps;
    load_balancing, router_z: fade linearly to 0 over the run.
    """

    contrastive: float = 1.0
    contrastive_dense: float = 0.1
    fused_distillation: float = 0.5
    dense_distillation: float = 0.0
    teacher: float = 0.0
    margin: float = 0.0
    anchor: float = 20.0
    matryoshka: float = 0.0
    flops_query: float = 0.05
    flops_document: float = 0.05
    flops_warmup: int = 200
    load_balancing: float = 0.01
    router_z: float = 0.001

    def __post_init__(self) -> None:
        """Refuse weights below 0."""
        for name, value in vars(self).items():
            if value < 0:
                raise UserError(f"losses.{name} is {value}, allowed is 0 or more")


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    base: an encoder folder to train, or a checkpoint that `upcycle` turns into one first. sources: files of pairs with
    their weights. batch: queries per step and process; topic_window: of so many examples those that are alike share a
    batch, 0 for any order; negatives: of each query, at most; query_tokens, document_tokens: longer texts are cut in
    training. learning_rate: of the trunk; expert_learning_rate: of its experts and routers; head_learning_rate: of the
    sparse head; term_learning_rate: of the values per term and the scalars.
    head_router: how the router of the sparse head's experts begins, "random" or "kmeans", decided by clusters of the
    hidden states of the first batches.
    frozen_layers: the trunk's first layers that are not trained (the embeddings never are). With all of them frozen,
    what the trunk says of a text is computed once and stored in the folder `states` (OUTPUT.run/states unless named, so
    that several runs can share it): later passes over the data are about ten times as fast.
    trained_share: the weights that are written are this share of the trained ones and the rest of those at the start,
    which generalises better than either (WiSE-FT, Wortsman et al. 2022).
    dense_scale: inverse temperature of the cosines. teacher_scale: what the scores in the data are multiplied by; as
    they are, those from 0 to 1 ask for candidates that are nearly alike, and draw the dense view together.
    precision: "float32" or "bfloat16" (autocast).
    """

    base: str
    output: str
    sources: tuple[SourceConfig, ...]
    upcycle: dict[str, Any] = field(default_factory=dict)
    losses: LossWeights = field(default_factory=LossWeights)
    steps: int = 1000
    batch: int = 24
    topic_window: int = 2048
    negatives: int = 1
    query_tokens: int = 64
    document_tokens: int = 256
    learning_rate: float = 2e-5
    expert_learning_rate: float = 1e-4
    head_learning_rate: float = 5e-4
    term_learning_rate: float = 5e-3
    warmup_steps: int = 50
    head_router: str = "random"
    frozen_layers: int = 0
    states: str = ""
    dense_scale: float = 20.0
    teacher_scale: float = 1.0
    matryoshka_dims: tuple[int, ...] = (192, 96)
    precision: str = "bfloat16"
    seed: int = 0
    log_every: int = 10
    save_every: int = 200
    trained_share: float = 1.0
    storage: str = "int8"

    def __post_init__(self) -> None:
        """Refuse what would only be noticed in the middle of a run."""
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}, allowed is {least} or more")
        for name, choices in (("precision", PRECISIONS), ("storage", STORAGE), ("head_router", ROUTERS)):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} is {getattr(self, name)!r}, allowed are {', '.join(choices)}")
        if not 0 < self.trained_share <= 1:
            raise UserError(f"trained_share is {self.trained_share}, allowed is above 0 to 1")
        if any(dim < 1 for dim in self.matryoshka_dims) or (self.losses.matryoshka and not self.matryoshka_dims):
            raise UserError(f"matryoshka_dims are {list(self.matryoshka_dims)}, need one length or more, each above 0")


def load_train_config(path: str | Path, **overrides: Any) -> TrainConfig:
    """Read a configuration, overridden by those `overrides` that are not None.

    `like: FILE`, beside the file, has the settings that the file does not name; a setting is taken as a whole.
    ${NAME} in a path is the environment's variable, ~ the home folder; relative paths are relative to the working
    directory, as those of the command line are.

    Raises:
        UserError: the file cannot be read, or a setting is unknown, missing or impossible.
    """
    values = load_yaml(path)
    if "like" in values:
        like = values.pop("like")
        if not isinstance(like, str):
            raise UserError(f"{path}: like is {like!r}, need the name of a file beside it")
        above = load_yaml(Path(path).parent / like)
        if "like" in above:
            raise UserError(f"{path}: {like} is itself like {above['like']}; name that one")
        values = above | values
    values |= {name: value for name, value in overrides.items() if value is not None}
    source = str(path)
    for name in ("base", "output", "sources"):
        if name not in values:
            raise UserError(f"{source}: {name} is missing; a training run needs base, output and sources")
    if not isinstance(values["sources"], list) or not values["sources"]:
        raise UserError(f"{source}: sources must be a list of {{path: FILE, weight: NUMBER}}")
    items = [_with_paths(_mapping(item, f"{source}: sources"), ("path",), source) for item in values.pop("sources")]
    if any("path" not in item for item in items):
        raise UserError(f"{source}: a source has no path; each is {{path: FILE, weight: NUMBER}}")
    sources = tuple(from_mapping(SourceConfig, item, source) for item in items)
    losses = from_mapping(LossWeights, _mapping(values.pop("losses", {}), f"{source}: losses"), f"{source}: losses")
    upcycle = _mapping(values.pop("upcycle", {}), f"{source}: upcycle")
    values = _with_paths(values, ("base", "output", "states"), source)
    return from_mapping(TrainConfig, values | {"sources": sources, "losses": losses, "upcycle": upcycle}, source)


def _with_paths(values: dict[str, Any], names: tuple[str, ...], source: str) -> dict[str, Any]:
    """Return the values with environment variables and ~ replaced in the paths called `names`."""
    found = {name: _expanded(values[name], source) for name in names if isinstance(values.get(name), str)}
    return values | found


def _expanded(path: str, source: str) -> str:
    expanded = os.path.expandvars(path)
    if expanded.startswith("~"):
        expanded = str(Path(expanded).expanduser())
    unset = re.search(r"\$\{(\w+)\}", expanded)
    if unset:
        raise UserError(f"{source}: {path}: the environment variable {unset[1]} is not set; set it, or write the path")
    return expanded


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{source}: found {value!r}, need a mapping of settings to values")
    return value
