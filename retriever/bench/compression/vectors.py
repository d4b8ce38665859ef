"""Every way to keep and search vectors, on near copies of real ones: so many that FAISS has something to skip."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.bench.sample import with_noise
from retriever.eval.exact_recall import exact_recall
from retriever.index.vectors.dense import DenseSearcher, build
from retriever.index.vectors.row_formats import RowFormat
from retriever.index.vectors.rows import RowMark, RowReader, RowWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.types import BoolArray, FloatArray, Ranking

__all__ = ["VectorPoint", "bench_vectors", "near_copies"]

BLOCK = 16_384


class VectorPoint(NamedTuple):
    """One row type with one FAISS type. *_bytes: per vector. per_second: queries of one thread for the best 10.

    recall_k: share of the best k of float32 vectors.
    """

    rows: str
    dense_type: str
    rows_bytes: float
    faiss_bytes: float
    build_seconds: float
    per_second: float
    recall_10: float
    recall_100: float


def near_copies(vectors: FloatArray, count: int, seed: int = 0) -> FloatArray:
    """Return float32 (count, dim): the unit vectors (n, dim) and copies of them `with_noise`, shuffled."""
    random = np.random.default_rng(seed)
    copies = np.resize(vectors, (count, vectors.shape[1]))
    copies[len(vectors) :] = with_noise(copies[len(vectors) :], random)
    return random.permutation(copies)


def bench_vectors(
    vectors: FloatArray, queries: FloatArray, rows: Sequence[str], dense_types: Sequence[str]
) -> Iterator[VectorPoint]:
    """Measure each row type with each FAISS type over the same vectors (n, dim), for queries (m, dim)."""
    queries = queries[queries.any(axis=1)]
    exact = [np.argsort(-(vectors @ query), kind="stable")[:100].astype(str).tolist() for query in queries]
    live: BoolArray = vectors.any(axis=1)  # type: ignore[assignment]  # NumPy's stubs allow for a scalar
    with tempfile.TemporaryDirectory() as temporary:
        for row_type in rows:
            folder, form = Path(temporary) / row_type, RowFormat(row_type, vectors.shape[1])
            writer = RowWriter(folder, form, RowMark())
            for start in range(0, len(vectors), BLOCK):
                block = vectors[start : start + BLOCK]
                writer.append([str(row) for row in range(start, start + len(block))], form.store(block))
            writer.close()
            reader = RowReader(folder, form, writer.mark)
            for kind in dense_types:
                path = folder / f"{kind}.faiss"
                started = perf_counter()
                if kind != "flat":
                    build(path, kind, reader, live)
                seconds = perf_counter() - started
                searcher = DenseSearcher(reader, live, kind, None if kind == "flat" else path)
                searcher.search(queries[:5], 10)  # the first searches read the files
                started = perf_counter()
                tens = [searcher.search(query[None], 10)[0] for query in queries]
                per_second = len(queries) / (perf_counter() - started)
                hundreds = searcher.search(queries, 100)
                yield VectorPoint(
                    row_type,
                    kind,
                    form.record.itemsize,
                    0.0 if kind == "flat" else path.stat().st_size / len(vectors),
                    seconds,
                    per_second,
                    *(exact_recall(_ids(found), exact, depth) for found, depth in ((tens, 10), (hundreds, 100))),
                )


def _ids(found: Sequence[Ranking]) -> list[list[str]]:
    return [[hit.doc_id for hit in ranking] for ranking in found]
