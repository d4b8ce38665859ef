"""How metadata stand in Lucene, so that filters can compare them: fields named by the kind of their values.

s.<name>  strings, whole
t.<name>  those that are moments ("2025-02-03T12:45:46Z"), too: points (seconds, nanoseconds)
b.<name>  true and false, as terms
d.<name>  numbers that a double holds exactly, as points
x.<name>  all other integers, as terms in the order of the integers
n.<name>  of documents written before there were d and x: numbers rounded to doubles; true and false were in s
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from retriever.index.moments import parse_moment
from retriever.types import MetadataValue

__all__ = [
    "BOOLEANS",
    "DOUBLES",
    "INTEGERS",
    "LARGEST_NUMBER",
    "LONGEST_TERM",
    "MOMENTS",
    "NUMBERS",
    "PREFIXES",
    "ROUNDED",
    "TEXT",
    "IndexedValue",
    "indexed_metadata",
    "integer_of_term",
    "integer_term",
]

TEXT, MOMENTS, BOOLEANS, DOUBLES, INTEGERS, ROUNDED = "s", "t", "b", "d", "x", "n"
PREFIXES = (TEXT, MOMENTS, BOOLEANS, DOUBLES, INTEGERS, ROUNDED)
NUMBERS = frozenset({DOUBLES, INTEGERS, ROUNDED})
LONGEST_TERM = 32_766
"""Longest indexed value in UTF-8 bytes (IndexWriter.MAX_TERM_LENGTH)."""
LARGEST_NUMBER = sys.float_info.max
MOST_DIGITS = 4_300
"""Of an integer, as Python reads them from text."""
TOO_LARGE = 10**MOST_DIGITS


class IndexedValue(NamedTuple):
    """A value in a Lucene field: a term, a double, or seconds and nanoseconds."""

    field: str
    value: str | float | tuple[int, int]


def indexed_metadata(metadata: Mapping[str, MetadataValue]) -> Iterator[IndexedValue]:
    """Yield what filters may ask for; None, nested mappings and unindexable values stay in the stored document."""
    for name, values in metadata.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, bool):
                yield IndexedValue(f"{BOOLEANS}.{name}", str(value).lower())
            elif isinstance(value, str):
                yield from _texts(name, value)
            elif isinstance(value, int | float):
                yield from _numbers(name, value)


def _texts(name: str, value: str) -> Iterator[IndexedValue]:
    if len(value.encode()) <= LONGEST_TERM:
        yield IndexedValue(f"{TEXT}.{name}", value)
        if moment := parse_moment(value):
            yield IndexedValue(f"{MOMENTS}.{name}", (moment.seconds, moment.nanoseconds))


def _numbers(name: str, value: float) -> Iterator[IndexedValue]:
    if abs(value) <= LARGEST_NUMBER and float(value) == value:
        yield IndexedValue(f"{DOUBLES}.{name}", float(value))
    elif isinstance(value, int) and abs(value) < TOO_LARGE:
        yield IndexedValue(f"{INTEGERS}.{name}", integer_term(value))


def integer_term(value: int) -> str:
    """Return a text for an integer of up to 4300 digits; texts are in the order of their integers.

    >>> integer_term(-23) < integer_term(-4) < integer_term(0) < integer_term(4) < integer_term(23)
    True
    """
    digits = str(abs(value))
    term = f"{len(digits):04d}{digits}"
    if value >= 0:
        return f"1{term}"
    return "0" + "".join(str(9 - int(digit)) for digit in term)


def integer_of_term(term: str) -> int:
    """Return the integer that a text stands for.

    >>> [integer_of_term(integer_term(value)) for value in (-23, 0, 4)]
    [-23, 0, 4]
    """
    digits = term[5:]
    if term[0] == "1":
        return int(digits)
    return -int("".join(str(9 - int(digit)) for digit in digits))
