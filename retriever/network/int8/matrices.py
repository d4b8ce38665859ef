"""Matrices and rows in int8, their products, and the room for them.

Weights have a scale for each output, tokens a step each, chosen anew from their largest magnitude; what is summed are
whole numbers (Dettmers et al. 2022, "LLM.int8()", without its outliers).
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from retriever.network.checkpoint import quantise_rows
from retriever.network.int8.kernels import steps
from retriever.network.matmul import ROW_STEP, ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from retriever.types import FloatArray

__all__ = [
    "Matrix",
    "Rows",
    "Scratch",
    "add_product",
    "after",
    "blocks",
    "int8",
    "int8_layer",
    "padded_rows",
    "product",
    "taken",
]


class Matrix(NamedTuple):
    """A layer's weights, int8 (in, out), with a scale and a bias (out,) for each output, float32."""

    weights: Tensor
    scale: FloatArray
    bias: FloatArray


class Rows(NamedTuple):
    """Quantised tokens: value = values int8 (n + padding, width) * step float32 (n + padding,)."""

    values: NDArray[np.int8]
    step: FloatArray


class Scratch(threading.local):
    """Arrays that a thread uses again and again: the system would have to map new ones each time."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        """Return an array of this name, shape and kind, holding whatever was last written to it."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.zeros(size, dtype)
        return kept[:size].reshape(shape)

    def rows(self, name: str, tokens: int, width: int) -> Rows:
        """Return room for tokens, and for the padding of a block after the last one."""
        padded = tokens + ROW_STEP
        return Rows(self.array(name, (padded, width), np.int8), self.array(f"{name}.step", (padded,), np.float32))


def taken(parameter: Tensor) -> Tensor:
    """Return the values of a parameter, in float32, and leave it without."""
    values = parameter.detach().float()
    parameter.data = parameter.data.new_empty(0)
    return values


def int8_layer(linear: nn.Linear) -> Matrix:
    """Return a linear layer in int8, taking its weights."""
    return int8(taken(linear.weight), taken(linear.bias))


def int8(weight: Tensor, bias: Tensor) -> Matrix:
    """Return float32 weights (out, in) and bias (out,) in int8."""
    values, scale = quantise_rows(weight)
    return Matrix(values.t(), scale.numpy(), bias.numpy())


def add_product(rows: Rows, matrix: Matrix, out: FloatArray, scratch: Scratch) -> None:
    """Add the product of the first n rows to out (n, out), n <= ROWS."""
    acc = product(rows, matrix.weights, len(out), scratch)
    steps.add_product(acc, rows.step, matrix.scale, matrix.bias, out)


def product(rows: Rows, weights: Tensor, n: int, scratch: Scratch) -> NDArray[np.int32]:
    """Return whole numbers: the product of the first n rows, and of those after them that fill the last step."""
    padded = padded_rows(n)
    acc = scratch.array("acc", (padded, weights.shape[1]), np.int32)
    torch._int_mm(torch.from_numpy(rows.values[:padded]), weights, out=torch.from_numpy(acc))
    return acc


def padded_rows(n: int) -> int:
    """Return how many rows are multiplied for n: few shapes, since oneDNN keeps a kernel for each."""
    return n + -n % ROW_STEP


def after(rows: Rows, start: int) -> Rows:
    """Return the rows from `start` on."""
    return Rows(rows.values[start:], rows.step[start:])


def blocks(tokens: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each block of at most ROWS tokens."""
    for start in range(0, tokens, ROWS):
        yield start, min(start + ROWS, tokens)
