"""An index that is open for searching: its last commit, its legs and its encoder, shared by any number of threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from retriever.encoder.of_index import load_index_encoder
from retriever.index.places import open_reader
from retriever.index.reader import FolderReader
from retriever.lazy import lazy
from retriever.processes import refuse_fork
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.fusion.stored import stored_fusion
from retriever.search.leg import LEGS, LegOptions, views_of
from retriever.search.modes import HYBRID, Plan, legs_named, restricted
from retriever.search.opened.commit_view import QUICK_CHUNKS, CommitView, open_legs
from retriever.search.query_language import is_foreign, without_views
from retriever.types import Encoded, Encoder, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from retriever.cluster.replicas import SearchCluster
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.index.contract import IndexReader

__all__ = ["OpenIndex"]

CLUSTER = "retriever.cluster.reader"
"""What opens an index on a cluster; it stands above this room, as it searches with the legs, and is an extra."""


class OpenIndex:
    """Holds what every search needs: the commit, the legs, the fusion, the encoder. Thread-safe; a context manager."""

    def __init__(
        self,
        reader: IndexReader,
        encoder: str | Encoder | None = None,
        *,
        fusion: FusionConfig | None = None,
        runtime: RuntimeConfig | None = None,
        query_mode: str | None = None,
        sparse_backend: str = LegOptions.sparse_backend,
    ) -> None:
        self._options = LegOptions(sparse_backend)
        self._legs = open_legs(reader, self._options)
        self.reader = reader
        self._given_fusion = fusion
        self.fusion = self._fusion_of(reader)
        self._encoder = encoder
        self._runtime = runtime
        self._query_mode = query_mode
        self._swapping, self._reopening, self._process = threading.Lock(), threading.Lock(), os.getpid()
        self._pool = ThreadPoolExecutor(max_workers=len(LEGS), thread_name_prefix="leg")
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | Path,
        encoder: str | Encoder | None = None,
        *,
        fusion: FusionConfig | None = None,
        runtime: RuntimeConfig | None = None,
        query_mode: str | None = None,
        verify: bool = False,
        sparse_backend: str = LegOptions.sparse_backend,
        cluster: str | SearchCluster | None = None,
    ) -> Self:
        """Open an index as it stands at its last commit: a folder, or a sharded one.

        encoder: where the index's encoder is, if not where it was when the index was built; it is loaded with the first
        query that needs it. fusion: how hybrid search combines the legs, if not as `retriever tune --write` stored.
        query_mode: how queries become sparse terms, "encoder" or "lexical", if not as the encoder's settings say.
        verify: read every file of the index first, and compare it with its checksum.
        sparse_backend: what searches the sparse terms: "postings" and "lucene" give the same ranking, the first without
        Java and faster; "two-step" is Lucene, faster and not quite exact; "seismic" is approximate, and reads all terms
        into memory with the first query, and after `reopen`.
        cluster: of a sharded index: search its shards on a Ray cluster, "local" or its address, or a `SearchCluster`.

        Raises:
            UserError: the folder is missing, foreign or damaged, or the cluster cannot be reached.
        """
        if cluster is None:
            reader = open_reader(path, verify=verify)
        else:
            from_cluster = import_module(CLUSTER).open_reader
            reader = from_cluster(path, cluster, verify=verify, options=LegOptions(sparse_backend))
        try:
            return cls(
                reader, encoder, fusion=fusion, runtime=runtime, query_mode=query_mode, sparse_backend=sparse_backend
            )
        except UserError:
            reader.close()
            raise

    def reopen(self) -> bool:
        """See the last commit from now on; return whether there was a new one. Searches under way keep their view.

        Cheap: what has not changed is not read again, and the encoder stays loaded. Searches do not wait for it.

        Raises:
            UserError: the folder is not there any more, was built again, or is damaged.
        """
        self._check_process()
        with self._reopening:
            newer = self.reader.reopen()
            if newer is None:
                return False
            legs, fusion, older = open_legs(newer, self._options), self._fusion_of(newer), self.reader
            with self._swapping:
                self.reader, self._legs, self.fusion = newer, legs, fusion
            older.close()
            return True

    def _fusion_of(self, reader: IndexReader) -> FusionConfig:
        return self._given_fusion or stored_fusion(reader.commit_data.note) or FusionConfig()

    @contextmanager
    def _view(self, filter: str | None = None) -> Iterator[CommitView]:
        """Give one commit, filtered, to one search, which holds it open and so never sees half of another."""
        self._check_process()
        with self._swapping:
            reader, legs = self.reader.share(), self._legs
        try:
            yield CommitView(reader, legs, filter)
        finally:
            reader.close()

    @lazy
    def encoder(self) -> Encoder:
        """Return the encoder of the index, in the requested query mode.

        Raises:
            UserError: it is not there, not the same any more, or has not the query mode that was asked for.
        """
        wanted = self.reader.settings.encoder
        encoder = load_index_encoder(self.reader.path, wanted, self._encoder, self._runtime, lazy=True)
        return encoder if self._query_mode is None else encoder.with_query_mode(self._query_mode)

    @property
    def legs(self) -> tuple[str, ...]:
        """Return the legs that the index has."""
        return tuple(self._legs)

    def plan(self, mode: str, fusion: FusionConfig | None = None) -> Plan:
        """Return the legs and the fusion of a mode; raise UserError if the index cannot answer in it.

        fusion: instead of the index's own.
        """
        fusion = fusion or self.fusion
        if mode == HYBRID:
            legs = tuple(leg for leg in self.legs if fusion.weights.get(leg, 0) > 0)
            if not legs:
                raise UserError(
                    f"the fusion weighs {', '.join(fusion.weights)}, the index has {', '.join(self.legs)}; "
                    "give one of these a weight above 0"
                )
            return Plan(legs, fusion)
        legs = legs_named(mode)
        for leg in legs:
            if leg not in self.legs:
                raise UserError(
                    f"{self.reader.path}: the index has no {leg} leg, its encoder is "
                    f"{self.reader.settings.encoder.name}; search it with {' or '.join(self.legs)}, "
                    "or build it with another encoder"
                )
        return Plan(legs, restricted(fusion, legs) if len(legs) > 1 else fusion)

    def quick(self, query: str) -> bool:
        """Say whether a search is a matter of milliseconds: in not too many texts, and without Java."""
        reader = self.reader
        return isinstance(reader, FolderReader) and reader.num_chunks <= QUICK_CHUNKS and reader.reads_words(query)

    def _check_filter(self, filter: str | None) -> None:
        """Refuse a filter before the work is done for it."""
        with self._view(filter):
            pass

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return queries as the legs of this index read them; raise UserError if it has BM25 alone."""
        encoded = self._encode(texts, self.legs)
        if encoded is None:
            raise UserError(f"{self.reader.path}: has BM25 alone, which reads queries as they are; give another index")
        return encoded

    def _encode(self, texts: Sequence[str], legs: Sequence[str], language: str | None = None) -> Encoded | None:
        """Encode the queries once, in the views that the legs need; for none the encoder is not even loaded.

        Queries in a language that the encoder does not read have no views. language: of the queries, where it is known.
        """
        views = views_of(legs)
        if not views:
            return None
        encoded = self.encoder.encode_queries(texts, dense="dense" in views, sparse="sparse" in views)
        with self._view() as view:  # `reopen` may close `self.reader` meanwhile
            read = self.encoder.languages
            if read is not None:
                encoded = without_views(encoded, [is_foreign(text, read, view.reader, language) for text in texts])
            if encoded.sparse is None or not self.encoder.adapts:
                return encoded
            return encoded._replace(sparse=self.encoder.adapt(encoded.sparse, view.reader.token_statistics))

    def _check_process(self) -> None:
        """Refuse before anything waits for a lock or a thread of the process that opened the index, or is closed."""
        refuse_fork(self._process, "this index was opened")
        if self._closed:
            raise UserError(f"{self.reader.path}: is closed; open it again")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self.reader.path}: an open index cannot be sent to another process; send its path, open it there"
        )

    def close(self) -> None:
        """Free the index; nothing in a forked process, whose it is not."""
        if self._process != os.getpid():
            return
        self._closed = True
        self._pool.shutdown()
        self.reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
