"""What a filter means: the Lucene query of its documents, and the rows of their vectors.

A field compares by type. A number finds the documents that hold that number; where a field holds no numbers at all, or
is `id`, it is read as the text that it is written as. Text compares by code points, true and false are text. A list
satisfies a condition that one of its values satisfies.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.index.filters import AllOf, AnyOf, Condition, Not, OneOf, Ordered, Value
from retriever.index.lucene.jvm import as_type, bytes_ref, java, lucene, one_at_a_time, well_formed
from retriever.types import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["field_kinds", "filter_query", "lucene_rows", "matching_docs", "within"]

TEXT, NUMBERS = "s", "n"
"""The prefixes of metadata fields in Lucene."""


@one_at_a_time()
def field_kinds(index: Any) -> dict[str, set[str]]:
    """Return the metadata fields of a Lucene index, each with its prefixes: it may hold text and numbers."""
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    fields = lucene("index.FieldInfos").getMergedFieldInfos(index).iterator()
    while fields.hasNext():
        prefix, dot, name = str(as_type("index.FieldInfo", fields.next()).name).partition(".")
        if dot and prefix in (TEXT, NUMBERS):
            kinds[name].add(prefix)
    return dict(kinds)


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


def _kinds_of(field: str, kinds: Mapping[str, set[str]]) -> set[str]:
    if field not in kinds:
        known = ", ".join(["id", *sorted(kinds)])
        raise UserError(f"filter: the index has no field {field!r}; its fields are {known}")
    return kinds[field]


def _one_of(condition: OneOf, kinds: Mapping[str, set[str]]) -> Any:
    field, texts, numbers = "id", list(condition.values), list[Value]()
    if condition.field != "id":
        field = f"{TEXT}.{condition.field}"
        if NUMBERS in _kinds_of(condition.field, kinds):
            numbers = [value for value in texts if value.number is not None]
            texts = [value for value in texts if value.number is None]
    terms = java("java.util.ArrayList")()
    for value in texts:
        terms.add(bytes_ref(well_formed(value.text)))
    among = lucene("search.TermInSetQuery")(field, as_type("java.util.Collection", terms))
    found = [(as_type("search.Query", among), "SHOULD")]
    found += [(_between(condition.field, value.number, value.number), "SHOULD") for value in numbers]
    return _combined(*found)


def _ordered(condition: Ordered, kinds: Mapping[str, set[str]]) -> Any:
    field, order, value = condition
    if value.number is not None and field != "id":
        if NUMBERS not in _kinds_of(field, kinds):
            raise UserError(
                f"filter: {field!r} holds text, and {order} {value.text} compares numbers; "
                f"write {field} {order} '{value.text}' to compare it in alphabetical order"
            )
        number = value.number
        if order == "<":
            return _between(field, -math.inf, math.nextafter(-0.0 if number == 0 else number, -math.inf))
        if order == ">":
            return _between(field, math.nextafter(0.0 if number == 0 else number, math.inf), math.inf)
        return _between(field, -math.inf, number) if order == "<=" else _between(field, number, math.inf)
    if field != "id":
        _kinds_of(field, kinds)
    term = bytes_ref(well_formed(value.text))
    low, high = (None, term) if order in ("<", "<=") else (term, None)
    name = "id" if field == "id" else f"{TEXT}.{field}"
    return as_type("search.Query", lucene("search.TermRangeQuery")(name, low, high, order == ">=", order == "<="))


def _between(field: str, low: float | None, high: float | None) -> Any:
    """Return the query of the numbers from `low` to `high`, both included; Lucene tells -0.0 from 0.0, we do not."""
    assert low is not None and high is not None
    bounds = -0.0 if low == 0 else low, 0.0 if high == 0 else high
    return as_type("search.Query", lucene("document.DoublePoint").newRangeQuery(f"{NUMBERS}.{field}", *bounds))


@one_at_a_time()
def matching_docs(searcher: Any, query: Any) -> NDArray[np.bool_]:
    """Return which of Lucene's document numbers a query finds, bool (max_doc,), deleted documents included."""
    scores = lucene("search.ScoreMode").COMPLETE_NO_SCORES
    weight = searcher.createWeight(searcher.rewrite(query), scores, 1.0)
    leaves = searcher.getIndexReader().leaves()
    parts = [np.zeros(0, bool)]
    for number in range(leaves.size()):
        leaf = as_type("index.LeafReaderContext", leaves.get(number))
        count = leaf.reader().maxDoc()
        bits = lucene("util.FixedBitSet")(count)
        scorer = weight.scorer(leaf)
        if scorer is not None:
            # `or` is a keyword of Python's, so it has to be asked for by name.
            getattr(bits, "or")(scorer.iterator())
        words = np.array(bits.getBits(), dtype="<i8")
        parts.append(np.unpackbits(words.view(np.uint8), count=count, bitorder="little").astype(bool))
    return np.concatenate(parts)


@one_at_a_time()
def lucene_rows(index: Any) -> NDArray[np.int64]:
    """Return the row of each of Lucene's document numbers, (max_doc,): a Java call each, a second for a million."""
    rows = [np.zeros(0, np.int64)]
    leaves = index.leaves()
    for number in range(leaves.size()):
        reader = as_type("index.LeafReaderContext", leaves.get(number)).reader()
        values = reader.getNumericDocValues("row")
        following, value = values.nextDoc, values.longValue
        first = np.array([value() for _ in range(reader.maxDoc()) if following() >= 0], np.int64)
        # The chunks of a document stand together and name the row of the first one.
        blocks = np.flatnonzero(np.diff(first, prepend=-1))
        rows.append(first + np.arange(len(first)) - np.repeat(blocks, np.diff(blocks, append=len(first))))
    return np.concatenate(rows)
