"""A search that is asked for as it should be goes straight to its function.

FastAPI's way there, through its routes, its dependencies and the ends of both, takes a third of a millisecond, as long
as the search for some words itself. Whatever is not quite as it should be goes that way, and is answered there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from retriever.serve.errors import error_answer
from retriever.serve.routes.address import read_address
from retriever.serve.routes.search import SEARCH, found_hits
from retriever.serve.schema.models import SearchParameters, SearchRequest
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Shortcut"]

PATH = re.compile(SEARCH.replace("{name}", "([^/]+)"))
JSON = b"application/json"


class _Route(NamedTuple):
    """What the log and the figures call the route."""

    path: str


class Shortcut:
    """ASGI middleware around FastAPI's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = PATH.fullmatch(scope["path"]) if scope["type"] == "http" and not scope.get("root_path") else None
        if found is None:
            await self._app(scope, receive, send)
            return
        request, again = Request(scope), _Again(receive)
        try:
            asked = await _asked(request, again)
            if asked is None:
                await self._app(scope, again, send)
                return
            scope["route"] = _Route(SEARCH)
            response = await found_hits(request, found[1], asked)
        except (UserError, HTTPException) as error:
            response = error_answer(request, error)
        await response(scope, receive, send)


async def _asked(request: Request, receive: _Again) -> SearchRequest | SearchParameters | None:
    """Return what is asked for; None where the request is not as it should be."""
    try:
        if request.method == "GET":
            return read_address(request, SearchParameters)
        if request.method == "POST" and _is_json(request.scope["headers"]):
            return SearchRequest.model_validate(json.loads(await receive.body()))
    except (RequestValidationError, ValidationError, ValueError, RecursionError):
        pass
    return None


def _is_json(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return [value for name, value in headers if name == b"content-type"] == [JSON]


class _Again:
    """A `receive` of ASGI; what was read of the body comes again, for whoever reads it next."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: list[Message] = []

    async def body(self) -> bytes:
        """Read the body."""
        more = True
        while more:
            message = await self._receive()
            self._read.append(message)
            more = message.get("more_body", False)
        return b"".join([message.get("body", b"") for message in self._read])

    async def __call__(self) -> Message:
        """Return the next part."""
        return self._read.pop(0) if self._read else await self._receive()
