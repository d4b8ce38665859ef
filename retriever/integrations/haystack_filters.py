"""Haystack's filters in the language of ours, which `retriever.index.filters` defines.

They mean what they mean in Haystack: a field that a document lacks is None, which equals nothing but None; texts and
numbers never equal each other; only numbers and dates have an order. What differs: a list is found by each of its
values, a time without a zone is in UTC, and "2025" finds every date of that year.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retriever.extras import extra

with extra("haystack"):
    from haystack.errors import FilterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["filter_text"]

ALL, NONE = 'id >= ""', 'id < ""'
"""Filters that find every document, and no document."""
META = "meta."
NOT_META = ("content", "blob", "score", "embedding", "sparse_embedding", "meta")
"""Fields of Haystack's documents that an index cannot filter by."""
NUMBER, TRUTH, TEXT, DATE = "number", "boolean", "text", "date"
"""Kinds of values, as `Store.kinds` names them; dates are texts besides."""
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def filter_text(filters: Mapping[str, Any], kinds: Mapping[str, set[str]]) -> str:
    """Return a filter of ours that finds what Haystack's finds in an index whose fields have these kinds of values.

    Raises:
        FilterError: it is not one, or asks for what the index cannot tell.
    """
    if "field" not in filters:
        return _logic(filters, kinds)
    for key in ("operator", "value"):
        if key not in filters:
            raise FilterError(f"'{key}' key missing in {filters}")
    operator, value = filters["operator"], filters["value"]
    if operator not in OPERATORS:
        raise FilterError(f"Unknown comparison operator '{operator}'. Valid operators are: {sorted(OPERATORS)}")
    field, held = _field(str(filters["field"]), kinds)
    return OPERATORS[operator](field, held, operator, value)


def _logic(filters: Mapping[str, Any], kinds: Mapping[str, set[str]]) -> str:
    for key in ("operator", "conditions"):
        if key not in filters:
            raise FilterError(f"'{key}' key missing in {filters}")
    operator = filters["operator"]
    parts = [f"({filter_text(part, kinds)})" for part in filters["conditions"]]
    if operator == "OR":
        return " or ".join(parts) or NONE
    every = " and ".join(parts) or ALL
    if operator not in ("AND", "NOT"):
        raise FilterError(f"Unknown logical operator '{operator}'. Valid operators are: ['AND', 'NOT', 'OR']")
    return every if operator == "AND" else f"not ({every})"


def _field(name: str, kinds: Mapping[str, set[str]]) -> tuple[str, set[str]]:
    """Return a field as our filters write it, and the kinds of its values: none where no document has it."""
    if name == "id":
        return name, {TEXT}
    key = name.removeprefix(META)
    if name in NOT_META or key == "id" or ("." in key and key not in kinds):
        known = ", ".join(["id", *(f"{META}{field}" for field in sorted(kinds) if field != "id")])
        raise FilterError(f"The index cannot filter by '{name}': id and plain metadata are indexed, here {known}")
    return _quoted(key), kinds.get(key, set())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _equal(field: str, held: set[str], value: Any) -> str:
    """Return the filter of documents whose field has a value, by the kind of that value."""
    if value is None:
        return f"not ({_present(field, held)})"
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, int | float):  # as in Python, True equals 1
        found = [f"{field} = {value + 0!r}"] if NUMBER in held else []
        found += [f"{field} = {'true' if value else 'false'}"] if TRUTH in held and value in (0, 1) else []
        return " or ".join(found) or NONE
    if isinstance(value, str):
        if DATE in held and DAY.fullmatch(value):
            value += "T00:00:00"  # a date alone would mean the whole day
        return f"{field} = {_quoted(value)}" if TEXT in held else NONE
    raise FilterError(f"The index cannot compare with {value!r}: give a text, a number, a truth value or a date")


def _present(field: str, held: set[str]) -> str:
    """Return the filter of documents that have the field at all."""
    every = {NUMBER: f"{field} >= 0 or {field} < 0", TRUTH: f"{field} in (true, false)", TEXT: f'{field} >= ""'}
    return " or ".join(text for kind, text in every.items() if kind in held) or NONE


def _same(field: str, held: set[str], operator: str, value: Any) -> str:
    found = _equal(field, held, value)
    return found if operator == "==" else f"not ({found})"


def _among(field: str, held: set[str], operator: str, value: Any) -> str:
    if not isinstance(value, list):
        raise FilterError(f"Filter value must be a `list` when using operator '{operator}', received '{type(value)}'")
    found = " or ".join(f"({_equal(field, held, one)})" for one in value) or NONE
    return found if operator == "in" else f"not ({found})"


def _ordered(field: str, held: set[str], operator: str, value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise FilterError(
                f"Can't compare with {value!r} by '{operator}': strings are only comparable if they are ISO dates"
            ) from None
    if isinstance(value, datetime):
        return f"{field} {operator} {_quoted(value.isoformat())}" if TEXT in held else NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"Can't compare with {value!r} by '{operator}': give a number or a date")
    return f"{field} {operator} {value!r}" if NUMBER in held else NONE


OPERATORS = {
    "==": _same,
    "!=": _same,
    "in": _among,
    "not in": _among,
    "<": _ordered,
    "<=": _ordered,
    ">": _ordered,
    ">=": _ordered,
}
