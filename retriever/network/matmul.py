"""Products of rows with matrices whose results do not depend on how many rows there are."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

__all__ = ["ROWS", "ROW_STEP", "Linear", "linear", "sizes_agree"]

MIN_ROWS = 16  # float32 products of fewer rows take another kernel, whose sums differ in the last bit
# oneDNN compiles and keeps a kernel (about 0.6 MB) for each shape of a product: left alone, gigabytes of them.
ROW_STEP = 32
ROWS = 256
"""Rows multiplied at once for inference: the hidden layer of a feed-forward stays in the cache."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows (n, in) by weight (out, in), each row's result independent of how many rows there are.

    Matrix libraries switch to another kernel for a handful of rows and sum in another order there; padding small
    inputs keeps a text's embedding equal to the last bit whether it is encoded alone or in a batch.
    """
    if x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        return _in_blocks(x, weight, bias)
    n = x.shape[0]
    if n >= MIN_ROWS:
        return F.linear(x, weight, bias)
    return F.linear(F.pad(x, (0, 0, 0, MIN_ROWS - n)), weight, bias)[:n]


def _in_blocks(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply blocks of ROWS rows, the last padded to a multiple of ROW_STEP: few shapes, bounded memory.

    Where the processor's kernels for these sizes differ in their sums, every block has ROW_STEP rows.
    """
    n = x.shape[0]
    most = ROWS if sizes_agree(x.shape[1], len(weight)) else ROW_STEP
    padded = n + -n % ROW_STEP
    if padded > n:
        x = F.pad(x, (0, 0, 0, padded - n))
    out = x.new_empty(padded, len(weight))
    for start in range(0, padded, most):
        rows, into = x[start : start + most], out[start : start + most]
        if bias is None:
            torch.mm(rows, weight.t(), out=into)
        else:
            torch.addmm(bias, rows, weight.t(), out=into)
    return out[:n]


@lru_cache
def sizes_agree(inputs: int, outputs: int) -> bool:
    """Return whether a bfloat16 row times a matrix (outputs, inputs) is the same in blocks of every size, bit by bit.

    With AMX it is not: oneDNN chooses another kernel for another number of rows, and their sums differ by 1e-3.
    """
    draw = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(rows, inputs, generator=draw).bfloat16() for rows in (ROWS, outputs))
    whole = torch.mm(x, weight.t())
    return all(torch.equal(torch.mm(x[:rows], weight.t()), whole[:rows]) for rows in range(ROW_STEP, ROWS, ROW_STEP))


class Linear(nn.Linear):
    """A linear layer whose rows are independent of each other."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (n, out) of rows (n, in)."""
        return linear(input, self.weight, self.bias)
