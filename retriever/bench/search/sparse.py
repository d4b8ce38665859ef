"""Measure the back ends of the sparse leg on an index: speed, and how much of the exact ranking they find."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.corpus import load_queries
from retriever.eval.exact_recall import exact_recall
from retriever.index.postings.sparse import SparseWriter, open_postings
from retriever.index.reader import FolderReader
from retriever.search.legs.backends import installed_backends, make_sparse_backend
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BackendSpeed", "StoredPostings", "bench_sparse", "stored_postings"]

EXACT = "lucene"
DEPTHS = (10, 100, 1000)


class StoredPostings(NamedTuple):
    """The postings that an index has: bytes of each, seconds of opening them and of making them from Lucene's."""

    postings: int
    bytes_a_posting: float
    open_s: float
    build_s: float


def stored_postings(index: Path) -> StoredPostings | None:
    """Measure the postings of an index, None if it has none of its own."""
    with FolderReader.open(index) as reader, TemporaryDirectory() as folder:
        commit = reader.commit_data
        if reader.postings is None:
            return None
        begun = time.perf_counter()
        opened = open_postings(index, commit.sparse_files, commit.mark.rows)
        open_s, begun = time.perf_counter() - begun, time.perf_counter()
        SparseWriter(Path(folder), [], 0, 1).rebuild(reader.impacts(), commit.mark.rows)
        build_s = time.perf_counter() - begun
        assert opened is not None
        count = sum(int((block.sizes >> 1).sum()) for block in opened.blocks)
        size = sum((index / file.file).stat().st_size for file in commit.sparse_files)
    return StoredPostings(count, size / max(1, count), open_s, build_s)


class BackendSpeed(NamedTuple):
    """One back end, retrieving `top_k` hits.

    ready_s: seconds of the first query, which builds or loads what the back end needs. p50_ms: of the others.
    recall: share of the exact first 10, 100, 1000 hits that are among the first 10, 100, 1000; None beyond top_k.
    """

    backend: str
    top_k: int
    ready_s: float
    p50_ms: float
    recall_10: float | None
    recall_100: float | None
    recall_1000: float | None


def bench_sparse(
    index: Path, queries: Path, backends: Sequence[str] = (), count: int = 100, top_k: Sequence[int] = (10, 1000)
) -> list[BackendSpeed]:
    """Ask each back end in turn the same `count` queries, encoded once; Lucene's rankings are the exact ones.

    backends: those that are installed, if none are named.

    Raises:
        UserError: an index without sparse terms, an unreadable file, an unknown back end or one that is not installed.
    """
    with Retriever.open(index) as retriever:
        texts = [query.text for query in load_queries(queries)][:count]
        retriever.plan("sparse")  # refuses an index without terms
        reader = retriever.reader
        if not isinstance(reader, FolderReader):
            raise UserError(f"{index}: a sharded index; give the folder of one of its shards")
        terms = retriever.encode(texts).sparse
        assert terms is not None
        searchers = {
            name: make_sparse_backend(name, reader)
            for name in dict.fromkeys([EXACT, *(backends or installed_backends())])
        }
        ready: dict[str, float] = {}
        for name, backend in searchers.items():
            begun = time.perf_counter()
            backend.search(terms[0], 1)
            ready[name] = time.perf_counter() - begun
        times: dict[tuple[str, int], list[float]] = {}
        found: dict[tuple[str, int], list[list[str]]] = {}
        for row in range(len(texts)):
            for k in top_k:
                for name, backend in searchers.items():
                    begun = time.perf_counter()
                    ranking = backend.search(terms[row], k)
                    times.setdefault((name, k), []).append((time.perf_counter() - begun) * 1000)
                    found.setdefault((name, k), []).append([hit.doc_id for hit in ranking])
    return [
        BackendSpeed(
            name,
            k,
            ready[name],
            median(times[name, k]),
            *(exact_recall(found[name, k], found[EXACT, k], depth) if depth <= k else None for depth in DEPTHS),
        )
        for k in top_k
        for name in searchers
    ]
