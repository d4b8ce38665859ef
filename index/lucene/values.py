"""Values of a metadata field, counted: the order of the counts, and counting where the documents are at hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from retriever.index.lucene.metadata import BOOLEANS, INTEGERS, TEXT, indexed_metadata, integer_of_term
from retriever.types import FacetCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retriever.types import Document

__all__ = ["FieldValue", "counted_values", "field_value", "most_frequent"]


class FieldValue(NamedTuple):
    """A value in the order of values: false and true, then numbers, then texts. True is not 1, 1 is 1.0."""

    kind: int
    value: str | float


def field_value(prefix: str, value: str | float) -> FieldValue:
    """Return what stands in a field of Lucene's, by the kind that its name begins with."""
    if prefix == BOOLEANS:
        return FieldValue(0, value == "true")
    if prefix == TEXT:
        return FieldValue(2, value)
    if prefix == INTEGERS:
        return FieldValue(1, integer_of_term(str(value)))
    number = float(value)
    return FieldValue(1, int(number) if number.is_integer() else number)


def most_frequent(counts: Mapping[FieldValue, int], top_k: int) -> list[FacetCount]:
    """Return the values that most documents have; as frequent ones in the order of values.

    >>> most_frequent({field_value("s", "b"): 1, field_value("s", "a"): 1, field_value("d", 2.0): 3}, 2)
    [FacetCount(value=2, documents=3), FacetCount(value='a', documents=1)]
    """
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [FacetCount(value, count) for (_, value), count in ordered[:top_k]]


def counted_values(documents: Iterable[Document], field: str, top_k: int) -> list[FacetCount]:
    """Return the values of a field that most of these documents have."""
    counts: Counter[FieldValue] = Counter()
    for document in documents:
        held = {field: document.metadata[field]} if field in document.metadata else {}
        values = ((name[0], value) for name, value in indexed_metadata(held))
        counts.update({field_value(prefix, value) for prefix, value in values if not isinstance(value, tuple)})
    return most_frequent(counts, top_k)
