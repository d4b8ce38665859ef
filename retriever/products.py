"""Products of rows with matrices: each row's result is its own, and int8 ones are exact sums.

Int8 (Dettmers et al. 2022, "LLM.int8()", without its outliers): a weight matrix has a scale for each row, an activation
one for each token, chosen anew from its largest magnitude; what is summed are whole numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from retriever.checkpoint import quantise_rows

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ROWS", "Int8Matrix", "Linear", "int8_matrix", "linear", "quantise_tokens"]

MIN_ROWS = 16  # float32 products of fewer rows take another kernel, whose sums differ in the last bit
# oneDNN compiles and keeps a kernel (about 0.6 MB) for each shape of a product: left alone, gigabytes of them.
ROW_STEP = 32
ROWS = 256
"""Rows multiplied at once for inference: the hidden layer of a feed-forward stays in the cache."""


class Int8Matrix(NamedTuple):
    """A weight matrix (out, in): value = values int8 (out, in) * scale float32 (out,)."""

    values: Tensor
    scale: Tensor


def int8_matrix(weight: Tensor) -> Int8Matrix:
    """Return a float matrix (out, in) in int8."""
    return Int8Matrix(*quantise_rows(weight.detach().float()))


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 (n, in) values of x (n, in) and the float32 step (n, 1) of each row."""
    step = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True)).clamp_min_(1e-30) / 127
    return (x / step).round_().to(torch.int8), step


def linear(x: Tensor, weight: Tensor | Int8Matrix, bias: Tensor | None = None) -> Tensor:
    """Multiply rows (n, in) by weight (out, in), each row's result independent of how many rows there are.

    Matrix libraries switch to another kernel for a handful of rows and sum in another order there; padding small
    inputs keeps a text's embedding equal to the last bit whether it is encoded alone or in a batch.
    """
    if isinstance(weight, Int8Matrix):
        return _in_blocks(x, len(weight.scale), lambda rows, out: _int8_product(rows, weight, bias, out))
    if x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
        return _in_blocks(x, len(weight), lambda rows, out: _product(rows, weight, bias, out))
    n = x.shape[0]
    if n >= MIN_ROWS:
        return F.linear(x, weight, bias)
    return F.linear(F.pad(x, (0, 0, 0, MIN_ROWS - n)), weight, bias)[:n]


def _in_blocks(x: Tensor, columns: int, product: Callable[[Tensor, Tensor], object]) -> Tensor:
    """Multiply blocks of ROWS rows, the last padded to a multiple of ROW_STEP: few shapes, bounded memory."""
    n = x.shape[0]
    padded = n + -n % ROW_STEP
    if padded > n:
        x = F.pad(x, (0, 0, 0, padded - n))
    out = x.new_empty(padded, columns)
    for start in range(0, padded, ROWS):
        product(x[start : start + ROWS], out[start : start + ROWS])
    return out[:n]


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def _int8_product(x: Tensor, weight: Int8Matrix, bias: Tensor | None, out: Tensor) -> None:
    values, step = quantise_tokens(x)
    torch.mul(torch._int_mm(values, weight.values.t()), step, out=out)
    if bias is None:
        out.mul_(weight.scale)
    else:
        torch.addcmul(bias, out, weight.scale, out=out)


class Linear(nn.Linear):
    """A linear layer whose rows are independent of each other; in int8 after `quantise`, for inference alone."""

    int8: Int8Matrix | None = None

    def quantise(self) -> None:
        """Keep the weights in int8 only."""
        self.int8 = int8_matrix(self.weight)
        self.weight.data = self.weight.data.new_empty(0)

    @property
    def matrix(self) -> Tensor | Int8Matrix:
        """Return the weights (out, in) as they are kept."""
        return self.weight if self.int8 is None else self.int8

    def forward(self, input: Tensor) -> Tensor:
        """Return (n, out) of rows (n, in)."""
        return linear(input, self.matrix, self.bias)
