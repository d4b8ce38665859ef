"""Other engines that `bench search` compares with, all extras: bm25s, Qdrant Edge and Seismic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.sparse import vstack

from retriever.bench.search.task import Built, Task
from retriever.experiments.environment import peak_mib
from retriever.index.postings.quantise import quantise
from retriever.indexing.build import IndexingConfig

if TYPE_CHECKING:
    from retriever.types import Document

__all__ = ["Bm25s", "Qdrant", "Seismic"]

SCALE = IndexingConfig.impact_scale
"""Documents get the impacts that they have in an index of ours."""


class Bm25s:
    """BM25 over the words of a text, from matrices in memory."""

    legs: ClassVar[tuple[str, ...]] = ("bm25",)

    def __init__(self, task: Task) -> None:
        self._task = task

    def build(self) -> Built:
        """Split all texts into words, and weigh these."""
        import bm25s

        documents: list[Document] = [document for batch in self._task.batches() for document in batch.documents]
        begun = time.perf_counter()
        words = bm25s.tokenize([document.contents for document in documents], show_progress=False)
        self._index = bm25s.BM25(k1=0.9, b=0.4)
        self._index.index(words, show_progress=False)
        seconds = time.perf_counter() - begun
        self._ids = np.array([document.doc_id for document in documents])
        size = sum(self._index.scores[part].nbytes for part in ("data", "indices", "indptr"))
        return Built(seconds, size, peak_mib(), 0.0)

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Split the query into words and search."""
        import bm25s

        words = bm25s.tokenize([self._task.texts[query]], show_progress=False)
        rows, _ = self._index.retrieve(words, k=min(top_k, len(self._ids)), show_progress=False)
        return self._ids[rows[0]].tolist()  # type: ignore[no-any-return]


class Qdrant:
    """Qdrant's engine in this process, over the same impacts and vectors, both exact."""

    legs: ClassVar[tuple[str, ...]] = ("sparse", "dense")

    def __init__(self, task: Task) -> None:
        self._task, self._folder = task, task.folder / "qdrant"

    def build(self) -> Built:
        """Upsert, let the engine optimise, and open what it stored."""
        import qdrant_edge as q

        self._folder.mkdir()
        vectors = q.EdgeVectorParams(size=self._task.sample.vectors.shape[1], distance=q.Distance.Dot)
        config = q.EdgeConfig(vectors={"d": vectors}, sparse_vectors={"s": q.EdgeSparseVectorParams()})
        shard, seconds, number = q.EdgeShard.create(str(self._folder), config), 0.0, 0
        for batch in self._task.batches():
            assert batch.encoded.sparse is not None and batch.encoded.dense is not None
            impacts, points = quantise(batch.encoded.sparse, SCALE), []
            for row, vector in enumerate(batch.encoded.dense.tolist()):
                sparse = q.SparseVector(*_terms(impacts[row]))
                points.append(q.Point(number, {"d": vector, "s": sparse}, {}))
                number += 1
            begun = time.perf_counter()
            shard.update(q.UpdateOperation.upsert_points(points))
            seconds += time.perf_counter() - begun
        begun = time.perf_counter()
        shard.optimize()
        shard.flush()
        shard.close()
        seconds, peak, begun = seconds + time.perf_counter() - begun, peak_mib(), time.perf_counter()
        self._shard = q.EdgeShard.load(str(self._folder), config)
        self.ask("sparse", 10, 0)
        opened = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        return Built(seconds, size, peak, opened)

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Search one of the two kinds of vectors."""
        import qdrant_edge as q

        encoded = self._task.encoded
        assert encoded.sparse is not None and encoded.dense is not None
        if leg == "sparse":
            nearest = q.Query.Nearest(q.SparseVector(*_terms(encoded.sparse[query])), using="s")
        else:
            nearest = q.Query.Nearest(encoded.dense[query].tolist(), using="d")
        found = self._shard.query(q.QueryRequest(limit=top_k, query=nearest, params=q.SearchParams(exact=True)))
        return [f"{point.id:08d}" for point in found]


class Seismic:
    """Seismic over the same impacts, approximate, by the settings of our back end of that name."""

    legs: ClassVar[tuple[str, ...]] = ("sparse",)

    def __init__(self, task: Task) -> None:
        self._task, self._path = task, task.folder / "seismic"

    def build(self) -> Built:
        """Build in another process, whose memory is not on record, and read what it wrote."""
        from seismic import SeismicIndexRaw

        from retriever.search.legs.backends import build_seismic

        parts = [batch.encoded.sparse for batch in self._task.batches() if batch.encoded.sparse is not None]
        impacts = quantise(vstack(parts, "csr"), SCALE)
        self._rows = np.flatnonzero(np.diff(impacts.indptr))
        begun = time.perf_counter()
        build_seismic(self._path, impacts, self._rows)
        seconds, begun = time.perf_counter() - begun, time.perf_counter()
        self._index: Any = SeismicIndexRaw.load(str(self._path))
        return Built(seconds, self._path.stat().st_size, peak_mib(), time.perf_counter() - begun)

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Search the blocks of the strongest query terms."""
        from retriever.search.legs.backends import HEAP_FACTOR, QUERY_TERMS

        assert self._task.encoded.sparse is not None
        row = self._task.encoded.sparse[query]
        terms = row.indices.astype(np.int32), row.data.astype(np.float32)
        found = self._index.search(*terms, min(top_k, len(self._rows)), QUERY_TERMS, HEAP_FACTOR, 0, True)
        return [f"{self._rows[hit[1]]:08d}" for hit in found]


def _terms(row: Any) -> tuple[list[int], list[float]]:
    """Return the terms of one csr row and their weights, as Qdrant takes them."""
    return row.indices.tolist(), row.data.astype(np.float64).tolist()
