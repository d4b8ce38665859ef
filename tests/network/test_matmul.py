"""Products of rows against NumPy: independent rows in every type."""

from __future__ import annotations

import pytest
import torch

from retriever.network.matmul import linear


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [0, 1, 7, 15, 16, 17, 100, 255, 256, 300])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_rows_do_not_depend_on_their_number(rows: int, kind: str) -> None:
    x, weight, bias = drawn(300, 384), drawn(96, 384), drawn(96)
    exact = x @ weight.T + bias
    x, weight, bias = (value.to(getattr(torch, kind)) for value in (x, weight, bias))
    with torch.inference_mode():
        whole = linear(x, weight, bias)
        assert torch.equal(linear(x[:rows], weight, bias), whole[:rows])
    assert (whole.float() - exact).norm() / exact.norm() < {"float32": 1e-6, "bfloat16": 0.01}[kind]
