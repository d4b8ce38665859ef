"""Search: encode the query once, run the legs side by side, fuse, fetch the text of what is shown."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from retriever.encoder.of_index import load_index_encoder
from retriever.index.files import VERIFY, damaged
from retriever.index.reader import FolderReader, check_top_k
from retriever.lazy import lazy
from retriever.processes import refuse_fork
from retriever.search.commit_view import CommitView, open_legs
from retriever.search.fusion import Fused, FusionConfig
from retriever.search.leg import LEGS, LegOptions, LegQuery, views_of
from retriever.search.modes import CANDIDATES, HYBRID, MODES, Plan, legs_named, restricted
from retriever.search.passages import Passages, best_passages
from retriever.search.stored_fusion import stored_fusion
from retriever.types import Encoded, Encoder, Hit, LegPart, Query, Ranking, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from retriever.encoder.runtime import RuntimeConfig

__all__ = ["MODES", "QueryRanking", "QueryRankings", "Retriever"]

QUERIES_PER_BATCH = 256
log = logging.getLogger(__name__)


class QueryRanking(NamedTuple):
    """The hits of one query of a batch, without their texts."""

    query_id: str
    ranking: Ranking


class QueryRankings(NamedTuple):
    """The hits of one query of a batch, without their texts, by leg or by mode."""

    query_id: str
    rankings: dict[str, Ranking]


class Retriever:
    """Searches an index folder. Thread-safe; a context manager that frees the index when it is left.

    Examples:
        hits = Retriever.open("my-index").search("how do vaccines work", top_k=10, mode="hybrid")
        hits[0].doc_id, hits[0].score, hits[0].text, hits[0].parts
    """

    def __init__(
        self,
        reader: FolderReader,
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
        self._swapping, self._process = threading.Lock(), os.getpid()
        self._pool = ThreadPoolExecutor(max_workers=len(LEGS), thread_name_prefix="leg")

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
    ) -> Retriever:
        """Open an index folder as it stands at its last commit.

        encoder: where the index's encoder is, if not where it was when the index was built; it is loaded with the first
        query that needs it. fusion: how hybrid search combines the legs, if not as `retriever tune --write` stored.
        query_mode: how queries become sparse terms, "encoder" or "lexical", if not as the encoder's settings say.
        verify: read every file of the index first, and compare it with its checksum.
        sparse_backend: what searches the sparse terms: "postings" and "lucene" give the same ranking, the first without
        Java and faster; "two-step" is Lucene, faster and not quite exact; "seismic" is approximate, and reads all terms
        into memory with the first query, and after `reopen`.

        Raises:
            UserError: the folder is missing, foreign or damaged.
        """
        reader = FolderReader.open(path, verify=verify)
        try:
            return cls(
                reader, encoder, fusion=fusion, runtime=runtime, query_mode=query_mode, sparse_backend=sparse_backend
            )
        except UserError:
            reader.close()
            raise

    def reopen(self) -> bool:
        """See the last commit from now on; return whether there was a new one. Searches under way keep their view.

        Cheap: what has not changed is not read again, and the encoder stays loaded.

        Raises:
            UserError: the folder is not there any more, was built again, or is damaged.
        """
        self._check_process()
        with self._swapping:
            newer = self.reader.reopen()
            if newer is None:
                return False
            self.reader.close()
            self.reader = newer
            self._legs = open_legs(newer, self._options)
            self.fusion = self._fusion_of(newer)
            return True

    def _fusion_of(self, reader: FolderReader) -> FusionConfig:
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

    def search(
        self, query: str, top_k: int = 10, *, mode: str = "hybrid", explain: bool = False, filter: str | None = None
    ) -> list[Hit]:
        """Return the best `top_k` documents for `query`, with their texts.

        mode: "hybrid", a leg ("bm25", "sparse", "dense", ...), or several as in "dense+sparse", fused by their weights.
        explain: also say which terms matched.
        filter: search only among the documents whose metadata satisfy it, e.g. "year >= 2020 and lang = en".

        Raises:
            UserError: the query is empty, top_k below 1, the index cannot answer in this mode, or has not the field.
        """
        if not query.strip():
            raise UserError("the query is empty; give at least one word")
        check_top_k(top_k)
        plan = self.plan(mode)
        legs = plan.legs
        self._check_filter(filter)
        asked = LegQuery(query, self._encode([query], legs))
        _say_unread(_unread(asked.encoded), 1)
        depth = max(top_k, CANDIDATES) if len(legs) > 1 else top_k
        vocabulary = self.encoder.vocabulary if asked.encoded is not None else ()
        with self._view(filter) as view:
            rankings = view.run_side_by_side(legs, asked, depth, self._pool)
            fused = plan.fuse(rankings)
            shown = fused.ranking[:top_k]
            documents = view.reader.stored(hit.doc_id for hit in shown)
            if len(documents) < len(shown):
                raise damaged(view.reader.path, "what was found is not stored", VERIFY)
            passages = dict.fromkeys(documents, Passages((), {}))
            if view.reader.settings.chunking is not None:
                passages = best_passages(view.chunks(legs, asked, documents), documents, plan)
            terms = {
                hit.doc_id: view.explain(legs, asked, hit.doc_id, vocabulary, passages[hit.doc_id].best)
                for hit in shown
                if explain
            }
        parts = _parts(rankings, fused, {hit.doc_id for hit in shown})
        return [
            Hit(
                rank=rank,
                doc_id=hit.doc_id,
                score=hit.score,
                title=documents[hit.doc_id].document.title,
                text=documents[hit.doc_id].document.text,
                metadata=documents[hit.doc_id].document.metadata,
                parts=parts[hit.doc_id],
                terms=terms.get(hit.doc_id, ()),
                chunks=passages[hit.doc_id].chunks,
            )
            for rank, hit in enumerate(shown, start=1)
        ]

    def rank(
        self, queries: Iterable[Query], top_k: int = 1000, *, mode: str = "hybrid", filter: str | None = None
    ) -> Iterator[QueryRanking]:
        """Return each query's ranking without texts, in order, as a stream: for run files and evaluation.

        Queries are encoded and searched in batches; a query without any word has no hits.

        Raises:
            UserError: top_k below 1, the index cannot answer in this mode, or has not a field of the filter.
        """
        found = self.rank_modes(queries, top_k, modes=(mode,), filter=filter)
        return (QueryRanking(query_id, rankings[mode]) for query_id, rankings in found)

    def rank_modes(
        self, queries: Iterable[Query], top_k: int, *, modes: Sequence[str], filter: str | None = None
    ) -> Iterator[QueryRankings]:
        """Return each query's ranking in each mode, as `rank` does; queries are encoded once and each leg runs once.

        Raises:
            UserError: as `rank`, for any of the modes.
        """
        check_top_k(top_k)
        plans = {mode: self.plan(mode) for mode in modes}
        legs = tuple(leg for leg in LEGS if any(leg in plan.legs for plan in plans.values()))
        fused = any(len(plan.legs) > 1 for plan in plans.values())
        found = self.rank_legs(queries, max(top_k, CANDIDATES) if fused else top_k, legs=legs, filter=filter)
        return (
            QueryRankings(query_id, {mode: plan.fuse(rankings).ranking[:top_k] for mode, plan in plans.items()})
            for query_id, rankings in found
        )

    def rank_legs(
        self,
        queries: Iterable[Query],
        depth: int,
        *,
        legs: Sequence[str],
        filter: str | None = None,
        observe: Callable[[Encoded], object] | None = None,
    ) -> Iterator[QueryRankings]:
        """Return the first `depth` hits of each leg for each query: what the modes are fused from.

        observe: is shown each batch of encoded queries.
        """
        check_top_k(depth)
        self._check_filter(filter)
        return self._rank_legs(iter(queries), depth, legs, filter, observe)

    def _rank_legs(
        self,
        stream: Iterator[Query],
        depth: int,
        legs: Sequence[str],
        filter: str | None,
        observe: Callable[[Encoded], object] | None,
    ) -> Iterator[QueryRankings]:
        unread = total = 0
        with self._view(filter) as view:
            while batch := list(islice(stream, QUERIES_PER_BATCH)):
                encoded = self._encode([query.text for query in batch], legs)
                unread, total = unread + _unread(encoded), total + len(batch)
                if observe is not None and encoded is not None:
                    observe(encoded)
                columns = {leg: view.run_batch(leg, batch, encoded, depth, self._pool) for leg in legs}
                for i, query in enumerate(batch):
                    yield QueryRankings(query.query_id, {leg: column[i] for leg, column in columns.items()})
        _say_unread(unread, total)

    def time(self, text: str, depth: int, *, legs: Sequence[str]) -> dict[str, float]:
        """Return the milliseconds that the parts of one search take: "encoding", if needed, and each leg by itself."""
        started = perf_counter()
        encoded = self._encode([text], legs)
        found = {} if encoded is None else {"encoding": (perf_counter() - started) * 1000}
        with self._view() as view:
            for leg in legs:
                started = perf_counter()
                view.run(leg, LegQuery(text, encoded), depth)
                found[leg] = (perf_counter() - started) * 1000
        return found

    def _check_process(self) -> None:
        """Refuse before anything waits for a lock or a thread of the process that opened the index."""
        refuse_fork(self._process, "this index was opened")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self.reader.path}: an open index cannot be sent to another process; send its path, open it there"
        )

    def close(self) -> None:
        """Free the index; nothing in a forked process, whose it is not."""
        if self._process != os.getpid():
            return
        self._pool.shutdown()
        self.reader.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plan(self, mode: str) -> Plan:
        """Return the legs and the fusion of a mode; raise UserError if the index cannot answer in it."""
        if mode == HYBRID:
            legs = tuple(leg for leg in self.legs if self.fusion.weights.get(leg, 0) > 0)
            if not legs:
                raise UserError(
                    f"the fusion weighs {', '.join(self.fusion.weights)}, the index has {', '.join(self.legs)}; "
                    "give one of these a weight above 0"
                )
            return Plan(legs, self.fusion)
        legs = legs_named(mode)
        for leg in legs:
            if leg not in self.legs:
                raise UserError(
                    f"{self.reader.path}: the index has no {leg} leg, its encoder is "
                    f"{self.reader.settings.encoder.name}; search it with {' or '.join(self.legs)}, "
                    "or build it with another encoder"
                )
        return Plan(legs, restricted(self.fusion, legs) if len(legs) > 1 else self.fusion)

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

    def _encode(self, texts: Sequence[str], legs: Sequence[str]) -> Encoded | None:
        """Encode the queries once, in the views that the legs need; for none the encoder is not even loaded."""
        views = views_of(legs)
        if not views:
            return None
        encoded = self.encoder.encode_queries(texts, dense="dense" in views, sparse="sparse" in views)
        if encoded.sparse is None or not self.encoder.adapts:
            return encoded
        with self._view() as view:  # `reopen` may close `self.reader` meanwhile
            return encoded._replace(sparse=self.encoder.adapt(encoded.sparse, view.reader.token_statistics))


def _unread(encoded: Encoded | None) -> int:
    return 0 if encoded is None or encoded.unread is None else int(encoded.unread.sum())


def _say_unread(unread: int, total: int) -> None:
    """Log which queries the legs that read the encoder's views are silent for."""
    if unread:
        what = "the query is" if total == 1 else f"{unread} of {total} queries are"
        log.warning("%s mostly of characters that the encoder cannot read: only BM25 searches for it", what)


def _parts(rankings: Mapping[str, Ranking], fused: Fused, shown: set[str]) -> dict[str, dict[str, LegPart]]:
    """Return what each leg says about the documents that are shown."""
    parts: dict[str, dict[str, LegPart]] = {doc_id: {} for doc_id in shown}
    for leg, ranking in rankings.items():
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            if doc_id in shown and doc_id in fused.normalised[leg]:  # what stands deep in a leg did not count
                parts[doc_id][leg] = LegPart(rank, score, fused.normalised[leg][doc_id])
    return parts
