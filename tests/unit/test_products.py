"""Products of rows against NumPy: independent rows in every type, exact sums in int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retriever.products import Int8Matrix, Linear, int8_matrix, linear, quantise_tokens


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [0, 1, 7, 15, 16, 17, 100, 255, 256, 300])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_rows_do_not_depend_on_their_number(rows: int, kind: str) -> None:
    x, weight, bias = drawn(300, 384), drawn(96, 384), drawn(96)
    exact = x @ weight.T + bias
    matrix: torch.Tensor | Int8Matrix = int8_matrix(weight) if kind == "int8" else weight
    if kind == "bfloat16":
        x, matrix, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    with torch.inference_mode():
        whole = linear(x, matrix, bias)
        assert torch.equal(linear(x[:rows], matrix, bias), whole[:rows])
    assert (whole.float() - exact).norm() / exact.norm() < {"float32": 1e-6, "bfloat16": 0.01, "int8": 0.015}[kind]


def test_int8_products_are_those_of_whole_numbers() -> None:
    x, weight, bias = drawn(40, 64), drawn(24, 64), drawn(24)
    matrix = int8_matrix(weight)
    values, step = quantise_tokens(x)
    whole = values.numpy().astype(np.int64) @ matrix.values.numpy().astype(np.int64).T
    expected = whole * step.double().numpy() * matrix.scale.double().numpy()
    np.testing.assert_allclose(linear(x, matrix).numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(linear(x, matrix, bias).numpy(), expected + bias.double().numpy(), rtol=1e-5, atol=1e-4)


def test_tokens_use_the_whole_range_and_zeros_stay() -> None:
    x = torch.tensor([[0.5, -2.0, 1.0], [0.0, 0.0, 0.0], [1e-3, 2e-3, 4e-3]])
    values, step = quantise_tokens(x)
    assert values.tolist() == [[32, -127, 64], [0, 0, 0], [32, 64, 127]]
    assert (values * step - x).abs().max() <= step.max() / 2


def test_a_layer_keeps_its_function_and_drops_its_weights() -> None:
    layer = Linear(384, 96)
    x = drawn(50, 384)
    with torch.inference_mode():
        exact = layer(x)
        layer.quantise()
        assert torch.nn.functional.cosine_similarity(layer(x), exact).min() > 0.999
    assert layer.weight.numel() == 0
