"""Sharded indexes beside a single one of the same documents: equal rankings, throughput, memory of each process.

The single index is built first, in this process; then each sharded one by the workers of a local Ray cluster. Both are
searched in every leg and in hybrid, the sharded one here and by actors, and rankings compared to the last tie.
"""

from __future__ import annotations

import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.bench.shards.hashed import HashedEncoder
from retriever.bench.shards.processes import ProcessMemory, Watch
from retriever.cluster.connect import LOCAL
from retriever.cluster.indexing import build_sharded_index
from retriever.corpus.corpus import Corpus, load_queries, open_corpus
from retriever.corpus.formats import Row
from retriever.encoder.load import load_encoder
from retriever.indexing.build import IndexingConfig, build_index
from retriever.search.modes import HYBRID
from retriever.search.retriever import Retriever
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.types import Encoder, Query, Ranking

__all__ = ["HASHED", "ShardsMeasured", "bench_shards"]

HASHED = "hashed"
"""Stands for `HashedEncoder`."""


class ShardsMeasured(NamedTuple):
    """One index. setting: shards, and what searches them. seconds, cpu_seconds: of building it, None if only searched.

    per_second: documents. queries_per_second: in all modes, one batch. different: rankings that are not those of the
    single index, by mode.
    """

    setting: str
    seconds: float | None
    cpu_seconds: float | None
    per_second: float | None
    queries_per_second: float
    different: dict[str, int]
    memory: list[ProcessMemory]


def bench_shards(
    corpus: str,
    queries: str,
    *,
    documents: int,
    shards: Sequence[int] = (1, 2, 8),
    encoder: str = HASHED,
    depth: int = 100,
    number_of_queries: int = 500,
) -> Iterator[ShardsMeasured]:
    """Build and search a single index and sharded ones of the first `documents` of a corpus; yield each as it is done.

    depth: how many hits of each ranking are compared. The dense leg is exact (flat), as approximate ones differ.

    Raises:
        UserError: the corpus or the queries are fewer.
    """
    asked = list(islice(load_queries(Path(queries)), number_of_queries))
    if len(asked) < number_of_queries:
        raise UserError(f"{queries}: holds {len(asked)} queries, need {number_of_queries}; ask for fewer")
    used = HashedEncoder() if encoder == HASHED else load_encoder(encoder)
    config = IndexingConfig(dense_type="flat", on_duplicate="skip")
    with tempfile.TemporaryDirectory() as folder:
        single = Path(folder) / "single"
        with Watch() as watch:
            report = build_index(_start(corpus, documents), single, encoder=used, config=config)
        if report.documents < documents:
            raise UserError(f"{corpus}: holds {report.documents} documents, need {documents}; ask for fewer")
        wanted, rate, searching = _searched(single, used, asked, depth, None)
        yield _measured("single", watch, documents, rate, dict.fromkeys(wanted[0], 0), searching)
        for count in shards:
            many = Path(folder) / f"shards-{count}"
            with Watch() as watch:
                build_sharded_index(
                    _start(corpus, documents),
                    many,
                    shards=count,
                    cluster=LOCAL,
                    encoder=used if encoder == HASHED else encoder,
                    config=config,
                )
            for where in (None, LOCAL):
                found, rate, searching = _searched(many, used, asked, depth, where)
                built, how = (watch, "built on a cluster") if where is None else (None, "searched on a cluster")
                yield _measured(f"{count} shards, {how}", built, documents, rate, _different(found, wanted), searching)


def _start(corpus: str, documents: int) -> Corpus:
    """Return the first records of a corpus."""
    source = open_corpus(corpus)

    def rows() -> Iterator[Row]:
        for record in islice(source, documents):
            if record.document is not None:
                found = record.document
                yield Row(record.source, {"_id": found.doc_id, "title": found.title, "text": found.text})

    return Corpus(corpus, rows)


def _searched(
    index: Path, encoder: Encoder, queries: list[Query], depth: int, cluster: str | None
) -> tuple[list[dict[str, Ranking]], float, Watch]:
    """Return the rankings of all queries in all modes, how many queries a second, and what the processes held."""
    with Watch() as watch, Retriever.open(index, encoder, cluster=cluster) as retriever:
        modes = (*retriever.legs, HYBRID)
        list(retriever.rank_modes(queries[:8], depth, modes=modes))  # what is loaded and compiled first
        started = time.monotonic()
        found = [one.rankings for one in retriever.rank_modes(queries, depth, modes=modes)]
        took = time.monotonic() - started
    return found, len(queries) / took, watch


def _different(found: list[dict[str, Ranking]], wanted: list[dict[str, Ranking]]) -> dict[str, int]:
    pairs = list(zip(found, wanted, strict=True))
    return {mode: sum(mine[mode] != theirs[mode] for mine, theirs in pairs) for mode in wanted[0]}


def _measured(
    setting: str, built: Watch | None, documents: int, rate: float, different: dict[str, int], searching: Watch
) -> ShardsMeasured:
    if built is None:
        return ShardsMeasured(setting, None, None, None, rate, different, searching.memory)
    return ShardsMeasured(
        setting, built.seconds, built.cpu_seconds, documents / built.seconds, rate, different, built.memory
    )
