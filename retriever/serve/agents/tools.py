"""The tools that agents call: search, fetch a document, say what indexes there are.

Read-only. What a tool gives is bounded, so that it fits into an agent's context: snippets instead of texts, long
metadata cut short, documents in portions with a cursor.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from retriever.extras import extra
from retriever.serve.agents.answers import DocumentPortion, IndexList, IndexSummary, SearchAnswer, found, summary
from retriever.serve.indexes.opened import Indexes
from retriever.serve.indexes.pipelines import Pipelines
from retriever.serve.problems import ProblemError, validation_detail
from retriever.types import UserError

with extra("serve"):
    from fastmcp import FastMCP
    from fastmcp.exceptions import ToolError, ValidationError
    from fastmcp.server.middleware import Middleware
    from pydantic import Field
    from pydantic import ValidationError as PydanticError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from retriever.search.retriever import Retriever

    Run = Callable[[Callable[[], Any]], Awaitable[Any]]

__all__ = ["create_mcp"]

MOST_HITS, MOST_CHARACTERS, MOST_OFFSET = 50, 20_000, 1_000
INSTRUCTIONS = (
    "Search collections of documents by meaning and by words. list_indexes says which collections there are and which "
    "metadata fields filters may name; search finds documents and shows the best passage of each; fetch_document reads "
    "one as a whole. Cite documents by their ids."
)
ANNOTATIONS = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}
T = TypeVar("T")

IndexName = Annotated[
    str | None, Field(description="Which index, by its name in list_indexes; may be left out where there is one.")
]


def create_mcp(indexes: Callable[[], Indexes], run: Run, *, pipelines: Pipelines) -> FastMCP:
    """Return the server; indexes: gives the open ones. run: does a search in a thread."""
    mcp: FastMCP = FastMCP(
        "retriever",
        INSTRUCTIONS,
        version=version("hybrid-retriever"),
        middleware=[_PlainErrors()],
        mask_error_details=True,
    )

    async def ask(name: str | None, work: Callable[[str, Retriever], T]) -> T:
        return await _answered(indexes(), run, lambda: _in_index(indexes(), name, work))

    @mcp.tool(annotations=ANNOTATIONS)
    async def list_indexes() -> IndexList:
        """List the indexes: names, numbers of documents, modes of search, and the metadata that filters may name."""
        every = indexes()

        def describe_one(name: str, retriever: Retriever) -> IndexSummary:
            return summary(name, retriever, pipelines)

        def describe() -> IndexList:
            return IndexList(indexes=[_in_index(every, index.name, describe_one) for index in every])

        listed: IndexList = await _answered(every, run, describe)
        return listed

    @mcp.tool(annotations=ANNOTATIONS)
    async def search(
        query: Annotated[str, Field(description="A question or some words, as a person would write them.")],
        index: IndexName = None,
        top_k: Annotated[int, Field(ge=1, le=MOST_HITS, description="How many documents.")] = 5,
        filter: Annotated[
            str | None,
            Field(
                description="Only documents whose metadata satisfy it: comparisons joined by and, or, not. Examples: "
                'year >= 2020 and lang = en; topic in (food, "city life"); at >= 2025-02-03'
            ),
        ] = None,
        mode: Annotated[
            str, Field(description="hybrid; bm25 for exact words, dense or sparse for meaning, if the index has them.")
        ] = "hybrid",
        offset: Annotated[int, Field(ge=0, le=MOST_OFFSET, description="How many hits to pass over.")] = 0,
        pipeline: Annotated[
            str | None, Field(description="In place of a mode: one of the pipelines of the index in list_indexes.")
        ] = None,
    ) -> SearchAnswer:
        """Find the documents that answer a query best, each with its best passage.

        Use it first; read a whole document with fetch_document. Ask again in other words where nothing fits.
        """

        def find(name: str, retriever: Retriever) -> SearchAnswer:
            stages = pipelines.find(pipeline, indexes().settings.limits)
            hits = retriever.search(
                query,
                top_k,
                mode=mode,
                filter=filter,
                offset=offset,
                highlight=True,
                pipeline=stages and stages.pipeline,
            )
            end = offset + top_k
            more = len(hits) == top_k and end <= MOST_OFFSET
            return SearchAnswer(index=name, hits=[found(hit) for hit in hits], next_offset=end if more else None)

        return await ask(index, find)

    @mcp.tool(annotations=ANNOTATIONS)
    async def fetch_document(
        id: Annotated[str, Field(description="The id of a hit.")],
        index: IndexName = None,
        start: Annotated[int, Field(ge=0, description="The character to read from: snippet_start or next_start.")] = 0,
        max_characters: Annotated[int, Field(ge=1, le=MOST_CHARACTERS, description="How much to read.")] = 8_000,
    ) -> DocumentPortion:
        """Read a document's text and metadata by its id; a long text comes in portions, which next_start continues."""

        def fetch(name: str, retriever: Retriever) -> DocumentPortion:
            document = retriever.documents([id]).get(id)
            if document is None:
                raise UserError(f"{name}: has no document {ascii(id)[:80]}; give the id of a hit")
            end = start + max_characters
            return DocumentPortion(
                index=name,
                id=id,
                title=document.title,
                metadata=dict(document.metadata),
                text=document.text[start:end],
                start=start,
                characters=len(document.text),
                next_start=end if end < len(document.text) else None,
            )

        return await ask(index, fetch)

    return mcp


class _PlainErrors(Middleware):
    """Says what is wrong with the arguments of a call in one line, without pydantic's addresses."""

    async def on_call_tool(self, context: Any, call_next: Any) -> Any:
        """Pass a call on."""
        try:
            return await call_next(context)
        except ValidationError as error:
            cause = error.__cause__
            if not isinstance(cause, PydanticError):
                raise
            wrongs = [{**wrong, "loc": ("arguments", *wrong["loc"])} for wrong in cause.errors()]
            raise _refused(validation_detail(wrongs)) from None


def _refused(message: str) -> ToolError:
    """Return an error for the agent, of which the log need not tell."""
    return ToolError(message, log_level=logging.DEBUG)


async def _answered(indexes: Indexes, run: Run, work: Callable[[], T]) -> T:
    """Do some work; raise ToolError, which the agent is shown, in the words of the command line."""
    try:
        value: T = await run(work)
    except UserError as error:
        raise _refused(indexes.message(error)) from None
    except ProblemError as problem:
        raise _refused(problem.detail) from None
    return value


def _in_index(indexes: Indexes, name: str | None, work: Callable[[str, Retriever], T]) -> T:
    names = [index.name for index in indexes]
    if name is None and len(names) > 1:
        raise UserError(f"there are several indexes; give index, one of {', '.join(names)}")
    served = indexes[names[0] if name is None else name]
    with served.use() as retriever:
        return work(served.name, retriever)
