"""What is served, and whether it is well."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from retriever.serve.state import answer, state_of

if TYPE_CHECKING:
    from retriever.serve.indexes import ServedIndex

__all__ = ["router"]

router = APIRouter(tags=["indexes"])


@router.get("/healthz", summary="Alive?", operation_id="healthz")
async def healthz() -> Any:
    """Say that the process answers."""
    return answer({"status": "ok"})


@router.get("/readyz", summary="Ready?", operation_id="readyz")
async def readyz(request: Request) -> Any:
    """Say whether every index is open at its last commit."""
    late = [index.name for index in state_of(request).indexes if index.error]
    return answer({"status": "late", "indexes": late}, 503) if late else answer({"status": "ok"})


@router.get("/indexes", summary="List indexes", operation_id="list_indexes")
async def list_indexes(request: Request) -> Any:
    """Return what each index holds."""
    return answer({"indexes": [described(index) for index in state_of(request).indexes]})


@router.get("/indexes/{name}", summary="Describe an index", operation_id="describe_index")
async def describe_index(request: Request, name: str) -> Any:
    """Return what an index holds."""
    return answer(described(state_of(request).indexes[name]))


def described(index: ServedIndex) -> dict[str, Any]:
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
            "fields": reader.fields,
            "fusion": asdict(retriever.fusion),
            "encoder": encoder._asdict() | {"name": _shown(encoder.name)},
        }


def _shown(encoder: str) -> str:
    """Return the name of an encoder, of a folder its last part."""
    return Path(encoder).name if Path(encoder).is_absolute() else encoder
