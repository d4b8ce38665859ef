"""Every dense type against exact search, and the row files below them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from retriever.index.exact import exact_dense
from retriever.index.vectors import dense
from retriever.index.vectors.dense import DenseSearcher, build
from retriever.index.vectors.faiss_types import DENSE_TYPES, choose_type
from retriever.index.vectors.row_formats import ROW_TYPES, RowFormat
from retriever.index.vectors.rows import (
    ALIVE,
    EMPTY,
    SEARCHABLE,
    TRUNCATED,
    RowMark,
    RowReader,
    RowWriter,
    read_flags,
    write_flags,
)
from retriever.types import Ranking, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROWS, DIM = 3_000, 16
RANDOM = np.random.default_rng(7)
CENTRES = RANDOM.standard_normal((60, DIM))
VECTORS = (CENTRES[RANDOM.integers(0, 60, ROWS)] + 0.4 * RANDOM.standard_normal((ROWS, DIM))).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = VECTORS[::150] + 0.02
IDS = [f"d{number:05d}" for number in RANDOM.permutation(ROWS)]
LIVE = RANDOM.random(ROWS) < 0.8


def make(
    folder: Path, vectors: np.ndarray, kind: str, live: np.ndarray, covered: int | None = None, rows: str = "float32"
) -> DenseSearcher:
    form = RowFormat(rows, vectors.shape[1])
    writer, records = RowWriter(folder, form, RowMark()), form.store(vectors)
    ids, n = IDS[: len(vectors)], len(vectors) if covered is None else covered
    writer.append(ids[:n], records[:n])
    path = None
    if kind != "flat":
        path = folder / "x.faiss"
        build(path, kind, RowReader(folder, form, writer.mark), live[:n])
    writer.append(ids[n:], records[n:])
    writer.close()
    return DenseSearcher(RowReader(folder, form, writer.mark), live, kind, path)


def stored(vectors: np.ndarray, rows: str) -> np.ndarray:
    """Return what is left of the vectors, computed as the definition says."""
    if rows == "int8":
        scale = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(127)
        vectors = np.rint(vectors / scale) * scale
    return vectors if rows == "int8" else vectors.astype(rows)


def expected(vectors: np.ndarray, live: np.ndarray, query: np.ndarray, top_k: int, rows: str = "float32") -> Ranking:
    ids = [doc_id for doc_id, bit in zip(IDS[: len(vectors)], live, strict=True) if bit]
    return exact_dense(ids, stored(vectors, rows)[live], query, top_k)


def recall(found: list[Ranking], wanted: list[Ranking]) -> float:
    pairs = zip(found, wanted, strict=True)
    return float(np.mean([len({h.doc_id for h in f} & {h.doc_id for h in w}) / len(w) for f, w in pairs]))


@pytest.fixture
def no_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "SCAN_BELOW", 0)


@pytest.mark.usefixtures("no_shortcut")
@pytest.mark.parametrize("kind", DENSE_TYPES)
@pytest.mark.parametrize("covered", [ROWS, 2_500])
@pytest.mark.parametrize("rows", ROW_TYPES)
def test_against_exact(tmp_path: Path, kind: str, covered: int, rows: str) -> None:
    searcher = make(tmp_path, VECTORS, kind, LIVE, covered, rows)
    for top_k in (1, 10, 100):
        found = searcher.search(QUERIES, top_k)
        wanted = [expected(VECTORS, LIVE, query, top_k, rows) for query in QUERIES]
        assert recall(found, wanted) >= {"flat": 1.0, "hnsw": 0.98, "ivf": 0.9}[kind]
        live = {doc_id for doc_id, bit in zip(IDS, LIVE, strict=True) if bit}
        scores = dict(zip(IDS, stored(VECTORS, rows).astype(np.float64) @ QUERIES[0], strict=True))
        for hit in found[0]:
            assert hit.doc_id in live
            assert hit.score == pytest.approx(scores[hit.doc_id], abs=1e-5)
        assert found[0] == sorted(found[0], key=lambda hit: (-hit.score, hit.doc_id))
        if kind == "flat":
            assert [[h.doc_id for h in hits] for hits in found] == [[h.doc_id for h in hits] for hits in wanted]


@pytest.mark.parametrize("kind", DENSE_TYPES)
@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0])
@pytest.mark.parametrize("rows", ROW_TYPES)
def test_allowed_rows_only(tmp_path: Path, kind: str, share: float, rows: str) -> None:
    allowed = RANDOM.random(ROWS) < share
    searcher = make(tmp_path, VECTORS, kind, LIVE, rows=rows)
    found = searcher.search(QUERIES[:3], 10, allowed)
    for hits, query in zip(found, QUERIES, strict=False):
        assert [h.doc_id for h in hits] == [h.doc_id for h in expected(VECTORS, LIVE & allowed, query, 10, rows)]


@pytest.mark.parametrize(
    ("kind", "scan_below"), [("flat", 0), ("ivf", 0), ("flat", 4_096), ("hnsw", 4_096), ("ivf", 4_096)]
)
@pytest.mark.parametrize("rows", ROW_TYPES)
def test_equal_vectors_are_ordered_by_id_at_every_cut(
    tmp_path: Path, kind: str, scan_below: int, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "SCAN_BELOW", scan_below)  # a graph alone does not reach hundreds of equal vectors
    vectors = VECTORS[:1_000].copy()
    vectors[200:700] = vectors[3]
    live = np.ones(1_000, bool)
    searcher = make(tmp_path, vectors, kind, live, rows=rows)
    tied = sorted(IDS[row] for row in (3, *range(200, 700)))
    for top_k in (1, 5, 60, 333, 501):
        assert [hit.doc_id for hit in searcher.search(vectors[3:4], top_k)[0]] == tied[:top_k]


@pytest.mark.parametrize("kind", DENSE_TYPES)
def test_few_or_no_rows(tmp_path: Path, kind: str) -> None:
    for n in (1, 2, 50):
        folder = tmp_path / str(n)
        searcher = make(folder, VECTORS[:n], kind, np.ones(n, bool))
        assert len(searcher.search(QUERIES[:1], 1_000)[0]) == n
        assert searcher.search(np.zeros((1, DIM), np.float32), 5) == [[]]
    nothing = make(tmp_path / "dead", VECTORS[:50], kind, np.zeros(50, bool))
    assert nothing.search(QUERIES[:2], 5) == [[], []]


def test_type_by_size() -> None:
    assert [choose_type("auto", n) for n in (0, 50_000, 50_001, 500_001)] == ["flat", "flat", "hnsw", "ivf"]
    assert choose_type("ivf", 3) == "ivf"
    with pytest.raises(UserError, match="allowed: auto, flat, hnsw, ivf"):
        choose_type("annoy", 3)


def test_damaged_faiss_file(tmp_path: Path) -> None:
    searcher = make(tmp_path, VECTORS[:100], "hnsw", np.ones(100, bool))
    (tmp_path / "x.faiss").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        DenseSearcher(searcher._rows, np.ones(100, bool), "hnsw", tmp_path / "x.faiss").search(QUERIES[:1], 5)
    with pytest.raises(UserError, match="wrong checksum"):
        DenseSearcher(searcher._rows, np.ones(100, bool), "hnsw", tmp_path / "x.faiss", 1).search(QUERIES[:1], 5)
    with pytest.raises(FileNotFoundError):
        DenseSearcher(searcher._rows, np.ones(100, bool), "hnsw", tmp_path / "y.faiss")


@pytest.mark.parametrize("count", [0, 1, 8, 9, 1_000])
def test_flags_round_trip(tmp_path: Path, count: int) -> None:
    choices = np.array([0, ALIVE, ALIVE | SEARCHABLE, ALIVE | EMPTY, ALIVE | SEARCHABLE | TRUNCATED], np.uint8)
    flags = RANDOM.choice(choices, count)
    crc = write_flags(tmp_path / "live", flags)
    assert (read_flags(tmp_path / "live", count, crc) == flags).all()
    with pytest.raises(UserError, match="checksum"):
        read_flags(tmp_path / "live", count, crc + 1)


def test_rows_beyond_the_mark_are_cut_off(tmp_path: Path) -> None:
    form = RowFormat("float32", 2)
    writer = RowWriter(tmp_path, form, RowMark())
    writer.append(["a", "ü"], np.ones((2, 2), np.float32))
    mark = writer.mark
    writer.append(["lost"], np.zeros((1, 2), np.float32))
    writer.close()
    seen = RowReader(tmp_path, form, mark)
    assert seen.doc_ids(np.array([1, 0])) == ["ü", "a"] and seen.vectors is not None and len(seen.vectors) == 2
    again = RowWriter(tmp_path, form, mark)
    again.append(["", "😀\n"], np.full((2, 2), 3, np.float32))
    again.close()
    seen = RowReader(tmp_path, form, again.mark)
    assert seen.doc_ids(np.arange(4)) == ["a", "ü", "", "😀\n"]
    assert seen.vectors is not None and seen.vectors[:4][:, 0].tolist() == [1, 1, 3, 3]
    with (tmp_path / "vectors.f32").open("r+b") as file:
        file.truncate(5)
    with pytest.raises(UserError, match=r"vectors\.f32: damaged"):
        RowWriter(tmp_path, form, again.mark)
