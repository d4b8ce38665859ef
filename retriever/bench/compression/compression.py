"""What smaller vectors and terms cost: one data set encoded once, and an index of it for each choice of settings."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from retriever.bench.compression.encoding_cache import cached_encoding
from retriever.bench.compression.plan import plan_storages
from retriever.encoder.load import load_encoder
from retriever.eval.evaluator import evaluate_run
from retriever.eval.exact_recall import exact_recall
from retriever.index.reader import FolderReader
from retriever.indexing.build import IndexingConfig, build_index
from retriever.ranking import order, separate_ties, without_self
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.leg import LegOptions, LegQuery
from retriever.search.modes import CANDIDATES, Plan
from retriever.search.opened.commit_view import own_legs
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.bench.compression.encoding_cache import CachedEncoder
    from retriever.bench.compression.plan import Storage, StorageNames
    from retriever.eval.data.dataset import Dataset
    from retriever.types import Encoded, Encoder, Ranking, Run

__all__ = ["CompressionPoint", "LegPoint", "bench_compression"]

MEASURE = "nDCG@10"
RECALL_DEPTHS = (10, 100)


class CompressionPoint(NamedTuple):
    """What one way of storing is worth.

    *_bytes: per document; those of `texts` are the stored documents and BM25's postings, the same in all.
    legs: by name; BM25 reads none of what is stored in different ways.
    """

    storage: Storage
    rows_bytes: float
    faiss_bytes: float
    terms_bytes: float
    texts_bytes: float
    build_seconds: float
    legs: dict[str, LegPoint]
    hybrid_ndcg: float


class LegPoint(NamedTuple):
    """What a leg finds.

    qps: queries per second of one thread at the depth to which hybrid search reads a leg, encoding left out.
    recall_k: share of the k best of exact search over float32 vectors, or over unrounded weights of all terms; None for
    a leg that ranks by anything else.
    """

    qps: float
    recall_10: float | None
    recall_100: float | None
    ndcg: float


class _LegResult(NamedTuple):
    run: Run
    per_second: float


def bench_compression(
    data: Dataset, encoder: Encoder, names: StorageNames, *, progress: bool = False
) -> Iterator[CompressionPoint]:
    """Encode a data set once, then build and measure one index after the other, see `plan_storages`.

    Raises:
        UserError: the encoder lacks a view.
    """
    if not (encoder.identity.dense_dim and encoder.identity.vocab_size):
        raise UserError(f"the encoder {encoder.identity.name} has not both views; give one that has")
    kept = cached_encoding(data, encoder, progress=progress)
    assert kept.encoded.sparse is not None
    storages = plan_storages(names, float(kept.encoded.sparse.data.max(initial=0)))
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(data, encoder, kept, Path(folder))
        for storage in tqdm(storages, desc="index", unit=" indexes", file=sys.stderr, disable=not progress):
            yield bench.measure(storage)


class _Bench:
    """Builds indexes of one data set; legs that are stored alike are searched once."""

    def __init__(self, data: Dataset, encoder: Encoder, kept: CachedEncoder, folder: Path) -> None:
        self._data, self._kept, self._folder = data, kept, folder
        texts = folder / "texts"
        build_index(data.corpus, texts, encoder=load_encoder("none"))
        with FolderReader.open(texts) as reader:
            self._texts_bytes = reader.sizes()["lucene"] / max(reader.num_documents, 1)
        self._encoder = encoder
        self._queries: Encoded | None = None
        self._exact: dict[str, Run] = {}
        self._found: dict[tuple[str, ...], _LegResult] = {}

    def measure(self, storage: Storage) -> CompressionPoint:
        path = self._folder / "index"
        started = perf_counter()
        build_index(self._data.corpus, path, encoder=self._kept, config=IndexingConfig(**storage._asdict()))
        seconds = perf_counter() - started
        with FolderReader.open(path) as reader:
            legs = self._search(reader, storage)
            sizes = {part: size / max(reader.num_documents, 1) for part, size in reader.sizes().items()}
        shutil.rmtree(path)
        runs = {leg: result.run for leg, result in legs.items()}
        plan = Plan(tuple(legs), FusionConfig())
        queries = next(iter(runs.values()))
        fused = {query: plan.fuse({leg: run[query] for leg, run in runs.items()}).ranking for query in queries}
        return CompressionPoint(
            storage,
            sizes["rows"],
            sizes["dense"],
            sizes["lucene"] - self._texts_bytes,
            self._texts_bytes,
            seconds,
            {leg: self._leg_point(leg, result) for leg, result in legs.items()},
            self._ndcg(fused),
        )

    def _leg_point(self, leg: str, result: _LegResult) -> LegPoint:
        exact = self._exact.get(leg)
        at_10, at_100 = (
            None if exact is None else exact_recall(_ids(result.run), _ids(exact), depth) for depth in RECALL_DEPTHS
        )
        return LegPoint(result.per_second, at_10, at_100, self._ndcg(result.run))

    def _search(self, reader: FolderReader, storage: Storage) -> dict[str, _LegResult]:
        """Return what each leg of an index finds, from an earlier index where that stored the leg alike."""
        if self._queries is None:
            self._encode(reader)
        queries = [LegQuery(query.text, self._queries, row) for row, query in enumerate(self._data.queries)]
        depth = CANDIDATES + self._data.exclude_self
        stored = {
            "sparse": (str(storage.impact_scale), str(storage.max_terms)),
            "dense": (storage.rows, storage.dense_type),
        }
        opened = own_legs(reader, LegOptions("lucene"))
        keys = {name: (name, *(one for view in leg.views for one in stored[view])) for name, leg in opened.items()}
        for leg, key in keys.items():
            if key not in self._found:
                started = perf_counter()
                found = [opened[leg].run(query, depth) for query in queries]
                per_second = len(queries) / (perf_counter() - started)
                self._found[key] = _LegResult(self._run(found), per_second)
        return {leg: self._found[key] for leg, key in keys.items()}

    def _encode(self, reader: FolderReader) -> None:
        """Encode the queries, and find what exact search over the unrounded views finds: by the leg of each view."""
        encoded = self._encoder.encode_queries([query.text for query in self._data.queries])
        if self._encoder.adapts and encoded.sparse is not None:
            encoded = encoded._replace(sparse=self._encoder.adapt(encoded.sparse, reader.token_statistics))
        self._queries = encoded
        views = self._kept.encoded
        assert encoded.dense is not None and encoded.sparse is not None
        assert views.dense is not None and views.sparse is not None
        dense = encoded.dense.astype(np.float64) @ views.dense.astype(np.float64).T
        dense[:, ~views.dense.any(axis=1)] = -np.inf  # a text without tokens has no vector to be found by
        sparse = (encoded.sparse.astype(np.float64) @ views.sparse.astype(np.float64).T).toarray()
        self._exact = {
            "dense": self._run([self._best(scores, -np.inf) for scores in dense]),
            "sparse": self._run([self._best(scores, 0.0) for scores in sparse]),
        }

    def _best(self, scores: NDArray[np.float64], above: float) -> Ranking:
        """Return the first of all documents by their exact scores (n,), as far as these are above a number."""
        depth = max(RECALL_DEPTHS) + 1  # one may be the query itself
        least = np.partition(scores, -depth)[-depth] if len(scores) > depth else -np.inf
        rows = np.flatnonzero((scores >= least) & (scores > above)).tolist()
        return order(((self._kept.doc_ids[row], float(scores[row])) for row in rows), top_k=depth)

    def _run(self, found: Sequence[Ranking]) -> Run:
        """Return rankings by query, without the query itself where the data set leaves it out."""
        own = self._data.exclude_self
        pairs = zip(self._data.queries, found, strict=True)
        return {query.query_id: without_self(ranking, query.query_id, exclude=own) for query, ranking in pairs}

    def _ndcg(self, run: Run) -> float:
        clear = {query_id: separate_ties(ranking) for query_id, ranking in run.items()}
        return evaluate_run(clear, self._data.qrels, measures=[MEASURE]).mean[MEASURE]


def _ids(run: Run) -> list[list[str]]:
    return [[hit.doc_id for hit in ranking] for ranking in run.values()]
