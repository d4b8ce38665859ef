"""What can be asked of a server: for each method of a retriever the request, and how its answer is read.

Nothing here sends anything, so that the clients for threads and for asyncio share all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as fields_of
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from retriever.ranking import Showing, check_top_k
from retriever.types import FacetCount, IndexField, PartialHits, PipelineRanking, Query, QueryRankings, UserError
from retriever.wire import document_from_wire, encoded_from_wire, hit_from_wire, ranking_from_wire

if TYPE_CHECKING:
    from retriever.search.fusion.fusion import FusionConfig
    from retriever.search.steps import Stages
    from retriever.types import Document, Encoded, Hit

__all__ = [
    "Call",
    "documents",
    "encode",
    "facets",
    "fields",
    "first_of",
    "indexes",
    "more_like_this",
    "rank",
    "rank_pipeline",
    "search",
]

QUERIES, HITS = 32, 250_000
"""Of one request: few enough for a server's limits of time and size, enough queries to be encoded together."""
LISTS = 10
"""Rankings that lead to that of a pipeline: its legs, their fusion, its stages."""
IDS = 500
"""Of one request."""
T = TypeVar("T")


class Call(NamedTuple, Generic[T]):
    """A request to an index, or to the server where `place` begins with "/", and what makes a value of the answer."""

    place: str
    read: Callable[[Mapping[str, Any]], T]
    body: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None


def indexes() -> Call[list[Mapping[str, Any]]]:
    """Ask what the server has."""
    return Call("/indexes", lambda values: list(values["indexes"]))


def search(
    query: str,
    showing: Showing,
    mode: str,
    filter: str | None,
    fusion: FusionConfig | None,
    pipeline: Stages | str | None,
    language: str | None,
) -> Call[list[Hit]]:
    """Ask for the hits of a query; raise UserError for a pipeline that holds a function, which runs here alone."""
    shown = _shown(showing, mode, filter)
    body = {"query": query, **shown, **_fusion(fusion), **_given({"pipeline": _line(pipeline), "language": language})}
    return Call("search", _hits, body)


def more_like_this(doc_id: str, showing: Showing, mode: str, filter: str | None) -> Call[list[Hit]]:
    """Ask for documents like another."""
    return Call("like", _hits, parameters={"id": doc_id, **_shown(showing, mode, filter)})


def facets(field: str, query: str | None, top_k: int, mode: str, filter: str | None) -> Call[list[FacetCount]]:
    """Ask how many documents have each value of a field."""
    check_top_k(top_k)
    asked = {"field": field, "query": query, "top_k": top_k, "mode": mode, "filter": filter}
    return Call("facets", lambda values: [FacetCount(**count) for count in values["facets"]], parameters=_given(asked))


def fields() -> Call[list[IndexField]]:
    """Ask which metadata the index has."""

    def read(values: Mapping[str, Any]) -> list[IndexField]:
        return [IndexField(**{**field, "kinds": tuple(field["kinds"])}) for field in values["fields"]]

    return Call("", read)


def documents(ids: Iterable[str]) -> Iterator[Call[dict[str, Document]]]:
    """Ask for documents by id, some at a time."""

    def read(values: Mapping[str, Any]) -> dict[str, Document]:
        found = map(document_from_wire, values["documents"])
        return {document.doc_id: document for document in found}

    for batch in _batches(dict.fromkeys(ids), IDS):
        yield Call("documents/get", read, {"ids": batch})


def rank(
    queries: Iterable[Query],
    top_k: int,
    modes: Sequence[str],
    filter: str | None,
    fusion: FusionConfig | None,
    language: str | None,
) -> Iterator[Call[list[QueryRankings]]]:
    """Ask for the rankings of queries, some at a time."""
    check_top_k(top_k)
    settings = {"modes": list(modes), **_given({"filter": filter, "language": language}), **_fusion(fusion)}
    return _ranked(_rankings, queries, top_k, len(modes), settings)


def rank_pipeline(
    queries: Iterable[Query],
    top_k: int,
    pipeline: Stages | str,
    filter: str | None,
    exclude_self: bool,
    language: str | None,
) -> Iterator[Call[list[PipelineRanking]]]:
    """Ask for the rankings of queries behind a pipeline, with all that led to them, some at a time."""
    check_top_k(top_k)
    settings = {"pipeline": _line(pipeline), "lists": True, "exclude_self": exclude_self}
    settings |= _given({"filter": filter, "language": language})
    return _ranked(_pipeline_rankings, queries, top_k, LISTS, settings)


def _ranked(
    read: Callable[[Mapping[str, Any]], T], queries: Iterable[Query], top_k: int, lists: int, settings: dict[str, Any]
) -> Iterator[Call[T]]:
    return (
        Call("search/batch", read, {"queries": [query._asdict() for query in batch], "top_k": top_k, **settings})
        for batch in _batches(queries, max(1, min(QUERIES, HITS // max(1, top_k * lists))))
    )


def encode(texts: Sequence[str]) -> Call[Encoded]:
    """Ask for the views of queries."""
    return Call("encode", encoded_from_wire, {"texts": list(texts)})


def first_of(asked: Iterator[Call[T]]) -> Iterator[Call[T]]:
    """Give the first of several calls, which is sent at once: most errors are those of every call."""
    return islice(asked, 1)


def _hits(values: Mapping[str, Any]) -> list[Hit]:
    hits = [hit_from_wire(hit) for hit in values["hits"]]
    return PartialHits(hits, values["lost"]) if values.get("lost") else hits


def _rankings(values: Mapping[str, Any]) -> list[QueryRankings]:
    return [
        QueryRankings(result["query_id"], {mode: ranking_from_wire(hits) for mode, hits in result["rankings"].items()})
        for result in values["results"]
    ]


def _pipeline_rankings(values: Mapping[str, Any]) -> list[PipelineRanking]:
    found = []
    for result in values["results"]:
        [ranking] = result["rankings"].values()
        lists = {name: ranking_from_wire(hits) for name, hits in result["lists"].items()}
        found.append(PipelineRanking(result["query_id"], ranking_from_wire(ranking), result["milliseconds"], lists))
    return found


def _shown(showing: Showing, mode: str, filter: str | None) -> dict[str, Any]:
    shown = {key: value for key, value in asdict(showing).items() if value != getattr(Showing, key, None)}
    return _given({**shown, "mode": mode, "filter": filter})


def _fusion(fusion: FusionConfig | None) -> dict[str, Any]:
    return {} if fusion is None else {"fusion": {**asdict(fusion), "weights": dict(fusion.weights)}}


def _line(pipeline: Stages | str | None) -> str | None:
    """Return a pipeline as a server reads it."""
    for stage in getattr(pipeline, "stages", ()):
        for setting in fields_of(stage):
            value = getattr(stage, setting.name)
            if not isinstance(value, str | int | float | None):
                raise UserError(
                    f"{stage.name}: {setting.name} is a {type(value).__name__} of this process, which cannot be sent; "
                    "start the server with --pipeline NAME=LINE, and give the name"
                )
    return None if pipeline is None else str(pipeline)


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if value is not None}


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch
