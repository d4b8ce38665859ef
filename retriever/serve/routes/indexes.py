"""What is served, and whether it is well."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from retriever.serve.indexes.state import answer, state_of
from retriever.serve.metrics import TYPE
from retriever.serve.schema.answers import IndexesAnswer, IndexModel, Status
from retriever.serve.schema.openapi import answers

if TYPE_CHECKING:
    from retriever.serve.indexes.opened import ServedIndex
    from retriever.serve.indexes.pipelines import Pipelines

__all__ = ["router"]

router = APIRouter(tags=["indexes"])


@router.get("/healthz", operation_id="healthz", responses=answers(Status))
async def healthz() -> Any:
    """Say that the process answers."""
    return answer({"status": "ok"})


@router.get("/readyz", operation_id="readyz", responses=answers(Status))
async def readyz(request: Request) -> Any:
    """Say whether every index is open at its last commit: 503 where one is not."""
    late = any(index.error for index in state_of(request).indexes)
    return answer({"status": "late"}, 503) if late else answer({"status": "ok"})


@router.get("/metrics", operation_id="metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Any:
    """Return figures for Prometheus."""
    state = state_of(request)
    return Response(state.metrics.text(state.indexes), headers={"content-type": TYPE})


@router.get("/indexes", operation_id="list_indexes", responses=answers(IndexesAnswer))
async def list_indexes(request: Request) -> Any:
    """Return what each index holds."""
    state = state_of(request)
    found = await state.searches.run(lambda: [_described(index, state.pipelines) for index in state.indexes])
    return answer({"indexes": [values | {"writable": state.settings.write} for values in found]})


@router.get("/indexes/{name}", operation_id="describe_index", responses=answers(IndexModel))
async def describe_index(request: Request, name: str) -> Any:
    """Return what an index holds."""
    state = state_of(request)
    index = state.indexes[name]
    found = await state.searches.run(lambda: _described(index, state.pipelines))
    return answer(found | {"writable": state.settings.write})


def _described(index: ServedIndex, pipelines: Pipelines) -> dict[str, Any]:
    """Return what an index holds, without a path of this machine."""
    with index.use() as retriever:
        reader, commit = retriever.reader, retriever.reader.commit_data
        encoder = reader.settings.encoder
        return {
            "name": index.name,
            "documents": commit.documents,
            "chunks": reader.num_chunks,
            "commit": commit.number,
            "legs": list(retriever.legs),
            "fields": [field._asdict() for field in retriever.fields()],
            "fusion": asdict(retriever.fusion),
            "pipelines": pipelines.of(retriever),
            "encoder": encoder._asdict() | {"name": _shown(encoder.name)},
        }


def _shown(encoder: str) -> str:
    """Return the name of an encoder; of a folder its last part, which says nothing of the machine."""
    return Path(encoder).name if Path(encoder).is_absolute() or Path(encoder).exists() else encoder
