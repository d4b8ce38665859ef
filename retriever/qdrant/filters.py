"""What a filter means in a collection: a condition of Qdrant's, and where that lets too much through, a check of ours.

It means what it means in a folder (`index.lucene.filters`). Qdrant cannot compare texts, integers beyond doubles, or
fractions of seconds: there its condition is a wider one, and each document found is compared here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.filters import AllOf, AnyOf, Not, OneOf, Ordered, Value
from retriever.index.lucene.comparisons import (
    SPELLINGS,
    alphabetical,
    greatest_double,
    kinds_of,
    least_double,
    no_match,
    truth,
    whole,
)
from retriever.index.lucene.metadata import BOOLEANS, DOUBLES, INTEGERS, MOMENTS, NUMBERS, TEXT, integer_term
from retriever.index.moments import parse_moment
from retriever.qdrant import engine
from retriever.qdrant.engine import ALL, NONE, Between, Has, Present
from retriever.qdrant.points import KINDS, payload_name

if TYPE_CHECKING:
    from retriever.index.filters import Condition
    from retriever.index.moments import Moment
    from retriever.qdrant.engine import Within

__all__ = ["Selection", "comparable_kinds", "select"]

Payload = Mapping[str, Any]
Check = Callable[[Payload], bool]


class Selection(NamedTuple):
    """The documents of a filter: within a condition of Qdrant's, those whose payload passes a check, None for all."""

    within: Within
    check: Check | None


def comparable_kinds(fields: Mapping[str, Mapping[str, int]]) -> dict[str, set[str]]:
    """Return the kinds of the values of fields; one whose texts are moments, all of them, holds no text."""
    return {
        name: {kind for kind in KINDS if kind in counts}
        - ({TEXT} if MOMENTS in counts and counts[f"values {TEXT}"] == counts[f"values {MOMENTS}"] else set())
        for name, counts in fields.items()
    }


def select(condition: Condition, kinds: Mapping[str, set[str]]) -> Selection:
    """Return what a filter selects; raise UserError for a field that is not in `kinds`, or a value that cannot be."""
    match condition:
        case OneOf():
            return _one_of(condition, kinds)
        case Ordered("id", order, value):
            if value.number is not None:
                raise alphabetical("id", order, value)
            return Selection(ALL, lambda payload: _in_order(payload["id"], order, value.text))
        case Ordered(field, order, value):
            return _any(_clauses(field, order, value, kinds_of(field, kinds)))
        case Not(part):
            return _not(select(part, kinds))
        case AllOf(parts):
            return _all([select(part, kinds) for part in parts])
        case AnyOf(parts):
            return _any([select(part, kinds) for part in parts])


def _one_of(condition: OneOf, kinds: Mapping[str, set[str]]) -> Selection:
    if condition.field == "id":
        return Selection(Has("id", tuple(value.text for value in condition.values)), None)
    held = kinds_of(condition.field, kinds)
    return _any([clause for value in condition.values for clause in _clauses(condition.field, "=", value, held)])


def _not(part: Selection) -> Selection:
    if part.check is None:
        return Selection(engine.Not(part.within), None)
    check = _whole(part)
    return Selection(ALL, lambda payload: not check(payload))


def _all(parts: list[Selection]) -> Selection:
    checks = [part.check for part in parts if part.check is not None]
    within = engine.AllOf(tuple(part.within for part in parts))
    return Selection(within, (lambda payload: all(check(payload) for check in checks)) if checks else None)


def _any(parts: list[Selection]) -> Selection:
    within = engine.AnyOf(tuple(part.within for part in parts))
    if all(part.check is None for part in parts):
        return Selection(within, None)
    checks = [_whole(part) for part in parts]
    return Selection(within, lambda payload: any(check(payload) for check in checks))


def _whole(part: Selection) -> Check:
    """Return a check that does not rely on Qdrant's condition, either."""
    return lambda payload: satisfies(payload, part.within) and (part.check is None or part.check(payload))


def satisfies(payload: Payload, within: Within) -> bool:
    """Say whether a payload satisfies a condition, as Qdrant does."""
    match within:
        case Has(key, texts):
            return not set(texts).isdisjoint(_held(payload, key))
        case Between(key, low, high):
            return any(low <= value <= high for value in _held(payload, key))
        case Present(key):
            return bool(_held(payload, key))
        case engine.Not(part):
            return not satisfies(payload, part)
        case engine.AllOf(parts):
            return all(satisfies(payload, part) for part in parts)
        case engine.AnyOf(parts):
            return any(satisfies(payload, part) for part in parts)


def _held(payload: Payload, key: str) -> list[Any]:
    kind, _, name = key.partition(".")
    found = payload.get(kind, {}).get(name, []) if name else payload.get(kind, [])
    return found if isinstance(found, list) else [found]


def _clauses(field: str, order: str, value: Value, held: set[str]) -> list[Selection]:
    """Return what a value finds in a field of these kinds; raise UserError if it can be none of them."""
    name = payload_name(field)
    if value.number is not None and held & NUMBERS:
        return _numbers(name, order, value.number, held)
    found: list[Selection] = []
    meant = truth(value, held)
    if meant and BOOLEANS in held:
        words = tuple(word for word in ("false", "true") if _in_order(word, order, meant))
        found.append(Selection(Has(f"{BOOLEANS}.{name}", words) if words else NONE, None))
    moment = parse_moment(value.text) if MOMENTS in held else None
    if moment is not None:
        found.append(_moments(name, order, moment))
        if TEXT in held and order != "=":
            found.append(_written_before(name, order, value.text))
    elif TEXT in held and order != "=":
        if value.number is not None:
            raise alphabetical(field, order, value)
        found.append(_texts(name, order, value.text))
    if TEXT in held and order == "=":
        spellings = SPELLINGS.get(meant, ()) if not value.quoted and value.number is None else ()
        found.append(Selection(Has(f"{TEXT}.{name}", (value.text, *spellings)), None))
    if not found:
        raise no_match(field, value, held)
    return found


def _in_order(one: str, order: str, other: str) -> bool:
    if order == "=":
        return one == other
    if one == other:
        return order in ("<=", ">=")
    return (one < other) == (order in ("<", "<="))


def _texts(name: str, order: str, text: str) -> Selection:
    key = f"{TEXT}.{name}"
    return Selection(Present(key), lambda payload: any(_in_order(held, order, text) for held in _held(payload, key)))


def _numbers(name: str, order: str, number: float, held: set[str]) -> list[Selection]:
    found = []
    low, high = least_double(order, number), greatest_double(order, number)
    if DOUBLES in held and low <= high:
        found.append(Selection(Between(f"{DOUBLES}.{name}", low, high), None))
    if INTEGERS in held and not (order == "=" and number != whole(number)):
        found.append(_integers(f"{INTEGERS}.{name}", order, number))
    return found


def _integers(key: str, order: str, number: float) -> Selection:
    """Return what compares with integers, which are stored as texts in their order."""
    if isinstance(number, float) and math.isinf(number):
        every = (order in ("<", "<=")) == (number > 0) and order != "="
        return Selection(Present(key) if every else NONE, None)
    floor = math.floor(number)
    term = integer_term(floor)
    if order == "=":
        return Selection(Has(key, (term,)), None)
    if floor != number:  # no integer equals it: those up to its floor are below it, the others above
        order = "<=" if order in ("<", "<=") else ">"
    return Selection(Present(key), lambda payload: any(_in_order(held, order, term) for held in _held(payload, key)))


def _moments(name: str, order: str, moment: Moment) -> Selection:
    """Return what compares with moments; a day, month or year counts as a whole."""
    seconds, _, length = moment
    last = seconds + max(length, 1) - 1
    low, high = (-math.inf if order in ("<", "<=") else seconds), (math.inf if order in (">", ">=") else last)
    if not length:
        within = Between(f"{MOMENTS}.{name}", low, high)
        return Selection(within, lambda payload: any(_at(text, order, moment) for text in _held(payload, f"s.{name}")))
    low, high = (last + 1 if order == ">" else low), (seconds - 1 if order == "<" else high)
    return Selection(Between(f"{MOMENTS}.{name}", low, high), None)


def _at(text: str, order: str, moment: Moment) -> bool:
    found = parse_moment(text)
    if found is None:
        return False
    one, other = found[:2], moment[:2]
    if one == other:
        return order in ("=", "<=", ">=")
    return order != "=" and (one < other) == (order in ("<", "<="))


def _written_before(name: str, order: str, text: str) -> Selection:
    """Return what compares with texts that begin with a digit, of documents without moments."""
    key = f"{TEXT}.{name}"
    within = engine.AllOf((Present(key), engine.Not(Present(f"{MOMENTS}.{name}"))))
    return Selection(
        within,
        lambda payload: any("0" <= held < ":" and _in_order(held, order, text) for held in _held(payload, key)),
    )
