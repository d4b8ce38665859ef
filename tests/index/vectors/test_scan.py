"""The compiled scan of rows of bytes against exact search over what is stored."""

from __future__ import annotations

import numpy as np
import pytest

from retriever.index.vectors.row_formats import RowFormat, StoredVectors
from retriever.index.vectors.scan import Scan, processor_scans, scannable

RANDOM = np.random.default_rng(11)


def vectors_of(count: int, dim: int) -> StoredVectors:
    """Return rows with scales of many sizes, among them copies, rows of zeros and rows at the ends of their range."""
    made = RANDOM.standard_normal((count, dim)).astype(np.float32) * RANDOM.uniform(0.01, 3, (count, 1))
    made[count // 2 :: 7] = made[0]
    made[3::50] = 0
    made[5::50] = 1
    form = RowFormat("int8", dim)
    return StoredVectors(form.store(made.astype(np.float32)), form)


@pytest.mark.parametrize("plain", [0, 1_000])
@pytest.mark.parametrize(("count", "dim"), [(1, 64), (31, 128), (2_000, 384), (4_097, 128), (300, 1024)])
def test_the_best_rows_and_all_ties_are_found(
    count: int, dim: int, plain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = vectors_of(count, dim)
    if not scannable(vectors):
        pytest.skip("this processor has no VNNI")
    monkeypatch.setattr("retriever.index.vectors.scan.PLAIN_QUERIES", plain)
    scan = Scan(vectors)
    for eligible in (np.ones(count, bool), RANDOM.random(count) < 0.5, np.zeros(count, bool)):
        for query in (*RANDOM.standard_normal((5, dim)).astype(np.float32), np.ones(dim, np.float32) * 1e-20):
            scores = np.where(eligible, vectors.scores(slice(0, count), query), -np.inf)
            for top_k in (1, 10, 200, 5_000):
                found = scan.nearest(query, top_k, eligible)
                assert eligible[found].all() and (np.diff(found) > 0).all()
                number = min(top_k, int(eligible.sum()))
                least = np.sort(scores)[-number] if number else np.inf
                assert set(np.flatnonzero(eligible & (scores >= least))) <= set(found.tolist())
        if eligible.all() and count > 1_000:
            assert len(scan.nearest(query * 0 + 1, 10, eligible)) < count // 2


def test_a_damaged_scale_leaves_no_row_out() -> None:
    vectors = vectors_of(100, 64)
    if not scannable(vectors):
        pytest.skip("this processor has no VNNI")
    vectors.records["scale"][9] = np.nan
    assert Scan(vectors).nearest(np.ones(64, np.float32), 3, np.ones(100, bool)).tolist() == list(range(100))


def test_other_rows_are_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in (RowFormat("float32", 64), RowFormat("float16", 64), RowFormat("int8", 100)):
        assert not scannable(StoredVectors(form.store(np.ones((2, form.dim), np.float32)), form))
    form = RowFormat("int8", 64)
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert not processor_scans()
    assert not scannable(StoredVectors(form.store(np.ones((2, 64), np.float32)), form))
