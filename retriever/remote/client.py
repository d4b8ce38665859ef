"""A retriever behind a server, for threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from retriever.extras import extra
from retriever.ranking import Showing
from retriever.remote import calls
from retriever.remote.exchange import Exchange
from retriever.types import PipelineRanking, QueryRanking, QueryRankings

with extra("client"):
    import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from retriever.remote.calls import Call
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.search.steps import Stages
    from retriever.types import Document, Encoded, FacetCount, Hit, IndexField, Query

__all__ = ["RemoteRetriever"]

T = TypeVar("T")


class RemoteRetriever:
    """Searches an index of a server with the methods of `Retriever`, which give the same records and errors.

    Thread-safe; a context manager that closes its connections, which are used again and again, when it is left.

    Examples:
        ```python
        hits = RemoteRetriever("http://127.0.0.1:8000").search("how do vaccines work", top_k=10)
        ```
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Connect to a server.

        url: its address, which may name the index: http://127.0.0.1:8000/indexes/my-index.
        index: may be left out where the server has one. key: one of its API keys, if it asks for one.
        timeout: seconds for which an answer may keep us waiting. retries: how often a request is sent again when the
        connection breaks or the server is busy; it is then sent when the server says. transport: of httpx.

        Raises:
            UserError: no server of this version answers there, it refuses the key, or has not the index.
        """
        self._exchange = Exchange(url, index, key, timeout, retries)
        self._client = httpx.Client(headers=self._exchange.headers, transport=transport)
        try:
            self._described = self._exchange.choose(self._send(calls.indexes()))
        except BaseException:
            self._client.close()
            raise

    def _send(self, call: Call[T]) -> T:
        request = self._exchange.request(self._client, call)
        attempt = 0
        while True:
            answer = None
            try:
                answer = self._client.send(request)
            except httpx.TransportError as error:
                wait = None if isinstance(error, httpx.ReadTimeout) else self._exchange.wait(attempt, None)
                if wait is None:
                    raise self._exchange.broken(error) from None
            else:
                wait = self._exchange.wait(attempt, answer)
                if wait is None:
                    return self._exchange.read(call, answer)
            time.sleep(wait)
            attempt += 1

    @property
    def legs(self) -> tuple[str, ...]:
        """Return the legs that the index has."""
        return tuple(self._described["legs"])

    def search(
        self,
        query: str,
        top_k: int = 10,
        *,
        mode: str = "hybrid",
        explain: bool = False,
        filter: str | None = None,
        offset: int = 0,
        min_score: float | None = None,
        fields: Sequence[str] | None = None,
        highlight: bool = False,
        fusion: FusionConfig | None = None,
        pipeline: Stages | str | None = None,
        language: str | None = None,
    ) -> list[Hit]:
        """Return the best `top_k` documents for `query`, as `Retriever.search` does.

        pipeline: also as a line, or the name of one that the server has.

        Raises:
            UserError: as there; or the server allows less, or does not answer.
        """
        showing = Showing(top_k, offset, min_score, fields, explain, highlight)
        return self._send(calls.search(query, showing, mode, filter, fusion, pipeline, language))

    def more_like_this(
        self,
        doc_id: str,
        top_k: int = 10,
        *,
        mode: str = "hybrid",
        explain: bool = False,
        filter: str | None = None,
        offset: int = 0,
        min_score: float | None = None,
        fields: Sequence[str] | None = None,
        highlight: bool = False,
    ) -> list[Hit]:
        """Return the documents most like one of the index, as `Retriever.more_like_this` does; raise UserError so."""
        showing = Showing(top_k, offset, min_score, fields, explain, highlight)
        return self._send(calls.more_like_this(doc_id, showing, mode, filter))

    def rank(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        mode: str = "hybrid",
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> Iterator[QueryRanking]:
        """Return each query's ranking without texts, as `Retriever.rank` does.

        Raises:
            UserError: as there, for the first queries at once and for others when they are come to.
        """
        found = self.rank_modes(queries, top_k, modes=(mode,), filter=filter, fusion=fusion, language=language)
        return (QueryRanking(query_id, rankings[mode]) for query_id, rankings in found)

    def rank_modes(
        self,
        queries: Iterable[Query],
        top_k: int,
        *,
        modes: Sequence[str],
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> Iterator[QueryRankings]:
        """Return each query's ranking in each mode, as `Retriever.rank_modes` does; raise UserError as `rank`."""
        asked = calls.rank(queries, top_k, modes, filter, fusion, language)
        first = [self._send(call) for call in calls.first_of(asked)]
        return (found for results in self._all(first, asked) for found in results)

    def rank_pipeline(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        pipeline: Stages | str,
        filter: str | None = None,
        exclude_self: bool = False,
        language: str | None = None,
    ) -> Iterator[PipelineRanking]:
        """Return each query's ranking behind a pipeline, as `Retriever.rank_pipeline` does; raise UserError as `rank`.

        pipeline: also as a line, or the name of one that the server has.
        """
        asked = calls.rank_pipeline(queries, top_k, pipeline, filter, exclude_self, language)
        first = [self._send(call) for call in calls.first_of(asked)]
        return (found for results in self._all(first, asked) for found in results)

    def _all(self, first: Iterable[T], rest: Iterable[Call[T]]) -> Iterator[T]:
        yield from first
        for call in rest:
            yield self._send(call)

    def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents with these ids, in their order; unknown ids are left out."""
        found: dict[str, Document] = {}
        for call in calls.documents(ids):
            batch = self._send(call)
            found |= batch
        return found

    def fields(self) -> list[IndexField]:
        """Return the metadata fields, as `Retriever.fields` does."""
        return self._send(calls.fields())

    def facets(
        self, field: str, query: str | None = None, *, top_k: int = 10, mode: str = "hybrid", filter: str | None = None
    ) -> list[FacetCount]:
        """Return the values of a field that most documents have, as `Retriever.facets` does; raise UserError so."""
        return self._send(calls.facets(field, query, top_k, mode, filter))

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return queries as the legs of the index read them; raise UserError if it has BM25 alone."""
        return self._send(calls.encode(texts))

    def describe(self) -> Mapping[str, Any]:
        """Return what the server says of the index: documents, commit, legs, fields, fusion, encoder."""
        self._described = self._exchange.choose(self._send(calls.indexes()))
        return self._described

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> RemoteRetriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
