"""What a filter means: the Lucene query of its documents, and the rows of their vectors.

A field compares by the kinds of its values. A number finds the documents that hold that number, exactly; where a field
holds no numbers at all, or is `id`, it is read as the text that it is written as. true and false find truth values, in
any case, and texts of these letters. A moment finds moments, in whatever zone they are written, where the field holds
any. Other text compares by code points. A list satisfies a condition that one of its values satisfies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.filters import AllOf, AnyOf, Condition, Not, OneOf, Ordered, Value
from retriever.index.lucene.calls import first_rows
from retriever.index.lucene.comparisons import (
    SPELLINGS,
    alphabetical,
    greatest_double,
    kinds_of,
    least_double,
    no_match,
    rounded,
    truth,
    whole,
)
from retriever.index.lucene.jvm import as_type, bytes_ref, java, lucene, one_at_a_time, well_formed
from retriever.index.lucene.metadata import (
    BOOLEANS,
    DOUBLES,
    INTEGERS,
    MOMENTS,
    NUMBERS,
    PREFIXES,
    ROUNDED,
    TEXT,
    integer_term,
)
from retriever.index.moments import Moment, parse_moment

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "doubles_between",
    "every_value",
    "field_kinds",
    "filter_query",
    "lucene_rows",
    "one_term",
    "within",
]

EARLIEST, LATEST = -(1 << 62), 1 << 62
LAST_NANOSECOND = 999_999_999


@one_at_a_time()
def field_kinds(index: Any) -> dict[str, set[str]]:
    """Return the metadata fields of a Lucene index, each with its prefixes: it may hold text and numbers."""
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    fields = lucene("index.FieldInfos").getMergedFieldInfos(index).iterator()
    while fields.hasNext():
        prefix, dot, name = str(as_type("index.FieldInfo", fields.next()).name).partition(".")
        if dot and prefix in PREFIXES:
            kinds[name].add(prefix)
    return dict(kinds)


@one_at_a_time()
def comparable_kinds(index: Any, kinds: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the kinds that filters compare with: a field whose texts are moments, all of them, holds no text."""
    return {
        name: held - {TEXT} if MOMENTS in held and _all_are_moments(index, name) else held
        for name, held in kinds.items()
    }


def _all_are_moments(index: Any, name: str) -> bool:
    """Return whether every text of a field is a moment, as Lucene's statistics tell; deleted documents count, too."""
    texts, moments = lucene("index.MultiTerms").getTerms(index, f"{TEXT}.{name}"), lucene("index.PointValues")
    field = f"{MOMENTS}.{name}"
    if texts is None:  # its documents are gone
        return False
    if texts.getDocCount() != moments.getDocCount(index, field) or texts.getSumDocFreq() > moments.size(index, field):
        return False
    # In lists a moment that stands twice may hide another text from these numbers; nearly all begin with no digit.
    ends = str(texts.getMin().utf8ToString())[:1], str(texts.getMax().utf8ToString())[:1]
    return ends[0] >= "0" and ends[1] <= "9"


@one_at_a_time()
def filter_query(condition: Condition, kinds: Mapping[str, set[str]]) -> Any:
    """Return the Lucene query of a filter; raise UserError for a field that is not in `kinds`."""
    match condition:
        case OneOf():
            return _one_of(condition, kinds)
        case Ordered():
            return _ordered(condition, kinds)
        case Not():
            every = as_type("search.Query", lucene("search.MatchAllDocsQuery")())
            return _combined((every, "MUST"), (filter_query(condition.part, kinds), "MUST_NOT"))
        case AllOf():
            return _combined(*((filter_query(part, kinds), "MUST") for part in condition.parts))
        case AnyOf():
            return _combined(*((filter_query(part, kinds), "SHOULD") for part in condition.parts))


def _combined(*clauses: tuple[Any, str]) -> Any:
    occur = lucene("search.BooleanClause$Occur")
    builder = lucene("search.BooleanQuery$Builder")()
    for query, how in clauses:
        builder.add(query, getattr(occur, how))
    return as_type("search.Query", builder.build())


def within(query: Any, selected: Any) -> Any:
    """Return a query that ranks as `query` does, among the documents that `selected` finds."""
    return _combined((as_type("search.Query", query), "MUST"), (selected, "FILTER"))


def _one_of(condition: OneOf, kinds: Mapping[str, set[str]]) -> Any:
    if condition.field == "id":
        return _among("id", [value.text for value in condition.values])
    held = kinds_of(condition.field, kinds)
    found, texts = [], list[str]()
    for value in condition.values:
        clauses = _clauses(condition.field, "=", value, held)
        texts += clauses.texts
        found += clauses.queries
    if texts:
        found.append(_among(f"{TEXT}.{condition.field}", texts))
    return _any_of(found)


def _ordered(condition: Ordered, kinds: Mapping[str, set[str]]) -> Any:
    field, order, value = condition
    if field == "id":
        if value.number is not None:
            raise alphabetical(field, order, value)
        return _terms("id", order, value.text)
    return _any_of(_clauses(field, order, value, kinds_of(field, kinds)).queries)


def _any_of(queries: Sequence[Any]) -> Any:
    return _combined(*((query, "SHOULD") for query in queries))


class _Clauses(NamedTuple):
    """What a value finds in a field: by queries, and as one of these texts."""

    queries: list[Any]
    texts: list[str]


def _clauses(field: str, order: str, value: Value, held: set[str]) -> _Clauses:
    """Return what compares with a value, among the kinds that a field holds; raise UserError if none can."""
    if value.number is not None and held & NUMBERS:
        return _Clauses(_numbers(field, order, value.number, held), [])
    queries, texts = list[Any](), list[str]()
    meant = truth(value, held)
    if meant and BOOLEANS in held:
        queries.append(_terms(f"{BOOLEANS}.{field}", order, meant))
    moment = parse_moment(value.text) if MOMENTS in held else None
    if moment is not None:
        queries.append(_moments(field, order, moment))
        if TEXT in held and order != "=":
            queries.append(_written_before(field, order, value.text))
    elif TEXT in held and order != "=":
        if value.number is not None:
            raise alphabetical(field, order, value)
        queries.append(_terms(f"{TEXT}.{field}", order, value.text))
    if TEXT in held and order == "=":
        texts = [value.text, *(SPELLINGS.get(meant, ()) if not value.quoted and value.number is None else ())]
    if not queries and not texts:
        raise no_match(field, value, held)
    return _Clauses(queries, texts)


@one_at_a_time()
def one_term(name: str, text: str) -> Any:
    """Return the query of the documents that have one term in a field of Lucene's."""
    return _among(name, [text])


@one_at_a_time()
def every_value(name: str) -> Any:
    """Return the query of the documents that have any value in a field of Lucene's, which begins with its kind."""
    kind, _, field = name.partition(".")
    if kind in (DOUBLES, ROUNDED):
        return _between(name, -math.inf, math.inf)
    return _moment_box(field, (EARLIEST, LATEST)) if kind == MOMENTS else _term_range(name, None, None, True, True)


@one_at_a_time()
def doubles_between(name: str, low: float, high: float) -> Any:
    """Return the query of the documents that have a double from `low` to `high`, both included."""
    return _between(name, low, high)


def _among(name: str, texts: Sequence[str]) -> Any:
    terms = java("java.util.ArrayList")()
    for text in texts:
        terms.add(bytes_ref(well_formed(text)))
    query = lucene("search.TermInSetQuery")(name, as_type("java.util.Collection", terms))
    return as_type("search.Query", query)


def _terms(name: str, order: str, text: str) -> Any:
    """Return the query of the terms that are in this order to a text."""
    term = bytes_ref(well_formed(text))
    low = None if order in ("<", "<=") else term
    high = None if order in (">", ">=") else term
    return _term_range(name, low, high, order in ("=", ">="), order in ("=", "<="))


def _term_range(name: str, low: Any, high: Any, with_low: bool, with_high: bool) -> Any:
    return as_type("search.Query", lucene("search.TermRangeQuery")(name, low, high, with_low, with_high))


def _numbers(field: str, order: str, number: float, held: set[str]) -> list[Any]:
    """Return the queries of the numbers that are in this order to one, exactly."""
    queries = []
    low, high = least_double(order, number), greatest_double(order, number)
    if DOUBLES in held and low <= high:
        queries.append(_between(f"{DOUBLES}.{field}", low, high))
    if ROUNDED in held:  # what was rounded compares with what the number is rounded to
        nearest = rounded(number)
        queries.append(_between(f"{ROUNDED}.{field}", least_double(order, nearest), greatest_double(order, nearest)))
    if INTEGERS in held and not (order == "=" and number != whole(number)):
        queries += _integers(f"{INTEGERS}.{field}", order, number)
    return queries


def _between(name: str, low: float, high: float) -> Any:
    """Return the query of the doubles from `low` to `high`, both included; Lucene tells -0.0 from 0.0, we do not."""
    bounds = -0.0 if low == 0 else low, 0.0 if high == 0 else high
    return as_type("search.Query", lucene("document.DoublePoint").newRangeQuery(name, *bounds))


def _integers(name: str, order: str, number: float) -> list[Any]:
    """Return the query of the integers, stored as terms, that are in this order to a number."""
    if isinstance(number, float) and math.isinf(number):
        every = (order in ("<", "<=")) == (number > 0) and order != "="
        return [_term_range(name, None, None, False, False)] if every else []
    floor = math.floor(number)
    if floor == number:
        return [_terms(name, order, integer_term(floor))]
    # No integer equals it: those up to its floor are below it, the others above.
    return [_terms(name, "<=" if order in ("<", "<=") else ">", integer_term(floor))]


def _moments(field: str, order: str, moment: Moment) -> Any:
    """Return the query of the moments that are in this order to one; a day, month or year counts as a whole.

    It is met by those within it (=, <=, >=), those before it (<, <=) and those after it (>, >=).
    """
    seconds, nanoseconds, length = moment
    within = _moment_box(field, (seconds, seconds + length - 1)), "SHOULD"
    if not length:
        within = _moment_box(field, (seconds, seconds), (nanoseconds, nanoseconds)), "SHOULD"
    clauses = [within] if order in ("=", "<=", ">=") else []
    if order in ("<", "<="):
        clauses.append((_moment_box(field, (EARLIEST, seconds - 1)), "SHOULD"))
        if nanoseconds:
            clauses.append((_moment_box(field, (seconds, seconds), (0, nanoseconds - 1)), "SHOULD"))
    if order in (">", ">="):
        clauses.append((_moment_box(field, (seconds + max(length, 1), LATEST)), "SHOULD"))
        if not length and nanoseconds < LAST_NANOSECOND:
            clauses.append((_moment_box(field, (seconds, seconds), (nanoseconds + 1, LAST_NANOSECOND)), "SHOULD"))
    return _combined(*clauses)


def _moment_box(field: str, seconds: tuple[int, int], nanoseconds: tuple[int, int] = (0, LAST_NANOSECOND)) -> Any:
    """Return the query of the moments in both ranges, ends included."""
    low, high = ([seconds[end], nanoseconds[end]] for end in (0, 1))
    return as_type("search.Query", lucene("document.LongPoint").newRangeQuery(f"{MOMENTS}.{field}", low, high))


def _written_before(field: str, order: str, text: str) -> Any:
    """Return the query of documents without moments whose text is in this order to one, if it begins with a digit.

    So are the dates of documents that were written before moments were known.
    """
    term, zero, colon = bytes_ref(text), bytes_ref("0"), bytes_ref(":")  # the colon comes after the nine
    low, high = (zero, term) if order in ("<", "<=") else (term, colon)
    texts = _term_range(f"{TEXT}.{field}", low, high, order != ">", order == "<=")
    return _combined((texts, "MUST"), (_moment_box(field, (EARLIEST, LATEST)), "MUST_NOT"))


def lucene_rows(index: Any) -> NDArray[np.int64]:
    """Return the row of each of Lucene's document numbers, (max_doc,)."""
    first = first_rows(index)
    # The chunks of a document stand together and name the row of the first one.
    blocks = np.flatnonzero(np.diff(first, prepend=-1))
    return first + np.arange(len(first)) - np.repeat(blocks, np.diff(blocks, append=len(first)))
