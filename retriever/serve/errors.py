"""Which problem document answers which error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from retriever.index.files import DamagedError, MissingError
from retriever.serve.problems import ProblemError, validation_detail
from retriever.types import ShardLostError, UserError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = ["add_errors", "error_answer"]

DETAILS = {
    400: "the body cannot be read; send one JSON object, which is not nested too deeply",
    404: "nothing is here; /openapi.json says what is where",
    405: "not with this method; /openapi.json says which",
}
UNAVAILABLE: dict[type[UserError], str] = {
    DamagedError: "damaged",
    MissingError: "missing-index",
    ShardLostError: "shard-lost",
}
log = logging.getLogger(__name__)


def add_errors(app: FastAPI) -> None:
    """Let an application answer its errors so."""

    async def answer(request: Request, error: Any) -> Response:
        return error_answer(request, error)

    for kind in (UserError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, _unexpected)


def error_answer(request: Request, error: UserError | RequestValidationError | HTTPException) -> Response:
    """Return the answer of a request that failed by a fault of the client, or by one that has a name."""
    problem = _problem(request, error)
    return Response(problem.body, problem.status_code, problem.headers)


def _problem(request: Request, error: UserError | RequestValidationError | HTTPException) -> ProblemError:
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, HTTPException):
        detail = DETAILS.get(error.status_code, str(error.detail))
        return ProblemError(error.status_code, "http", detail, error.headers)
    if isinstance(error, RequestValidationError):
        return ProblemError(422, "invalid-request", validation_detail(error.errors()))
    detail = request.app.state.server.indexes.message(error)
    for kind, name in UNAVAILABLE.items():
        if isinstance(error, kind):
            log.error("%s", error)
            return ProblemError(503, name, detail)
    return ProblemError(400, "user-error", detail)


async def _unexpected(request: Request, error: Any) -> Response:
    log.error("%s", request.url.path, exc_info=error)
    problem = ProblemError(500, "internal", "the server failed; its log says why")
    return Response(problem.body, problem.status_code, problem.headers)
