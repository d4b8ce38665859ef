"""What each leg of an index finds for the queries of a data set: searched once, timed, then cached for evaluations.

Fusing the stored rankings with other weights encodes and searches nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.encoder.runtime import numerics
from retriever.files import atomic_file, cache_errors, cache_root
from retriever.search.leg import LEGS, views_of
from retriever.types import ScoredDoc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.search.retriever import Retriever
    from retriever.types import Encoded, Query, Ranking, Run

__all__ = ["BOTH_VIEWS", "LegRun", "find_legs", "timed_places"]

FORMAT = 2
TIMED_QUERIES = 100
WARM_UP = 5
BOTH_VIEWS = "encoding both views"


class LegRun(NamedTuple):
    """What one leg found, and what it cost.

    run: query_id -> ranking, in the order of the queries. times: one mapping for each timed query, of part ("encoding",
    BOTH_VIEWS, the leg) to milliseconds, one query at a time. terms_per_query, flops: of a leg that reads the
    sparse view, else 0 (see SparseCosts).
    """

    run: Run
    times: Sequence[dict[str, float]]
    terms_per_query: float = 0.0
    flops: float = 0.0


def find_legs(
    retriever: Retriever,
    queries: Sequence[Query],
    legs: Sequence[str],
    depth: int,
    *,
    query_mode: str = "encoder",
    fresh: bool = False,
) -> dict[str, LegRun]:
    """Return the run of each leg; legs that were searched before are read from the cache unless it is to be `fresh`."""
    paths = {leg: _path(retriever, queries, leg, depth, query_mode) for leg in legs}
    kept = {} if fresh else {leg: _read(path) for leg, path in paths.items()}
    found = {leg: run for leg, run in kept.items() if run is not None}
    missing = [leg for leg in legs if leg not in found]
    if missing:
        found |= _search(retriever, queries, missing, depth)
        with cache_errors("rankings"):
            for leg in missing:
                paths[leg].parent.mkdir(parents=True, exist_ok=True)
                _write(paths[leg], found[leg])
    return {leg: found[leg] for leg in legs}


def _search(retriever: Retriever, queries: Sequence[Query], legs: Sequence[str], depth: int) -> dict[str, LegRun]:
    counts = _TermCounts(retriever.reader.settings.encoder.vocab_size)
    runs: dict[str, dict[str, Ranking]] = {leg: {} for leg in legs}
    for query_id, rankings in retriever.rank_legs(queries, depth, legs=legs, observe=counts.add):
        for leg, ranking in rankings.items():
            runs[leg][query_id] = ranking
    found = {leg: LegRun(runs[leg], _times(retriever, queries, leg, depth)) for leg in legs}
    terms, flops = counts.sums.sum() / len(queries), counts.flops(retriever) / len(queries)
    return {
        leg: run._replace(terms_per_query=float(terms), flops=flops) if "sparse" in LEGS[leg].views else run
        for leg, run in found.items()
    }


class _TermCounts:
    """Counts in how many queries each term is active."""

    def __init__(self, vocab_size: int) -> None:
        self.sums = np.zeros(vocab_size, np.int64)

    def add(self, encoded: Encoded) -> None:
        if encoded.sparse is not None:
            np.add.at(self.sums, encoded.sparse.indices[encoded.sparse.data > 0], 1)

    def flops(self, retriever: Retriever) -> float:
        """Return the expected number of shared terms of a document with all queries together."""
        terms = np.flatnonzero(self.sums)
        frequencies = np.array(retriever.reader.sparse_frequencies(terms.tolist()))
        return float(self.sums[terms] @ frequencies) / max(retriever.reader.num_documents, 1)


def _times(retriever: Retriever, queries: Sequence[Query], leg: str, depth: int) -> list[dict[str, float]]:
    """Time queries spread evenly over all of them, after some warm-up queries that are not counted."""
    for query in queries[:WARM_UP]:
        _time(retriever, query.text, leg, depth)
    return [_time(retriever, queries[place].text, leg, depth) for place in timed_places(len(queries))]


def _time(retriever: Retriever, text: str, leg: str, depth: int) -> dict[str, float]:
    """Return the milliseconds of a leg alone and of its encoding; for a leg of sparse terms, also that of all views."""
    times = retriever.time(text, depth, legs=(leg,))
    if LEGS[leg].by_query_mode() and views_of(retriever.legs) > views_of([leg]):
        with_views = [other for other in retriever.legs if LEGS[other].views]
        times[BOTH_VIEWS] = retriever.time(text, depth, legs=with_views)["encoding"]
    return times


def timed_places(count: int) -> list[int]:
    """Return which of `count` queries are timed: at most 100, spread evenly.

    >>> timed_places(3)
    [0, 1, 2]
    """
    places: list[int] = np.unique(np.linspace(0, count - 1, min(TIMED_QUERIES, count)).astype(int)).tolist()
    return places


def _path(retriever: Retriever, queries: Sequence[Query], leg: str, depth: int, query_mode: str) -> Path:
    """Return the file of a leg's run, named by all that decides what is in it."""
    reader = retriever.reader
    commit = dataclasses.asdict(reader.commit_data)
    commit["note"] = reader.commit_data.note.get("corpus", "")
    key: dict[str, Any] = {
        "format": FORMAT,
        "commit": commit,
        "settings": dataclasses.asdict(reader.settings),
        "queries": queries,
        "leg": leg,
        "depth": depth,
    }
    if LEGS[leg].views:
        key["numerics"] = numerics(retriever.encoder)
    if LEGS[leg].by_query_mode():
        key["query_mode"] = query_mode
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return cache_root() / "rankings" / f"{leg}-{digest[:24]}.parquet"


def _write(path: Path, found: LegRun) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "query_id": list(found.run),
        "doc_ids": [[hit.doc_id for hit in ranking] for ranking in found.run.values()],
        "scores": [[hit.score for hit in ranking] for ranking in found.run.values()],
    }
    lists = {"doc_ids": pyarrow.list_(pyarrow.string()), "scores": pyarrow.list_(pyarrow.float64())}
    schema = pyarrow.schema({"query_id": pyarrow.string(), **lists})
    costs = json.dumps({key: value for key, value in found._asdict().items() if key != "run"})
    with atomic_file(path) as stream:
        pyarrow.parquet.write_table(pyarrow.table(columns, schema.with_metadata({"costs": costs})), stream)


def _read(path: Path) -> LegRun | None:
    """Return what `_write` stored, None if the file is missing or damaged: it is only a cache."""
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException):
        return None
    columns = zip(*(table[name].to_pylist() for name in ("query_id", "doc_ids", "scores")), strict=True)
    run = {query_id: [*map(ScoredDoc, doc_ids, scores)] for query_id, doc_ids, scores in columns}
    return LegRun(run, **json.loads(table.schema.metadata[b"costs"]))
