"""A retriever behind a server, for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from retriever.extras import extra
from retriever.ranking import Showing
from retriever.remote import calls
from retriever.remote.exchange import Exchange
from retriever.types import PipelineRanking, QueryRanking, QueryRankings

with extra("client"):
    import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from types import TracebackType

    from retriever.remote.calls import Call
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.search.steps import Stages
    from retriever.types import Document, Encoded, FacetCount, Hit, IndexField, Query

__all__ = ["AsyncRetriever"]

T = TypeVar("T")


class AsyncRetriever:
    """A `RemoteRetriever` whose methods are awaited; `rank` is an asynchronous iterator.

    Examples:
        ```python
        async with AsyncRetriever("http://127.0.0.1:8000") as retriever:
            hits = await retriever.search("how do vaccines work", top_k=10)
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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a connection, with the arguments of `RemoteRetriever`; the first call makes it.

        transport: of httpx; `httpx.ASGITransport(app=...)` asks a server in this process.

        Raises:
            UserError: the address is none.
        """
        self._exchange = Exchange(url, index, key, timeout, retries)
        self._client = httpx.AsyncClient(headers=self._exchange.headers, transport=transport)

    async def _ask(self, call: Call[T]) -> T:
        """Send a call to the index, whose name is asked for if it was not given."""
        if self._exchange.index is None:
            await self.describe()
        return await self._send(call)

    async def _send(self, call: Call[T]) -> T:
        request = self._exchange.request(self._client, call)
        attempt = 0
        while True:
            answer = None
            try:
                answer = await self._client.send(request)
            except httpx.TransportError as error:
                wait = None if isinstance(error, httpx.ReadTimeout) else self._exchange.wait(attempt, None)
                if wait is None:
                    raise self._exchange.broken(error) from None
            else:
                wait = self._exchange.wait(attempt, answer)
                if wait is None:
                    return self._exchange.read(call, answer)
            await asyncio.sleep(wait)
            attempt += 1

    async def legs(self) -> tuple[str, ...]:
        """Return the legs that the index has."""
        return tuple((await self.describe())["legs"])

    async def search(
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
        return await self._ask(calls.search(query, showing, mode, filter, fusion, pipeline, language))

    async def more_like_this(
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
        return await self._ask(calls.more_like_this(doc_id, showing, mode, filter))

    async def rank(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        mode: str = "hybrid",
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> AsyncIterator[QueryRanking]:
        """Return each query's ranking without texts, as `Retriever.rank` does.

        Raises:
            UserError: as there, when the queries are come to.
        """
        asked = self.rank_modes(queries, top_k, modes=(mode,), filter=filter, fusion=fusion, language=language)
        async for query_id, rankings in asked:
            yield QueryRanking(query_id, rankings[mode])

    async def rank_modes(
        self,
        queries: Iterable[Query],
        top_k: int,
        *,
        modes: Sequence[str],
        filter: str | None = None,
        fusion: FusionConfig | None = None,
        language: str | None = None,
    ) -> AsyncIterator[QueryRankings]:
        """Return each query's ranking in each mode, as `Retriever.rank_modes` does; raise UserError as `rank`."""
        for call in calls.rank(queries, top_k, modes, filter, fusion, language):
            for found in await self._ask(call):
                yield found

    async def rank_pipeline(
        self,
        queries: Iterable[Query],
        top_k: int = 1000,
        *,
        pipeline: Stages | str,
        filter: str | None = None,
        exclude_self: bool = False,
        language: str | None = None,
    ) -> AsyncIterator[PipelineRanking]:
        """Return each query's ranking behind a pipeline, as `Retriever.rank_pipeline` does; raise UserError as `rank`.

        pipeline: also as a line, or the name of one that the server has.
        """
        for call in calls.rank_pipeline(queries, top_k, pipeline, filter, exclude_self, language):
            for found in await self._ask(call):
                yield found

    async def documents(self, ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents with these ids, in their order; unknown ids are left out."""
        found: dict[str, Document] = {}
        for call in calls.documents(ids):
            batch = await self._ask(call)
            found |= batch
        return found

    async def fields(self) -> list[IndexField]:
        """Return the metadata fields, as `Retriever.fields` does."""
        return await self._ask(calls.fields())

    async def facets(
        self, field: str, query: str | None = None, *, top_k: int = 10, mode: str = "hybrid", filter: str | None = None
    ) -> list[FacetCount]:
        """Return the values of a field that most documents have, as `Retriever.facets` does; raise UserError so."""
        return await self._ask(calls.facets(field, query, top_k, mode, filter))

    async def encode(self, texts: Sequence[str]) -> Encoded:
        """Return queries as the legs of the index read them; raise UserError if it has BM25 alone."""
        return await self._ask(calls.encode(texts))

    async def describe(self) -> Mapping[str, Any]:
        """Return what the server says of the index: documents, commit, legs, fields, fusion, encoder."""
        return self._exchange.choose(await self._send(calls.indexes()))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncRetriever:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
