"""Stored vectors against what their number formats say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from retriever.index.vectors.row_formats import ROW_TYPES, RowFormat, StoredVectors

RANDOM = np.random.default_rng(3)
VALUES = st.floats(-1e3, 1e3, width=32)


def kept(vectors: np.ndarray, row_type: str) -> StoredVectors:
    form = RowFormat(row_type, vectors.shape[1])
    return StoredVectors(form.store(vectors), form)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=VALUES))
def test_int8_is_off_by_half_a_step_of_its_row(vectors: np.ndarray) -> None:
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    found = kept(vectors, "int8")[:]
    assert found.dtype == np.float32
    assert (np.abs(found - vectors) <= largest / 254 * 1.0001 + 1e-42).all()
    assert np.abs(found).max(axis=1, keepdims=True) == pytest.approx(largest, rel=1e-6, abs=1e-40)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=VALUES))
def test_float32_is_kept_and_float16_rounded_as_numpy_does(vectors: np.ndarray) -> None:
    assert (kept(vectors, "float32")[:] == vectors).all()
    assert (kept(vectors, "float16")[:] == vectors.astype(np.float16).astype(np.float32)).all()


def test_every_finite_float16_is_read_back() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = halves[np.isfinite(halves)].reshape(-1, 64)
    found = kept(every.astype(np.float32), "float16")[:]
    assert (found == every.astype(np.float32)).all() and (np.signbit(found) == np.signbit(every)).all()


@pytest.mark.parametrize("row_type", ROW_TYPES)
@pytest.mark.parametrize("dim", [1, 7, 384])
def test_scores_are_those_of_the_stored_values_wherever_a_row_stands(row_type: str, dim: int) -> None:
    vectors = RANDOM.standard_normal((300, dim), dtype=np.float32)
    query = RANDOM.standard_normal(dim, dtype=np.float32)
    stored = kept(vectors, row_type)
    together = stored.scores(slice(0, 300), query)
    assert together.dtype == np.float32
    assert together == pytest.approx(stored[:].astype(np.float64) @ query, abs=1e-4)
    for rows in (np.arange(5, 300, 3), np.array([7]), RANDOM.permutation(300)):
        assert (stored.scores(rows, query) == together[rows]).all()
        assert (stored[rows] == stored[:][rows]).all()
    assert all(stored.scores(slice(row, row + 1), query)[0] == together[row] for row in range(0, 300, 7))


@pytest.mark.parametrize(("row_type", "size"), [("float32", 4 * 384), ("float16", 2 * 384), ("int8", 384 + 4)])
def test_bytes_of_a_row(row_type: str, size: int) -> None:
    form = RowFormat(row_type, 384)
    assert form.record.itemsize == size == len(form.store(np.ones((1, 384), np.float32)).tobytes())


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_zero_and_tiny_rows_and_none(row_type: str) -> None:
    assert not kept(np.zeros((2, 5), np.float32), row_type)[:].any()
    assert kept(np.full((2, 5), 1e-44, np.float32), row_type)[:] == pytest.approx(0, abs=1e-40)
    assert kept(np.empty((0, 5), np.float32), row_type)[:].shape == (0, 5)


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_what_cannot_be_stored_is_refused(row_type: str) -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            kept(np.array([[1, value]], np.float32), row_type)
    large = np.array([[1, 1e5]], np.float32)
    if row_type == "float16":
        with pytest.raises(ValueError, match="65504"):
            kept(large, row_type)
    else:
        assert kept(large, row_type)[:][0, 1] == pytest.approx(1e5)
