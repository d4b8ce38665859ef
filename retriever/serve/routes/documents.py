"""Documents: read them by id, add, replace and delete them where the server was started with --write."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from retriever.serve.indexes.state import answer, check_size, state_of
from retriever.serve.indexes.writing import add_documents, delete_documents, listed, streamed
from retriever.serve.problems import ProblemError
from retriever.serve.schema.answers import Changed, Deleted, DocumentModel, DocumentsAnswer
from retriever.serve.schema.models import DocumentRequest, DocumentsRequest, IdsRequest
from retriever.serve.schema.openapi import answers, body_of
from retriever.types import UserError
from retriever.wire import document_to_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.serve.indexes.opened import ServedIndex
    from retriever.types import Document

__all__ = ["router"]

router = APIRouter(tags=["documents"])
JSON, LINES = "application/json", "application/x-ndjson"
TOO_LONG = "a list of documents has at most {} bytes, since it is read as a whole; send {}, one document a line"
OnDuplicate = Annotated[
    Literal["error", "skip", "replace"], Query(description="Ids that stand twice: skip keeps the first.")
]
OnBad = Annotated[Literal["error", "skip"], Query(description="Records that cannot be read.")]


@router.get("/indexes/{name}/documents", operation_id="list_documents", responses=answers(DocumentsAnswer))
async def list_documents(
    request: Request, name: str, id: Annotated[list[str], Query(description="May stand several times.")]
) -> Any:
    """Return the documents of these ids, in their order; `unknown` are those that the index does not have."""
    return await _documents(request, name, id)


@router.post("/indexes/{name}/documents/get", operation_id="get_documents", responses=answers(DocumentsAnswer))
async def get_documents(request: Request, name: str, asked: IdsRequest) -> Any:
    """Return the documents of these ids, in their order; `unknown` are those that the index does not have."""
    return await _documents(request, name, asked.ids)


async def _documents(request: Request, name: str, ids: Sequence[str]) -> Any:
    state = state_of(request)
    index = state.indexes[name]
    check_size("ids", len(ids), state.settings.limits.batch)
    found = await state.searches.run(lambda: _fetch(index, ids))
    unknown = [doc_id for doc_id in dict.fromkeys(ids) if doc_id not in found]
    return answer({"documents": [document_to_wire(document) for document in found.values()], "unknown": unknown})


def _fetch(index: ServedIndex, ids: Sequence[str]) -> dict[str, Document]:
    with index.use() as retriever:
        return retriever.documents(ids)


@router.get("/indexes/{name}/documents/{doc_id:path}", operation_id="get_document", responses=answers(DocumentModel))
async def get_document(request: Request, name: str, doc_id: str) -> Any:
    """Return one document."""
    state = state_of(request)
    index = state.indexes[name]
    found = await state.searches.run(lambda: _fetch(index, [doc_id]))
    if doc_id not in found:
        raise _unknown(name, doc_id)
    return answer(document_to_wire(found[doc_id]))


def _unknown(name: str, doc_id: str) -> ProblemError:
    return ProblemError(404, "not-found", f"{name}: has no document {ascii(doc_id)[:80]}; give the id of one")


@router.post(
    "/indexes/{name}/documents",
    operation_id="add_documents",
    responses=answers(Changed),
    openapi_extra=body_of(DocumentsRequest, LINES),
)
async def add(request: Request, name: str, on_duplicate: OnDuplicate = "error", on_bad: OnBad = "error") -> Any:
    """Add documents, or replace those whose ids are there already: all of them in one commit, or none.

    The body is {"documents": [...]}, or, as application/x-ndjson, one document a line.
    """
    state = state_of(request)
    index, limits = state.indexes[name], state.settings.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, LINES):
        raise ProblemError(
            415, "invalid-request", f"found {ascii(kind)[:80]}, allowed: {JSON}, {LINES}; send one of them"
        )
    with tempfile.TemporaryDirectory(prefix="retriever-") as folder:
        path = Path(folder) / "documents.jsonl"
        with state.changes.arriving(), path.open("wb") as file:
            async for part in request.stream():
                if kind == JSON and file.tell() + len(part) > limits.listed:
                    raise ProblemError(413, "too-large", TOO_LONG.format(limits.listed, LINES))
                file.write(part)

        def change() -> dict[str, Any]:
            return add_documents(index, (streamed if kind == LINES else listed)(path), on_duplicate, on_bad)

        return answer(await state.changes.run(change))


@router.put("/indexes/{name}/documents/{doc_id:path}", operation_id="put_document", responses=answers(Changed))
async def put_document(request: Request, name: str, doc_id: str, asked: DocumentRequest) -> Any:
    """Add a document under this id, or replace the one that is there."""
    state = state_of(request)
    index = state.indexes[name]
    fields = asked.model_dump()
    with tempfile.TemporaryDirectory(prefix="retriever-") as folder:
        path = Path(folder) / "document.json"
        path.write_text(json.dumps({"documents": [{"id": doc_id, **fields}]}), "utf-8")
        change = partial(add_documents, index, listed(path), "error", "error")
        return answer(await state.changes.run(change))


@router.delete("/indexes/{name}/documents/{doc_id:path}", operation_id="delete_document", responses=answers(Deleted))
async def delete_document(request: Request, name: str, doc_id: str) -> Any:
    """Delete one document."""
    state = state_of(request)
    index = state.indexes[name]
    done = await state.changes.run(lambda: delete_documents(index, [doc_id]))
    if not done["deleted"]:
        raise _unknown(name, doc_id)
    return answer(done)


@router.post("/indexes/{name}/documents/delete", operation_id="delete_documents", responses=answers(Deleted))
async def delete(request: Request, name: str, asked: IdsRequest) -> Any:
    """Delete documents; `unknown` counts the ids that the index does not have."""
    state = state_of(request)
    index = state.indexes[name]
    check_size("ids", len(asked.ids), state.settings.limits.batch)
    if not asked.ids:
        raise UserError("no id; give at least one")
    return answer(await state.changes.run(lambda: delete_documents(index, asked.ids)))
