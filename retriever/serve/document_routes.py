"""Documents: read them by id, add, replace and delete them where the server was started with --write."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from retriever.serve.models import IdsRequest
from retriever.serve.problems import ProblemError
from retriever.serve.state import answer, check_size, state_of
from retriever.wire import document_to_wire

__all__ = ["router"]

router = APIRouter(tags=["documents"])


@router.post("/indexes/{name}/documents/get", summary="Fetch documents", operation_id="get_documents")
async def get_documents(request: Request, name: str, asked: IdsRequest) -> Any:
    """Return the documents of these ids, in their order; those that the index does not have are named apart."""
    state = state_of(request)
    index = state.indexes[name]
    check_size("ids", len(asked.ids), state.settings.limits.batch)

    def fetch() -> Any:
        with index.use() as retriever, retriever._view() as view:
            found = view.reader.documents(asked.ids)
        unknown = [doc_id for doc_id in asked.ids if doc_id not in found]
        return answer({"documents": [document_to_wire(found[i]) for i in asked.ids if i in found], "unknown": unknown})

    return await state.searches.run(fetch)


@router.get("/indexes/{name}/documents/{doc_id:path}", summary="Fetch a document", operation_id="get_document")
async def get_document(request: Request, name: str, doc_id: str) -> Any:
    """Return one document."""
    state = state_of(request)
    index = state.indexes[name]

    def fetch() -> Any:
        with index.use() as retriever, retriever._view() as view:
            return view.reader.documents([doc_id]).get(doc_id)

    found = await state.searches.run(fetch)
    if found is None:
        raise ProblemError(404, "not-found", f"{name}: no document is called {ascii(doc_id)[:80]}; give another id")
    return answer(document_to_wire(found))
