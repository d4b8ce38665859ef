"""Searching: one query with its hits, many with their rankings, and the views of texts."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from retriever import types
from retriever.serve.models import BatchRequest, EncodeRequest, SearchParameters, SearchRequest
from retriever.serve.state import ServerState, answer, check_size, check_text, state_of
from retriever.wire import encoded_to_wire, hit_to_wire, ranking_to_wire

if TYPE_CHECKING:
    from starlette.responses import Response

    from retriever.serve.indexes import ServedIndex
    from retriever.types import Encoded

__all__ = ["router"]

router = APIRouter(tags=["search"])


@router.get("/indexes/{name}/search", summary="Search", operation_id="search_by_address")
async def search_by_address(request: Request, name: str, asked: Annotated[SearchParameters, Query()]) -> Any:
    """Return the best hits for a query."""
    return await _search(state_of(request), name, asked)


@router.post("/indexes/{name}/search", summary="Search", operation_id="search")
async def search(request: Request, name: str, asked: SearchRequest) -> Any:
    """Return the best hits for a query."""
    return await _search(state_of(request), name, asked)


async def _search(state: ServerState, name: str, asked: SearchRequest | SearchParameters) -> Response:
    index, limits = state.indexes[name], state.settings.limits
    check_text("query", asked.query, limits.query)
    check_text("mode", asked.mode, limits.query)
    check_text("filter", asked.filter, limits.query)
    check_size("top_k", asked.top_k, limits.top_k)
    return await state.searches.run(lambda: _hits(index, asked))


def _hits(index: ServedIndex, asked: SearchRequest | SearchParameters) -> Response:
    started = perf_counter()
    with index.use() as retriever:
        hits = retriever.search(asked.query, asked.top_k, mode=asked.mode, explain=asked.explain, filter=asked.filter)
    took = (perf_counter() - started) * 1000
    return answer({"hits": [hit_to_wire(hit) for hit in hits], "milliseconds": round(took, 3)})


@router.post("/indexes/{name}/search/batch", summary="Rank many queries", operation_id="rank")
async def rank(request: Request, name: str, asked: BatchRequest) -> Any:
    """Return for each query its ranking in each mode, ids and scores without texts."""
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    check_size("queries", len(asked.queries), limits.batch)
    check_size("modes", len(asked.modes), limits.batch)
    check_size("top_k", asked.top_k, limits.depth)
    for text in (*asked.modes, asked.filter, *(query.text for query in asked.queries)):
        check_text("query, mode or filter", text, limits.query)
    return await state.searches.run(lambda: _rankings(index, asked))


def _rankings(index: ServedIndex, asked: BatchRequest) -> Response:
    queries = [types.Query(query.query_id, query.text) for query in asked.queries]
    with index.use() as retriever:
        found = list(retriever.rank_modes(queries, asked.top_k, modes=asked.modes, filter=asked.filter))
    results = [
        {
            "query_id": query_id,
            "rankings": {mode: ranking_to_wire(ranking) for mode, ranking in rankings.items()},
        }
        for query_id, rankings in found
    ]
    return answer({"results": results})


@router.post("/indexes/{name}/encode", summary="Encode texts", operation_id="encode")
async def encode(request: Request, name: str, asked: EncodeRequest) -> Any:
    """Return vectors and weighted terms of texts: of queries as the index searches with them, or of documents."""
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    check_size("texts", len(asked.texts), limits.batch)
    return await state.searches.run(lambda: _encoded(index, asked))


def _encoded(index: ServedIndex, asked: EncodeRequest) -> Response:
    with index.use() as retriever:
        encoded: Encoded
        if asked.kind == "query":
            encoded = retriever.encode(asked.texts)
            encoded = encoded._replace(
                dense=encoded.dense if asked.dense else None, sparse=encoded.sparse if asked.sparse else None
            )
        else:
            encoded = retriever.encoder.encode_documents(asked.texts, dense=asked.dense, sparse=asked.sparse)
        return answer(encoded_to_wire(encoded, retriever.encoder.vocabulary))
