"""The compiled steps against the same in NumPy and torch, in float64 where that is the definition."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retriever.network.int8.kernels import steps

Floats = NDArray[np.float32]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def bfloat16(values: Floats) -> NDArray[np.uint16]:
    bits: NDArray[np.uint16] = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    return bits


def floats(bits: NDArray[np.uint16]) -> Floats:
    values: Floats = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    return values


def some_product(
    random: np.random.Generator, rows: int, columns: int
) -> tuple[NDArray[np.int32], Floats, Floats, Floats]:
    acc = random.integers(-400_000, 400_000, (rows, columns), dtype=np.int32)
    step, scale = (random.random(n, np.float32) * np.float32(0.004) + np.float32(1e-5) for n in (rows, columns))
    return acc, step, scale, random.standard_normal(columns, dtype=np.float32)


def value_of(acc: NDArray[np.int32], step: Floats, scale: Floats, bias: Floats) -> NDArray[np.float64]:
    return np.asarray(acc * step[:, None].astype(np.float64) * scale + bias, np.float64)


def assert_quantised(values: NDArray[np.int8], step: Floats, expected: NDArray[np.float64]) -> None:
    """Each row's largest magnitude is 127 steps, and no value is further away than half a step."""
    np.testing.assert_allclose(step, np.abs(expected).max(1) / 127, rtol=2e-5)
    assert (np.abs(values * step[:, None] - expected) <= 0.51 * step[:, None]).all()


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 5), width=st.integers(1, 70), exponent=st.integers(-30, 30), seed=st.integers(0, 99))
def test_rows_use_the_whole_range(rows: int, width: int, exponent: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32) * np.float32(2.0) ** exponent
    values, step = np.empty((rows, width), np.int8), np.empty(rows, np.float32)
    steps.quantise(x, values, step)
    assert (np.abs(values).max(1) == 127).all()
    assert_quantised(values, step, x.astype(np.float64))


def test_zeros_stay_zeros() -> None:
    values, step = np.ones((2, 20), np.int8), np.empty(2, np.float32)
    steps.quantise(np.zeros((2, 20), np.float32), values, step)
    assert not values.any()


def test_gelu_is_torch_s(random: np.random.Generator) -> None:
    acc, step, scale, bias = some_product(random, 40, 100)
    values, out_step = np.empty((40, 100), np.int8), np.empty(40, np.float32)
    steps.gelu_quantise(acc, step, scale, bias, values, out_step)
    product = value_of(acc, step, scale, bias)
    assert np.abs(product).max() > 6
    expected = torch.nn.functional.gelu(torch.from_numpy(product)).numpy()
    assert_quantised(values, out_step, expected)


def test_the_gelu_polynomial_is_near_everywhere() -> None:
    # One product a row, so that the value is 127 steps, or none.
    x = np.concatenate([np.linspace(-9, 9, 4001), [-50, 50]]).astype(np.float32)
    values, step = np.empty((len(x), 1), np.int8), np.empty(len(x), np.float32)
    steps.gelu_quantise(
        np.ones((len(x), 1), np.int32), x, np.ones(1, np.float32), np.zeros(1, np.float32), values, step
    )
    expected = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(values[:, 0] * step - expected).max() < 8e-4  # at 50
    assert np.abs(values[:, 0] * step - expected)[np.abs(x) < 4.25].max() < 3e-5


def test_norm_is_layer_norm(random: np.random.Generator) -> None:
    x = random.standard_normal((9, 50), dtype=np.float32) * 3 + 1
    gain, shift = random.random(50, np.float32), random.standard_normal(50, dtype=np.float32)
    expected = torch.nn.functional.layer_norm(
        *(torch.from_numpy(x).double(), [50]), torch.from_numpy(gain).double(), torch.from_numpy(shift).double(), 1e-12
    )
    steps.norm(x, gain, shift, 1e-12)
    np.testing.assert_allclose(x, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_products_are_added_to_the_rows_they_belong_to(random: np.random.Generator) -> None:
    acc, step, scale, bias = some_product(random, 12, 30)
    out = random.standard_normal((7, 30), dtype=np.float32)
    before = out.astype(np.float64)
    steps.add_product(acc, step, scale, bias, out)
    np.testing.assert_allclose(out, before + value_of(acc, step, scale, bias)[:7], rtol=1e-4, atol=1e-4)

    rows = np.array([4, 0, 4, 6])
    weights = random.random(4, np.float32)
    expected = out.astype(np.float64)
    for i, row in enumerate(rows):
        expected[row] += weights[i] * value_of(acc, step, scale, bias)[i]
    steps.add_weighted(acc, step, scale, bias, rows, weights, out)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_narrowing_rounds_as_torch_does(random: np.random.Generator) -> None:
    x = random.standard_normal((6, 40), dtype=np.float32)
    x[0, :3] = 1 + np.float32(2.0) ** -9 * np.array([1, 3, 5])  # halfway between two neighbours
    out = np.zeros((8, 40), np.uint16)
    steps.narrow(x, out)
    np.testing.assert_array_equal(out[:6], bfloat16(x))
    assert not out[6:].any()


@pytest.mark.parametrize("together", [np.uint16, np.uint64])
def test_heads_are_split_and_merged(random: np.random.Generator, together: type) -> None:
    heads, size, length = 3, 8, 5
    qkv = random.integers(0, 2**15, (4, 3 * heads * size)).astype(np.uint16)
    place, stride = np.array([0, 2, 3, heads * length]), np.full(4, length)
    rows = 2 * heads * length
    query, key, value = (np.zeros((rows, size), np.uint16) for _ in range(3))
    wide: list[NDArray[Any]] = [array.view(together) for array in (qkv, query, key, value)]
    steps.split_heads(wide[0], wide[1], wide[2], wide[3], place, stride)
    for i in range(4):
        for head in range(heads):
            for part, array in enumerate((query, key, value)):
                start = (part * heads + head) * size
                np.testing.assert_array_equal(array[place[i] + head * length], qkv[i, start : start + size])

    mixed = bfloat16(random.standard_normal((rows, size), dtype=np.float32))
    sums = random.random(rows, np.float32) + 1
    values, step = np.empty((4, heads * size), np.int8), np.empty(4, np.float32)
    steps.merge_heads(mixed, sums, place, stride, values, step)
    found = [[floats(mixed)[p + h * length] / sums[p + h * length] for h in range(heads)] for p in place]
    assert_quantised(values, step, np.array(found, np.float64).reshape(4, -1))


@pytest.mark.parametrize("length", [1, 16, 48, 80])
def test_exponentials_are_powers_of_two(random: np.random.Generator, length: int) -> None:
    own = np.array([length, max(1, length - 5)])
    scores = bfloat16(random.standard_normal((2, length, length), dtype=np.float32) * 8)
    expected = np.exp2(floats(scores).astype(np.float64))
    sums = np.zeros((2, length), np.float32)
    steps.exponentials(scores, own, sums)
    for i, real in enumerate(own):
        weights = floats(scores)[i, :real]
        np.testing.assert_allclose(weights[:, :real], expected[i, :real, :real], rtol=1 / 256)
        assert not weights[:, real:].any()
        np.testing.assert_allclose(sums[i, :real], weights.sum(1), rtol=1e-5)


def test_large_scores_are_cut_not_overflown() -> None:
    scores = bfloat16(np.array([[[1e30, -1e30, 90.0, 0.0]] * 4], np.float32))
    sums = np.zeros((1, 4), np.float32)
    steps.exponentials(scores, np.array([4]), sums)
    assert np.isfinite(floats(scores)).all()
    np.testing.assert_allclose(sums, 2.0 * 2.0**86, rtol=0.01)


def test_the_largest_logit_of_a_text(random: np.random.Generator) -> None:
    acc, step, _, _ = some_product(random, 16, 20)
    out = np.full((3, 50), -7, np.float32)
    ends = np.array([0, 1, 9, 14])
    steps.max_over_tokens(acc, step, ends, 30, out)
    logits = acc * step[:, None].astype(np.float64)
    expected = [logits[start:stop].max(0) for start, stop in pairwise(ends)]
    np.testing.assert_allclose(out[:, 30:], expected, rtol=1e-5)
    assert (out[:, :30] == -7).all()


def test_weights_of_terms_are_the_largest_of_their_stem() -> None:
    best = np.array([[1.0, 3.0, -2.0, 5.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    scale, bias = np.array([1, 1, 1, 2], np.float32), np.array([0, -1, 0, -1e30], np.float32)
    out = np.zeros((2, 4), np.float32)
    steps.term_weights(best, scale, bias, np.array([0, 0, 2, 3]), out)
    np.testing.assert_allclose(out, [[np.log1p(2), 0, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_kernels_work_where_nothing_can_be_kept() -> None:
    script = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []
import numpy as np
from retriever.network.int8.kernels import steps
values, step = np.empty((1, 2), np.int8), np.empty(1, np.float32)
steps.quantise(np.array([[1, -2]], np.float32), values, step)
print(values.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[64, -127]]\n"
