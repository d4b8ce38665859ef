"""Searching: one query with its hits, many with their rankings, documents like another, counts, and views of texts."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request

from retriever import types
from retriever.search.leg import views_of
from retriever.search.showing.highlights import snippet
from retriever.serve.indexes.state import answer, check_size, check_text, state_of
from retriever.serve.routes.address import parameters_of, read_address
from retriever.serve.schema.answers import EncodedAnswer, ExpertsAnswer, FacetsAnswer, HitsAnswer, RankingsAnswer
from retriever.serve.schema.models import (
    BatchRequest,
    EncodeRequest,
    ExpertsParameters,
    FacetParameters,
    LikeParameters,
    SearchParameters,
    SearchRequest,
)
from retriever.serve.schema.openapi import answers
from retriever.wire import encoded_to_wire, hit_to_wire, ranking_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.responses import Response

    from retriever.rank import Pipeline
    from retriever.search.retriever import Retriever
    from retriever.serve.indexes.opened import ServedIndex
    from retriever.serve.schema.models import Shown
    from retriever.serve.settings import Limits
    from retriever.types import Hit

__all__ = ["SEARCH", "found_hits", "router"]

SEARCH = "/indexes/{name}/search"
QUICK_HITS = 100
"""To fetch more takes longer than other requests should wait."""
router = APIRouter(tags=["search"])


@router.get(
    SEARCH,
    operation_id="search_by_address",
    responses=answers(HitsAnswer),
    openapi_extra=parameters_of(SearchParameters),
)
async def search_by_address(request: Request, name: str) -> Any:
    """Return the best hits for a query."""
    return await found_hits(request, name, read_address(request, SearchParameters))


@router.post(SEARCH, operation_id="search", responses=answers(HitsAnswer))
async def search(request: Request, name: str, asked: SearchRequest) -> Any:
    """Return the best hits for a query."""
    return await found_hits(request, name, asked)


async def found_hits(request: Request, name: str, asked: SearchRequest | SearchParameters) -> Response:
    """Answer a search."""
    state = state_of(request)
    fusion: dict[str, Any] = {}
    if isinstance(asked, SearchRequest) and asked.fusion is not None:
        fusion["fusion"] = asked.fusion.config()
    check_text("query", asked.query, state.settings.limits.query)
    found = state.pipelines.find(asked.pipeline, state.settings.limits)
    if found is not None:
        request.scope["state"]["asked"]["pipeline"] = found.label

    def find(retriever: Retriever) -> list[Hit]:
        how = {**_shown(asked), **fusion, "pipeline": found and found.pipeline, "language": asked.language}
        return retriever.search(asked.query, **how)

    plain = not fusion and found is None and asked.language is None
    return await _hits(request, name, asked, find, asked.query, plain=plain)


@router.get("/indexes/{name}/like", operation_id="more_like_this", responses=answers(HitsAnswer))
async def more_like_this(request: Request, name: str, asked: Annotated[LikeParameters, Query()]) -> Any:
    """Return the documents that are most like one of the index."""

    def find(retriever: Retriever) -> list[Hit]:
        return retriever.more_like_this(asked.id, **_shown(asked))

    return await _hits(request, name, asked, find, asked.id)


async def _hits(
    request: Request,
    name: str,
    asked: Shown,
    find: Callable[[Retriever], list[Hit]],
    query: str,
    *,
    plain: bool = False,
) -> Response:
    """Search in a thread; or here, if it is plain, and by words alone or for a client that is alone.

    To wake a thread and be woken by it takes half a millisecond, as long as the search for some words.
    """
    state = state_of(request)
    index = state.indexes[name]
    _check_shown(asked, state.settings.limits)
    noted = request.scope["state"]["asked"]
    noted |= {"index": name, "mode": asked.mode, "top_k": asked.top_k}
    if state.settings.log_queries:
        noted["query"] = query
    alone = state.searches.alone(request.client)
    quick = plain and _is_quick(index, asked, query, alone)
    return await state.searches.run(lambda: _found(index, find, noted, asked.highlight), quick=quick)


def _is_quick(index: ServedIndex, asked: Shown, query: str, alone: bool) -> bool:
    if asked.filter is not None or asked.explain or asked.highlight or asked.offset + asked.top_k > QUICK_HITS:
        return False
    with index.use() as retriever:
        return retriever.quick(query) and (alone or not views_of(retriever.plan(asked.mode).legs))


def _found(
    index: ServedIndex, find: Callable[[Retriever], list[Hit]], noted: dict[str, Any], snippets: bool
) -> Response:
    started = perf_counter()
    with index.use() as retriever:
        hits = find(retriever)
    took = round((perf_counter() - started) * 1000, 3)
    noted |= {"hits": len(hits), "search_milliseconds": took}
    found = [hit_to_wire(hit, snippet(hit) if snippets else None) for hit in hits]
    lost = {"lost": list(hits.lost)} if isinstance(hits, types.PartialHits) else {}
    return answer({"hits": found, "milliseconds": took, **lost})


def _shown(asked: Shown) -> dict[str, Any]:
    """Return what was asked for, of what the library takes by the same names."""
    return asked.model_dump(exclude_unset=True, exclude={"query", "id", "fusion", "pipeline", "language"})


def _check_shown(asked: Shown, limits: Limits) -> None:
    check_text("mode", asked.mode, limits.query)
    check_text("filter", asked.filter, limits.query)
    check_size("fields", len(asked.fields or ()), limits.batch)
    check_size("top_k", asked.top_k, limits.top_k)
    check_size("offset + top_k", asked.offset + asked.top_k, limits.depth)


@router.get("/indexes/{name}/facets", operation_id="facets", responses=answers(FacetsAnswer))
async def facets(request: Request, name: str, asked: Annotated[FacetParameters, Query()]) -> Any:
    """Count the values of a metadata field, in all documents or in the first hits of a query."""
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    for text in (asked.query, asked.mode, asked.filter):
        check_text("query, mode or filter", text, limits.query)
    check_size("top_k", asked.top_k, limits.depth)

    def count() -> Response:
        with index.use() as retriever:
            found = retriever.facets(asked.field, asked.query, top_k=asked.top_k, mode=asked.mode, filter=asked.filter)
        return answer({"field": asked.field, "facets": [count._asdict() for count in found]})

    return await state.searches.run(count)


@router.get("/indexes/{name}/experts", operation_id="experts", responses=answers(ExpertsAnswer))
async def experts(request: Request, name: str, asked: Annotated[ExpertsParameters, Query()]) -> Any:
    """Return which experts of the encoder the tokens of a query go to."""
    state = state_of(request)
    index = state.indexes[name]
    check_text("query", asked.query, state.settings.limits.query)

    def follow() -> Response:
        with index.use() as retriever:
            layers, tokens = retriever.encoder.expert_routes(asked.query)
        named = [{"name": name, "experts": experts} for name, experts in layers]
        return answer({"layers": named, "tokens": [token._asdict() for token in tokens]})

    return await state.searches.run(follow)


@router.post("/indexes/{name}/search/batch", operation_id="rank", responses=answers(RankingsAnswer))
async def rank(request: Request, name: str, asked: BatchRequest) -> Any:
    """Return for each query its ranking in each mode, or behind a pipeline: ids and scores without texts."""
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    check_size("queries", len(asked.queries), limits.batch)
    check_size("modes", len(asked.modes), limits.batch)
    check_size("top_k", asked.top_k, limits.depth)
    for text in (*asked.modes, asked.filter, *(query.text for query in asked.queries)):
        check_text("query, mode or filter", text, limits.query)
    found = state.pipelines.find(asked.pipeline, limits)
    if found is not None:
        return await state.searches.run(lambda: _pipeline_rankings(index, asked, found.pipeline, limits))
    check_size("queries x modes x top_k", len(asked.queries) * len(asked.modes) * asked.top_k, limits.ranked)
    return await state.searches.run(lambda: _rankings(index, asked))


def _rankings(index: ServedIndex, asked: BatchRequest) -> Response:
    fusion = None if asked.fusion is None else asked.fusion.config()
    if asked.lists or asked.exclude_self:
        raise types.UserError("lists and exclude_self go with a pipeline; give one, or leave them out")
    with index.use() as retriever:
        found = list(retriever.rank_modes(_queries(asked), modes=asked.modes, fusion=fusion, **_within(asked)))
    return answer(
        {"results": [{"query_id": query_id, "rankings": _rankings_to_wire(named)} for query_id, named in found]}
    )


def _pipeline_rankings(index: ServedIndex, asked: BatchRequest, pipeline: Pipeline, limits: Limits) -> Response:
    if asked.fusion is not None or "modes" in asked.model_fields_set:
        raise types.UserError(f"modes or fusion beside a pipeline, whose mode is {pipeline.mode}; leave them out")
    with index.use() as retriever:
        if asked.lists:
            depth = retriever.plan(pipeline.mode).depth(max(asked.top_k, pipeline.reads))
            lists = len(retriever.legs) + 1 + len(pipeline.stages)
            check_size("queries x lists x their depth", len(asked.queries) * lists * depth, limits.ranked)
        found = retriever.rank_pipeline(
            _queries(asked), pipeline=pipeline, exclude_self=asked.exclude_self, **_within(asked)
        )
        results = [
            {
                "query_id": one.query_id,
                "rankings": _rankings_to_wire({str(asked.pipeline): one.ranking}),
                "milliseconds": list(one.milliseconds),
                "lists": _rankings_to_wire(one.lists if asked.lists else {}),
            }
            for one in found
        ]
    return answer({"results": results})


def _queries(asked: BatchRequest) -> list[types.Query]:
    return [types.Query(query.query_id, query.text) for query in asked.queries]


def _within(asked: BatchRequest) -> dict[str, Any]:
    return {"top_k": asked.top_k, "filter": asked.filter, "language": asked.language}


def _rankings_to_wire(named: Mapping[str, types.Ranking]) -> dict[str, Any]:
    return {name: ranking_to_wire(ranking) for name, ranking in named.items()}


@router.post("/indexes/{name}/encode", operation_id="encode", responses=answers(EncodedAnswer))
async def encode(request: Request, name: str, asked: EncodeRequest) -> Any:
    """Return vectors and weighted terms of texts: of queries as the index searches with them, or of documents."""
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    check_size("texts", len(asked.texts), limits.batch)
    for text in asked.texts:
        check_text("a text", text, limits.query)
    return await state.searches.run(lambda: _encoded(index, asked))


def _encoded(index: ServedIndex, asked: EncodeRequest) -> Response:
    with index.use() as retriever:
        if asked.kind == "query":
            encoded = retriever.encode(asked.texts)
            encoded = encoded._replace(
                dense=encoded.dense if asked.dense else None, sparse=encoded.sparse if asked.sparse else None
            )
        else:
            encoded = retriever.encoder.encode_documents(asked.texts, dense=asked.dense, sparse=asked.sparse)
        return answer(encoded_to_wire(encoded, retriever.encoder.vocabulary))
