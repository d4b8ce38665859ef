"""The values of a metadata field, counted: from Lucene's terms and points, without reading a document.

A value's documents are found by a query of their own, so a field of few values is cheap however many documents have
it, and one of many different texts costs only as much as its frequent ones: the number of Lucene documents that have a
text is never below that of the documents counted, so the rarer ones need not be looked at.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.index.lucene.calls import matching
from retriever.index.lucene.filters import doubles_between, every_value, one_term
from retriever.index.lucene.jvm import lucene, one_at_a_time
from retriever.index.lucene.metadata import DOUBLES, MOMENTS, ROUNDED, TEXT
from retriever.index.lucene.values import FieldValue, field_value, most_frequent
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retriever.types import BoolArray, FacetCount

__all__ = ["FieldCounts"]

MOST_TEXTS = 100_000
"""Different texts of a field: reading them takes a second."""
MOST_NUMBERS = 200
"""Different numbers of a field: they are found by halving ranges until one number is left."""


class FieldCounts:
    """Counts documents by their values. counted: which of Lucene's document numbers stand for one, bool (max_doc,)."""

    def __init__(self, index: Any, searcher: Any, counted: BoolArray) -> None:
        self._index, self._searcher, self._counted = index, searcher, counted
        self._all = bool(counted.all())

    def documents(self, names: Iterable[str]) -> int:
        """Return how many documents have a value in one of these fields of Lucene's."""
        found = np.zeros_like(self._counted)
        for name in names:
            found |= matching(self._searcher, every_value(name))
        return int(np.count_nonzero(found & self._counted))

    def best(self, field: str, kinds: Iterable[str], top_k: int) -> list[FacetCount]:
        """Return the values that most documents have, in the order of `most_frequent`.

        Raises:
            UserError: the field has more different values than can be counted.
        """
        return most_frequent(self._counts(field, kinds, top_k), top_k)

    def all(self, field: str, kinds: Iterable[str]) -> Counter[FieldValue]:
        """Return all values with their counts; raise UserError as `best` does."""
        return self._counts(field, kinds, MOST_TEXTS + 1)

    def _counts(self, field: str, kinds: Iterable[str], top_k: int) -> Counter[FieldValue]:
        found: Counter[FieldValue] = Counter()
        for kind in {TEXT if kind == MOMENTS else kind for kind in kinds}:  # moments are stored as texts, too
            found.update(self._of_kind(field, kind, top_k))
        return found

    def _of_kind(self, field: str, kind: str, top_k: int) -> dict[FieldValue, int]:
        name = f"{kind}.{field}"
        counts: Mapping[str, int] | Mapping[float, int]
        counts = self._numbers(name, field) if kind in (DOUBLES, ROUNDED) else self._terms(name, field, top_k)
        return {field_value(kind, value): count for value, count in counts.items()}

    def _terms(self, name: str, field: str, top_k: int) -> dict[str, int]:
        """Return the terms that most documents have, the best `top_k` among them."""
        found: dict[str, int] = {}
        best: list[int] = []
        for term, most in sorted(self._frequencies(name, field), key=lambda pair: -pair[1]):
            if len(best) == top_k and most < best[0]:
                break
            count = most if self._all else self._count(one_term(name, term))
            if count:
                found[term] = count
                (heapq.heappush if len(best) < top_k else heapq.heappushpop)(best, count)
        return found

    @one_at_a_time()
    def _frequencies(self, name: str, field: str) -> list[tuple[str, int]]:
        terms = lucene("index.MultiTerms").getTerms(self._index, name)
        walk = None if terms is None else terms.iterator()
        found: list[tuple[str, int]] = []
        while walk is not None and (term := walk.next()) is not None:
            found.append((str(term.utf8ToString()), int(walk.docFreq())))
            if len(found) > MOST_TEXTS:
                raise UserError(
                    f"facets: {field!r} has more than {MOST_TEXTS} different values; count a field of fewer, or "
                    "documents with one of them by a filter"
                )
        return found

    def _numbers(self, name: str, field: str) -> dict[float, int]:
        """Return all numbers of a field of doubles, found by halving ranges that hold a document."""
        found: dict[float, int] = {}
        ranges = self._range(name)
        while ranges:
            low, high = ranges.pop()
            count = self._count(doubles_between(name, low, high))
            if count and low == high:
                found[low] = count
            elif count:
                ranges += _halves(low, high)
            if len(found) > MOST_NUMBERS:
                raise UserError(
                    f"facets: {field!r} has more than {MOST_NUMBERS} different numbers; count ranges of them by "
                    f"filters, such as {field} >= {low:g}"
                )
        return found

    @one_at_a_time()
    def _range(self, name: str) -> list[tuple[float, float]]:
        """Return the least and the greatest number of a field, of deleted documents, too."""
        points, decode = lucene("index.PointValues"), lucene("document.DoublePoint").decodeDimension
        bounds = points.getMinPackedValue(self._index, name), points.getMaxPackedValue(self._index, name)
        if None in bounds:
            return []
        low, high = (float(decode(bound, 0)) for bound in bounds)
        return [(low, high)]

    def _count(self, query: Any) -> int:
        return int(np.count_nonzero(matching(self._searcher, query) & self._counted))


def _halves(low: float, high: float) -> list[tuple[float, float]]:
    """Return two ranges of doubles that make up one, cut between integers while there are any: most numbers are some.

    >>> _halves(2019.0, 2022.0), _halves(2019.5, 2020.5)
    ([(2019.0, 2020.0), (2020.0000000000002, 2022.0)], [(2019.5, 2020.0), (2020.0000000000002, 2020.5)])
    """
    first, last = math.ceil(low), math.floor(high)
    cut = _middle(low, high) if first > last else float((first + last) // 2)
    cut = min(cut, math.nextafter(high, -math.inf))  # of one integer, at the end; or the cut was rounded
    return [(low, cut), (math.nextafter(cut, math.inf), high)]


def _middle(low: float, high: float) -> float:
    """Return the double that has as many doubles before it in a range as behind it."""
    first, last = (_ordinal(bound) for bound in (low, high))
    return _double((first + last) // 2)


def _ordinal(number: float) -> int:
    bits = int(np.float64(number).view(np.int64))
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _double(ordinal: int) -> float:
    return float(np.int64(abs(ordinal)).view(np.float64)) * (1 if ordinal >= 0 else -1)
