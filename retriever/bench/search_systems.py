"""The systems that `bench search` compares, each in a process of its own: so its memory is its own."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from retriever.bench.search_peers import Faiss, Pyserini
from retriever.bench.search_task import SHOWN, Answers, Built, Request, System, Task, one_thread
from retriever.encoder.base import EncoderBase
from retriever.experiments.environment import peak_mib
from retriever.search.commit_view import open_legs
from retriever.search.leg import LEGS, LegOptions, LegQuery
from retriever.search.modes import HYBRID
from retriever.search.sparse import SparseLeg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from retriever.types import Encoded, EncoderIdentity

__all__ = ["SYSTEMS", "serve"]


TWO_STEP = "two-step"
"""The sparse leg by a back end that is not exact, beside the exact one."""


class Ours:
    """An index folder of ours, written by `FolderWriter` and searched by `Retriever`."""

    legs: ClassVar[tuple[str, ...]] = (*LEGS, TWO_STEP, HYBRID)

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
        self._legs = {**open_legs(reader, LegOptions("lucene")), TWO_STEP: SparseLeg(reader, LegOptions(TWO_STEP))}
        self._retriever = Retriever(reader, KnownQueries(reader.settings.encoder, self._task.texts, self._task.encoded))

    def ask(self, leg: str, top_k: int, query: int) -> list[str]:
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


SYSTEMS: dict[str, type[System]] = {"retriever": Ours, "faiss": Faiss, "pyserini": Pyserini}


def serve(name: str, task: Task, connection: Connection) -> None:
    """Build one system, then answer each `Request` with `Answers` until None comes; the target of a process."""
    os.dup2(2, 1)  # what libraries print does not belong among the results
    system = SYSTEMS[name](task)
    connection.send(system.build())
    while (request := connection.recv()) is not None:
        connection.send(_answer(system.ask, request))


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
