"""How a value in a filter compares with a field, by the kinds of the field's values, whatever looks them up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retriever.index.lucene.metadata import BOOLEANS, DOUBLES, INTEGERS, MOMENTS, ROUNDED, TEXT
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.index.filters import Value

__all__ = [
    "SPELLINGS",
    "alphabetical",
    "greatest_double",
    "kinds_of",
    "least_double",
    "no_match",
    "rounded",
    "truth",
    "whole",
]

TRUTH = ("true", "false")
SPELLINGS = {word: (word, word.capitalize(), word.upper()) for word in TRUTH}
KINDS = {
    TEXT: "text",
    MOMENTS: "dates and times",
    BOOLEANS: "true and false",
    DOUBLES: "numbers",
    INTEGERS: "numbers",
    ROUNDED: "numbers",
}
"""What to call the kinds of a field."""
REMEDIES = {
    TEXT: "write text in quotes",
    MOMENTS: "write one as 2025-02-03 or 2025-02-03T12:45:46Z",
    BOOLEANS: "write true or false",
    DOUBLES: "write a number, without quotes",
    INTEGERS: "write a number, without quotes",
    ROUNDED: "write a number, without quotes",
}
"""What to write instead of a value that a field of this kind cannot hold."""


def kinds_of(field: str, kinds: Mapping[str, set[str]]) -> set[str]:
    """Return the kinds that a field holds; raise UserError for one that the index has not."""
    if field not in kinds:
        known = ", ".join(["id", *sorted(kinds)])
        raise UserError(f"filter: the index has no field {field!r}; its fields are {known}")
    return kinds[field]


def truth(value: Value, held: set[str]) -> str:
    """Return "true" or "false" where a value may mean that, else nothing; in quotes it is a text, if any is held."""
    if value.quoted and TEXT in held:
        return ""
    if value.text in ("0", "1"):
        return TRUTH[value.text == "0"]
    return value.text.lower() if value.text.lower() in TRUTH else ""


def alphabetical(field: str, order: str, value: Value) -> UserError:
    """Return the error for a number that is to be in an order to texts."""
    return UserError(
        f"filter: {field!r} holds text, and {order} {value.text} compares numbers; "
        f"write {field} {order} '{value.text}' to compare it in alphabetical order"
    )


def no_match(field: str, value: Value, held: set[str]) -> UserError:
    """Return the error for a value that no value of a field can be."""
    found = " and ".join(sorted({KINDS[kind] for kind in held}))
    remedies = " or ".join(sorted({REMEDIES[kind] for kind in held}))
    return UserError(f"filter: {field!r} holds {found}, which {value.text!r} can never be; {remedies}")


def rounded(number: float) -> float:
    """Return the nearest double."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def whole(number: float) -> float:
    """Return the largest integer that is not above a number; infinity is one."""
    return number if math.isinf(rounded(number)) else math.floor(number)


def least_double(order: str, number: float) -> float:
    """Return the least double that is in this order to a number, infinity if there is none."""
    if order in ("<", "<="):
        return -math.inf
    nearest = rounded(number)
    if nearest < number or (nearest == number and order == ">"):
        return math.nextafter(nearest, math.inf)
    return nearest


def greatest_double(order: str, number: float) -> float:
    """Return the greatest double that is in this order to a number, minus infinity if there is none."""
    if order in (">", ">="):
        return math.inf
    nearest = rounded(number)
    if nearest > number or (nearest == number and order == "<"):
        return math.nextafter(nearest, -math.inf)
    return nearest
