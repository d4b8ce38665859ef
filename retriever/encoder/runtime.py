"""How an encoder runs: precision, device, batches, processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retriever.machine_code import processor_instructions
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.types import Encoder

__all__ = ["NUMERICS_VERSION", "PRECISIONS", "RuntimeConfig", "fastest_precision", "numerics"]

NUMERICS_VERSION = 3
"""Increased when the same weights and texts give other numbers than before, so that cached encodings are recomputed."""

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")

_NO_VNNI = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core")
_NO_BFLOAT16 = (*_NO_VNNI, "avx512_core_vnni")
_NO_AMX = (*_NO_BFLOAT16, "avx512_core_bf16", "avx512_core_fp16", "avx10_1_512", "avx10_2_512")
_FORBIDDEN = (("avx512vnni", _NO_VNNI), ("avx512bf16", _NO_BFLOAT16), ("amx-int8", _NO_AMX), ("amx-bf16", _NO_AMX))
"""Instructions, and the values of ONEDNN_MAX_CPU_ISA with which oneDNN leaves them out."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How to run the network.

    precision: "float32", "bfloat16", "float16" (not on a CPU), "int8" (on a CPU alone), or "auto": the fastest that the
    processor has instructions for. tokens_per_batch: the budget of one batch, which bounds the memory of the network.
    window: texts sorted by length together; it bounds the memory held by token ids. workers: processes that encode
    documents, each on cores of its own, in place of this one; 0 for none. device: "cpu", "cuda:0" or, one for each
    worker, "cuda:0,cuda:1". quick_queries: encode queries in int8, whatever documents are encoded in. With int8
    itself that is so anyway: kernels made for few tokens give the same numbers in a quarter of the time, and need
    neither torch nor transformers; with other precisions the vectors have a cosine of at least 0.998 to theirs.
    recent_queries: how many of the queries that were encoded one at a time are remembered, each with its views.

    Raises:
        UserError: settings that cannot run.
    """

    precision: str = "auto"
    tokens_per_batch: int = 2048
    window: int = 4096
    device: str = "cpu"
    workers: int = 0
    quick_queries: bool = False
    recent_queries: int = 128

    def __post_init__(self) -> None:
        """Refuse settings that cannot run."""
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        on_cpu = {device == "cpu" for device in self.device.split(",")}
        if self.precision == "int8" and on_cpu != {True}:
            raise UserError(f"precision 'int8' runs on the device 'cpu' alone, not on {self.device!r}; choose another")
        if self.precision == "float16" and True in on_cpu:
            raise UserError("precision 'float16' is for devices other than 'cpu', which has none; choose another")
        for name in ("workers", "recent_queries"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, allowed are whole numbers from 0, for none")
        if self.tokens_per_batch < 1 or self.window < 1:
            raise UserError("tokens_per_batch and window must be at least 1")


def fastest_precision(device: str) -> str:
    """Return the fastest precision that the processor has instructions for, those that ONEDNN_MAX_CPU_ISA leaves.

    This is looked up, not timed: on a busy machine a timing would answer differently from one run to the next, and an
    index and its queries would then be encoded in different precisions.
    """
    if device.startswith("cuda"):
        import torch

        return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float16"
    found = _usable_instructions()
    if device != "cpu" or not found & {"avx512bf16", "amx-bf16"}:
        return "float32"
    return "int8" if found & {"avx512vnni", "amx-int8"} else "bfloat16"


def _usable_instructions() -> frozenset[str]:
    """Return the processor's instructions less those that oneDNN, which multiplies for torch, is told to leave out."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).lower()
    return processor_instructions() - {name for name, limits in _FORBIDDEN if limit in limits}


def numerics(encoder: Encoder) -> str:
    """Return what, besides the weights, determines an encoder's numbers: a component of the encoding cache's keys."""
    return f"{encoder.precision or 'any'}-{NUMERICS_VERSION}"
