"""What the routes of one server process share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from starlette.responses import Response

from retriever.types import UserError

if TYPE_CHECKING:
    from fastapi import Request

    from retriever.serve.indexes.opened import Indexes
    from retriever.serve.indexes.pipelines import Pipelines
    from retriever.serve.indexes.work import Work
    from retriever.serve.metrics import Metrics
    from retriever.serve.settings import ServeSettings

__all__ = ["ServerState", "answer", "check_size", "check_text", "state_of"]


class ServerState(NamedTuple):
    """Settings, open indexes, pipelines, the threads for searches and for changes, and what is counted."""

    settings: ServeSettings
    indexes: Indexes
    pipelines: Pipelines
    searches: Work
    changes: Work
    metrics: Metrics


def state_of(request: Request) -> ServerState:
    """Return what the application's start has made."""
    state: ServerState = request.app.state.server
    return state


def answer(values: dict[str, Any], status: int = 200) -> Response:
    """Return values as a JSON answer."""
    return Response(_json(values), status, media_type="application/json")


def _json(values: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(values)
    except TypeError:  # metadata may hold whole numbers of more than 64 bits
        return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def check_text(name: str, text: str | None, most: int) -> None:
    """Raise UserError for a text that is longer than the server reads."""
    if text is not None and len(text) > most:
        raise UserError(f"{name}: found {len(text)} characters; this server reads at most {most}; shorten it")


def check_size(name: str, size: int, most: int) -> None:
    """Raise UserError for a number that is larger than the server allows."""
    if size > most:
        raise UserError(f"{name}: found {size}; this server allows at most {most}; ask for less at a time")
