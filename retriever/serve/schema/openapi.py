"""The OpenAPI document: answers and errors of each route, keys, and the limits of this server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from retriever.serve.schema.answers import Problem
from retriever.serve.security.access import needed_scope
from retriever.wire import PROBLEM

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

    from retriever.serve.settings import ServeSettings

__all__ = ["answers", "body_of", "document_api"]

PROBLEMS = {
    400: "What was asked for cannot be answered.",
    401: "A key is needed.",
    403: "Not with this key, not from this site, or not on this server.",
    404: "Not there.",
    408: "The request came too slowly.",
    413: "The body is too long.",
    421: "The server is not called so.",
    422: "The request does not have the form that it needs.",
    429: "Too much is waiting already.",
    503: "It takes too long, or cannot be done now.",
}
REF = {"$ref": "#/components/schemas/Problem"}


def answers(model: type[BaseModel], *more: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route answers: a model, or a problem; `more` are further statuses of problems."""
    problems = {**PROBLEMS, **dict.fromkeys(more, "The content is not of a kind that is read.")}
    return {
        200: {"model": model, "description": (model.__doc__ or "").strip()},
        **{status: {"description": said, "content": {PROBLEM: {"schema": REF}}} for status, said in problems.items()},
    }


def body_of(model: type[BaseModel], lines: str) -> dict[str, Any]:
    """Return what describes a body that the route reads by itself: a model, or its documents, one a line."""
    schema = model.model_json_schema()
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema},
                lines: {"schema": {"type": "string", "description": "One document a line, as a JSON object."}},
            },
        }
    }


def document_api(app: FastAPI, settings: ServeSettings) -> None:
    """Let an application describe itself."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI's documentation shows


def _described(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    parts = document["components"]
    parts["schemas"]["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    _limit(document, settings)
    if settings.keys:
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if needed_scope(method.upper(), path) is not None:
                    operation["security"] = [{"key": []}]
    return document


def _limit(document: dict[str, Any], settings: ServeSettings) -> None:
    """Write this server's limits beside the fields that they are of."""
    limits = settings.limits
    most = {
        "query": {"maxLength": limits.query},
        "text": {"maxLength": limits.query},
        "top_k": {"maximum": limits.depth},
        "offset": {"maximum": limits.depth},
        "queries": {"maxItems": limits.batch},
        "texts": {"maxItems": limits.batch},
        "ids": {"maxItems": limits.batch},
    }
    for name in ("SearchRequest", "BatchRequest", "QueryItem", "EncodeRequest", "IdsRequest"):
        properties = document["components"]["schemas"].get(name, {}).get("properties", {})
        for field in properties.keys() & most.keys():
            properties[field] |= most[field]
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] |= most.get(parameter["name"], {})
