"""Search: encode the query once, run the legs side by side, fuse, fetch the text of what is shown."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.fusion import LEGS, Fused, FusionConfig, fuse
from retriever.index.reader import FolderReader
from retriever.index_encoder import load_index_encoder
from retriever.legs import Legs
from retriever.types import Encoded, Encoder, Hit, LegPart, Query, Ranking, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from retriever.encoder import RuntimeConfig

__all__ = ["MODES", "QueryRanking", "Retriever"]

MODES = ("hybrid", *LEGS)
CANDIDATES = 1000
"""Hits that each leg hands to the fusion. Min-max normalisation depends on it, so it does not follow top_k:
the first ten of a hundred hits are the same ten that are found alone."""
QUERIES_PER_BATCH = 256


class QueryRanking(NamedTuple):
    """The hits of one query of a batch, without their texts."""

    query_id: str
    ranking: Ranking


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
        fusion: FusionConfig | None = None,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        self.reader = reader
        self.fusion = fusion or FusionConfig()
        self._encoder = encoder
        self._runtime = runtime
        self._swapping = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=len(LEGS), thread_name_prefix="leg")

    @classmethod
    def open(
        cls,
        path: str | Path,
        encoder: str | Encoder | None = None,
        fusion: FusionConfig | None = None,
        runtime: RuntimeConfig | None = None,
    ) -> Retriever:
        """Open an index folder as it stands at its last commit.

        encoder: where the index's encoder is, if not where it was when the index was built; it is loaded with the first
        query that needs it. fusion: how hybrid search combines the legs.

        Raises:
            UserError: the folder is missing, foreign or damaged.
        """
        return cls(FolderReader.open(path), encoder, fusion, runtime)

    def reopen(self) -> bool:
        """See the last commit from now on; return whether there was a new one. Searches under way keep their view.

        Cheap: what has not changed is not read again, and the encoder stays loaded.

        Raises:
            UserError: the folder is not there any more, was built again, or is damaged.
        """
        with self._swapping:
            newer = self.reader.reopen()
            if newer is None:
                return False
            self.reader.close()
            self.reader = newer
            return True

    @contextmanager
    def _view(self, filter: str | None = None) -> Iterator[Legs]:
        """Give one commit, filtered, to one search, which holds it open and so never sees half of another."""
        with self._swapping:
            reader = self.reader.share()
        try:
            yield Legs(reader, filter)
        finally:
            reader.close()

    @cached_property
    def encoder(self) -> Encoder:
        """Return the encoder of the index; raise UserError if it is not there or not the same any more."""
        return load_index_encoder(self.reader.path, self.reader.settings.encoder, self._encoder, self._runtime)

    @property
    def legs(self) -> tuple[str, ...]:
        """Return the legs that the index has."""
        has = {"bm25": True, "sparse": self.reader.has_sparse, "dense": self.reader.has_dense}
        return tuple(leg for leg in LEGS if has[leg])

    def search(
        self, query: str, top_k: int = 10, mode: str = "hybrid", explain: bool = False, filter: str | None = None
    ) -> list[Hit]:
        """Return the best `top_k` documents for `query`, with their texts.

        mode: "hybrid" or one leg ("bm25", "sparse", "dense"). explain: also say which terms matched.
        filter: search only among the documents whose metadata satisfy it, e.g. "year >= 2020 and lang = en".

        Raises:
            UserError: the query is empty, top_k below 1, the index cannot answer in this mode, or has not the field.
        """
        if not query.strip():
            raise UserError("the query is empty; give at least one word")
        _check_top_k(top_k)
        legs = self._legs_of(mode)
        self._check_filter(filter)
        encoded = self._encode([query], legs)
        depth = max(top_k, CANDIDATES) if len(legs) > 1 else top_k
        vocabulary = self.encoder.vocabulary if encoded is not None else ()
        with self._view(filter) as view:
            futures = {leg: self._pool.submit(view.run, leg, query, encoded, 0, depth) for leg in legs}
            rankings = {leg: future.result() for leg, future in futures.items()}
            fused = self._fuse(rankings)
            shown = fused.ranking[:top_k]
            documents = view.reader.documents(hit.doc_id for hit in shown)
            terms = {hit.doc_id: view.explain(legs, query, encoded, hit.doc_id, vocabulary) for hit in shown if explain}
        parts = _parts(rankings, fused, {hit.doc_id for hit in shown})
        return [
            Hit(
                rank=rank,
                doc_id=hit.doc_id,
                score=hit.score,
                title=documents[hit.doc_id].title,
                text=documents[hit.doc_id].text,
                metadata=documents[hit.doc_id].metadata,
                parts=parts[hit.doc_id],
                terms=terms.get(hit.doc_id, ()),
            )
            for rank, hit in enumerate(shown, start=1)
        ]

    def rank(
        self, queries: Iterable[Query], top_k: int = 1000, mode: str = "hybrid", filter: str | None = None
    ) -> Iterator[QueryRanking]:
        """Return each query's ranking without texts, in order, as a stream: for run files and evaluation.

        Queries are encoded and searched in batches; a query without any word has no hits.

        Raises:
            UserError: top_k below 1, the index cannot answer in this mode, or has not a field of the filter.
        """
        _check_top_k(top_k)
        legs = self._legs_of(mode)
        self._check_filter(filter)
        return self._rank(iter(queries), top_k, legs, filter)

    def _rank(
        self, stream: Iterator[Query], top_k: int, legs: tuple[str, ...], filter: str | None
    ) -> Iterator[QueryRanking]:
        depth = max(top_k, CANDIDATES) if len(legs) > 1 else top_k
        with self._view(filter) as view:
            while batch := list(islice(stream, QUERIES_PER_BATCH)):
                encoded = self._encode([query.text for query in batch], legs)
                columns = {leg: view.run_batch(leg, batch, encoded, depth, self._pool) for leg in legs}
                for i, query in enumerate(batch):
                    fused = self._fuse({leg: column[i] for leg, column in columns.items()})
                    yield QueryRanking(query.query_id, fused.ranking[:top_k])

    def close(self) -> None:
        """Free the index."""
        self._pool.shutdown()
        self.reader.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _legs_of(self, mode: str) -> tuple[str, ...]:
        if mode not in MODES:
            raise UserError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        if mode == "hybrid":
            legs = tuple(leg for leg in self.legs if self.fusion.weights.get(leg, 0) > 0)
            if not legs:
                raise UserError(
                    f"the fusion weighs {', '.join(self.fusion.weights)}, the index has {', '.join(self.legs)}; "
                    "give one of these a weight above 0"
                )
            return legs
        if mode not in self.legs:
            raise UserError(
                f"{self.reader.path}: the index has no {mode} leg, its encoder is {self.reader.settings.encoder.name}; "
                f"search it with one of {', '.join(self.legs)}, or build it with another encoder"
            )
        return (mode,)

    def _check_filter(self, filter: str | None) -> None:
        """Refuse a filter before the work is done for it."""
        with self._view(filter):
            pass

    def _encode(self, texts: Sequence[str], legs: Sequence[str]) -> Encoded | None:
        """Encode the queries once for all legs; BM25 alone needs no network, which is then not even loaded."""
        return None if tuple(legs) == ("bm25",) else self.encoder.encode_queries(texts)

    def _fuse(self, rankings: Mapping[str, Ranking]) -> Fused:
        """Fuse several legs; a leg alone keeps its ranking and its raw scores."""
        if len(rankings) > 1:
            return fuse(rankings, self.fusion)
        [(leg, ranking)] = rankings.items()
        return Fused(ranking, {leg: dict(ranking)})


def _parts(rankings: Mapping[str, Ranking], fused: Fused, shown: set[str]) -> dict[str, dict[str, LegPart]]:
    """Return what each leg says about the documents that are shown."""
    parts: dict[str, dict[str, LegPart]] = {doc_id: {} for doc_id in shown}
    for leg, ranking in rankings.items():
        for rank, (doc_id, score) in enumerate(ranking, start=1):
            if doc_id in shown:
                parts[doc_id][leg] = LegPart(rank, score, fused.normalised[leg][doc_id])
    return parts


def _check_top_k(top_k: int) -> None:
    if top_k < 1:
        raise UserError(f"top_k is {top_k}; need 1 or more")
