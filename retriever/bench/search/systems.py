"""The systems that `bench search` compares, each in a process of its own: so its memory is its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from retriever.bench.search.engines import Bm25s, Qdrant, Seismic
from retriever.bench.search.peers import Faiss, Pyserini
from retriever.bench.search.task import SHOWN, Answers, Built, Request, System, Task, one_thread
from retriever.encoder.base import EncoderBase
from retriever.encoder.runtime import RuntimeConfig
from retriever.experiments.environment import peak_mib, resident_mib
from retriever.rank import Pipeline
from retriever.search.leg import LEGS, LegOptions, LegQuery
from retriever.search.legs.sparse import SparseLeg
from retriever.search.modes import HYBRID
from retriever.search.opened.commit_view import open_legs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from retriever.types import Encoded, EncoderIdentity

__all__ = ["ENCODED", "EXTRAS", "SYSTEMS", "installed_systems", "serve"]


TWO_STEP = "two-step"
"""The sparse leg by a back end that is not exact, beside the exact ones."""
LUCENE = "lucene"
"""The sparse leg by Lucene, the reference."""
ENCODING, WITH_ENCODER, LEXICAL = "encoding", "hybrid encoder", "hybrid lexical"
MORE: dict[str, dict[str, Any]] = {
    "hybrid explained": {"explain": True},
    "hybrid marked": {"highlight": True},
    "hybrid > feedback": {"pipeline": Pipeline.parse("hybrid > feedback")},
}
"""Hybrid search that is asked for more: why hits were found, their marked words, a second search by the first ones."""
ENCODED = (ENCODING, WITH_ENCODER, LEXICAL, *MORE)
"""The encoding of the query, and hybrid search with it, end to end, in both query modes, and with more."""


class Ours:
    """An index folder of ours, written by `FolderWriter` and searched by `Retriever`."""

    legs: ClassVar[tuple[str, ...]] = (*LEGS, LUCENE, TWO_STEP, HYBRID, *ENCODED)

    def __init__(self, task: Task) -> None:
        self._task, self._folder = task, task.folder / "ours"

    def build(self) -> Built:
        from retriever.index import FolderWriter
        from retriever.indexing.build import IndexingConfig

        settings = IndexingConfig().settings(self._task.sample.identity)
        seconds, pending = 0.0, 0
        shutil.rmtree(self._folder, ignore_errors=True)
        with FolderWriter.create(self._folder, settings) as writer:
            for batch in self._task.batches():
                begun = time.perf_counter()
                writer.add(batch.documents, batch.encoded)
                pending += len(batch.documents)
                if pending >= IndexingConfig.commit_every_documents:
                    writer.commit()
                    pending = 0
                seconds += time.perf_counter() - begun
            begun = time.perf_counter()
            writer.commit(dense_type="auto")
            seconds += time.perf_counter() - begun
        peak, begun = peak_mib(), time.perf_counter()
        self._open()
        self.ask(HYBRID, SHOWN, 0)
        opened = time.perf_counter() - begun
        return Built(seconds, sum(self._retriever.reader.sizes().values()), peak, opened)

    def _open(self) -> None:
        from retriever.index.reader import FolderReader
        from retriever.search.retriever import Retriever

        one_thread()
        reader = FolderReader.open(self._folder)
        others = {name: SparseLeg(reader, LegOptions(name)) for name in (LUCENE, TWO_STEP)}
        self._legs = {**open_legs(reader, LegOptions()), **others}
        self._retriever = Retriever(reader, KnownQueries(reader.settings.encoder, self._task.texts, self._task.encoded))
        self._whole = {
            leg: Retriever(reader, self._task.encoder, query_mode=mode, runtime=RuntimeConfig(recent_queries=0))
            for leg, mode in ((WITH_ENCODER, "encoder"), (LEXICAL, "lexical"))
            if self._task.encoder
        }

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
        if leg == ENCODING:
            self._whole[WITH_ENCODER].encode([self._task.texts[query]])
            return []
        if leg in ENCODED:
            whole, more = self._whole.get(leg, self._whole[WITH_ENCODER]), MORE.get(leg, {})
            return [hit.doc_id for hit in whole.search(self._task.texts[query], top_k, **more)]
        if leg == HYBRID:
            return [hit.doc_id for hit in self._retriever.search(self._task.texts[query], top_k)]
        leg_query = LegQuery(self._task.texts[query], self._task.encoded, query)
        return [hit.doc_id for hit in self._legs[leg].run(leg_query, top_k)]


class KnownQueries(EncoderBase):
    """An encoder that knows its queries' encodings: encoding costs nothing."""

    def __init__(self, identity: EncoderIdentity, texts: Sequence[str], encoded: Encoded) -> None:
        self.identity, self._encoded = identity, encoded
        self.vocabulary: Sequence[str] = ()
        self._place = {text: place for place, text in enumerate(texts)}

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Look the queries up."""
        places = [self._place[text] for text in texts]
        known = self._encoded
        assert known.dense is not None and known.sparse is not None
        return known._replace(
            dense=known.dense[places] if dense else None,
            sparse=known.sparse[places] if sparse else None,
            truncated=known.truncated[places],
        )

    encode_documents = encode_queries


SYSTEMS: dict[str, type[System]] = {
    "retriever": Ours,
    "faiss": Faiss,
    "pyserini": Pyserini,
    "bm25s": Bm25s,
    "qdrant": Qdrant,
    "seismic": Seismic,
}
EXTRAS = {"bm25s": "bm25s", "qdrant": "qdrant_edge", "seismic": "seismic"}
"""The modules of systems that are not installed with this package: those of bm25s, qdrant-edge-py, pyseismic-lsr."""


def installed_systems() -> tuple[str, ...]:
    """Return the systems that can be measured here."""
    return tuple(name for name in SYSTEMS if name not in EXTRAS or importlib.util.find_spec(EXTRAS[name]) is not None)


def serve(name: str, task: Task, connection: Connection) -> None:
    """Build one system, answer each `Request` with `Answers` until None comes, say what memory is used then."""
    os.dup2(2, 1)  # what libraries print does not belong among the results
    system = SYSTEMS[name](task)
    connection.send(system.build())
    while (request := connection.recv()) is not None:
        connection.send(_answer(system.ask, request))
    connection.send(resident_mib())


def _answer(ask: Callable[[str, int, int], list[str]], request: Request) -> Answers:
    def one(query: int) -> tuple[float, list[str]]:
        begun = time.perf_counter()
        ids = ask(request.leg, request.top_k, query)
        return (time.perf_counter() - begun) * 1000, ids[:SHOWN]

    begun = time.perf_counter()
    if request.threads == 1:
        found = [one(query) for query in request.queries]
    else:
        with ThreadPoolExecutor(request.threads) as pool:
            found = list(pool.map(one, request.queries))
    seconds = time.perf_counter() - begun
    return Answers([milliseconds for milliseconds, _ in found], seconds, [ids for _, ids in found])
