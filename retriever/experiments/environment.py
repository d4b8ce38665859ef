"""What an evaluation ran on: versions, machine, memory, and the size of the encoders."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from retriever.encoder.moe_encoder import MoEEncoder
    from retriever.types import Encoder

__all__ = ["Parameters", "environment", "parameters", "peak_mib"]

PACKAGES = (
    "hybrid-retriever",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "pyserini",
    "ir-measures",
    "numba",
    "numpy",
    "scipy",
)


class Parameters(NamedTuple):
    """How many parameters an encoder has, and how many of them a token meets; None where they are not known."""

    active: int | None
    total: int | None


def environment() -> dict[str, str]:
    """Return versions of Python, packages and Java, the system and its processor, by name."""
    from retriever.index.lucene.jvm import java_version

    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return found | {
        "Java": java_version(),
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {cores} cores",
    }


def parameters(encoder: Encoder) -> Parameters:
    """Return the parameter counts of one of our own encoders, or of those that sentence-transformers runs."""
    from retriever.encoder.moe_encoder import MoEEncoder
    from retriever.encoder.sentence_transformers import SentenceTransformersEncoder

    if isinstance(encoder, MoEEncoder):
        return _of_moe(encoder)
    if isinstance(encoder, SentenceTransformersEncoder):
        return Parameters(encoder.parameters, encoder.parameters)
    return Parameters(None, None)


def _of_moe(encoder: MoEEncoder) -> Parameters:
    """Count from the configuration, without weights: a quantised head holds other numbers than it stands for."""
    import torch

    from retriever.network.model import RetrieverModel
    from retriever.network.moe import MoELayer

    with torch.device("meta"):
        model = RetrieverModel(encoder.config)
    total = sum(value.numel() for value in model.parameters())
    layers = [module for module in model.modules() if isinstance(module, MoELayer)]
    idle = sum(
        value.numel() * (layer.shape.routed - layer.shape.active) // layer.shape.routed
        for layer in layers
        for value in (layer.up_proj, layer.up_bias, layer.down_proj, layer.down_bias)
    )
    return Parameters(total - idle, total)


def peak_mib(process: str = "self") -> float:
    """Return the most resident memory that a process has had; 0 where it is not known, or the process has ended.

    Not from getrusage: there a process starts with the peak of the one that started it.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
