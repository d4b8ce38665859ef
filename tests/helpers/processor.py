"""What the products of this processor are like, which decides how near two ways to the same views can be."""

from __future__ import annotations

from functools import cache

import torch

from retriever.network.int8.kernels.tiles import processor_has

__all__ = ["OVERFLOWS", "exact_int8", "same_kernels"]

OVERFLOWS = "int8 products overflow on this processor, for which int8 is not chosen"


@cache
def exact_int8() -> bool:
    """Say whether sums of int8 products are exact: without VNNI or AMX, oneDNN's overflow 16 bits."""
    ones = torch.full((64, 64), 127, dtype=torch.int8)
    return bool((torch._int_mm(ones, -ones) == -64 * 127 * 127).all())


def same_kernels() -> bool:
    """Say whether documents and queries are multiplied in the same order: AMX adds up tiles in its own."""
    return exact_int8() and processor_has("avx512bf16") and not processor_has("amx-bf16")
