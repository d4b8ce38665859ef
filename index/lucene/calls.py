"""What each query asks of Lucene, in one call of Java each, from any number of threads at a time.

A call from Python takes as long as some searches do, and calls of an object's methods wait for one another. The methods
of `java/Calls.java` are static, do all that one question needs, and answer with bytes. `make java` compiles that file;
what becomes of it comes with the package.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.jvm import as_type, define_class, lucene, one_at_a_time, side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from retriever.types import BoolArray

__all__ = [
    "Found",
    "by_score_then_id",
    "documents",
    "first_rows",
    "frequencies",
    "in_two_steps",
    "load_calls",
    "matching",
    "no_hits",
    "search",
    "search_words",
    "stored",
    "words",
]

COMPILED = Path(__file__).parent / "java" / "Calls.class"
NAME = "org.retriever.Calls"
FIELD = "contents"
"""What BM25 searches."""
SPARE = 32
"""Extra hits retrieved beyond `top_k`: they usually show whether others tie with the last one."""


MOST = 2**31 - 1
"""Java's largest whole number."""


class Found(NamedTuple):
    """Hits in any order: their rows, int64 (n,), and their scores, float64 (n,), which are float32 values."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


def no_hits() -> Found:
    """Return what is found where nothing is."""
    return Found(np.empty(0, np.int64), np.empty(0, np.float64))


@functools.cache
def load_calls() -> Any:
    """Return the class; Java must be running, and no other thread may call it before this is done."""
    with one_at_a_time():
        return define_class(NAME, COMPILED)


@functools.cache
@one_at_a_time()
def by_score_then_id() -> Any:
    """Return the order (score descending, id ascending), which keeps Lucene's dynamic pruning."""
    key, kinds = lucene("search.SortField"), lucene("search.SortField$Type")
    return lucene("search.Sort")(key.FIELD_SCORE, key("id", kinds.STRING_VAL))


def search(searcher: Any, query: Any, top_k: int) -> Found:
    """Return the best hits of a query, the first `top_k` by (score, id) among them.

    A chunk has the row of the first chunk of its document, whose id is the same.
    """
    with side_by_side():
        return _found(load_calls().search(searcher, query, by_score_then_id(), min(top_k, MOST), SPARE), "<i8")


def search_words(searcher: Any, analyzer: Any, text: str, top_k: int) -> Found:
    """Return what `search` finds by the terms that an analyser makes of a text."""
    with side_by_side():
        found = load_calls().searchWords(searcher, analyzer, FIELD, text, by_score_then_id(), min(top_k, MOST), SPARE)
        return _found(found, "<i8")


def words(analyzer: Any, text: str) -> Any:
    """Return the query of the terms that an analyser makes of a text."""
    with side_by_side():
        return as_type("search.Query", load_calls().words(analyzer, FIELD, text))


def documents(searcher: Any, query: Any, count: int) -> Found:
    """Return the best `count` hits, with Lucene's document numbers in place of the rows; ties end anywhere."""
    with side_by_side():
        return _found(load_calls().documents(searcher, query, min(count, MOST)), "<i4")


def in_two_steps(searcher: Any, query: Any, rest: Any, count: int) -> Found:
    """Return the best `count` hits as `documents` does, each with its score for a second query added."""
    with side_by_side():
        return _found(load_calls().inTwoSteps(searcher, query, rest, min(count, MOST)), "<i4")


def _found(answer: Any, kind: str) -> Found:
    data = answer.tostring()
    count = int(np.frombuffer(data, "<i4", 1)[0])
    numbers = np.frombuffer(data, kind, count, 4)
    scores = np.frombuffer(data, "<f4", count, 4 + numbers.nbytes)
    return Found(numbers.astype(np.int64), scores.astype(np.float64))


def frequencies(searcher: Any, field: str, terms: Sequence[str]) -> list[int]:
    """Return in how many live documents each term of a field stands."""
    if not terms:
        return []
    with side_by_side():
        data = load_calls().frequencies(searcher, field, terms).tostring()
    found: list[int] = np.frombuffer(data, "<i4").tolist()
    return found


def stored(index: Any, ids: Sequence[str]) -> list[str | None]:
    """Return the stored JSON of documents, None for an unknown id."""
    if not ids:
        return []
    with side_by_side():
        data = load_calls().stored(index, ids).tostring()
    found: list[str | None] = []
    place = 0
    for _ in ids:
        size = int.from_bytes(data[place : place + 4], "little", signed=True)
        place += 4
        found.append(data[place : place + size].decode() if size >= 0 else None)
        place += max(size, 0)
    return found


def matching(searcher: Any, query: Any) -> BoolArray:
    """Return which of Lucene's document numbers a query finds, bool (max_doc,), deleted documents included."""
    with side_by_side():
        data = load_calls().matching(searcher, query).tostring()
    count = int(np.frombuffer(data, "<i4", 1)[0])
    return np.unpackbits(np.frombuffer(data, np.uint8, offset=4), count=count, bitorder="little").view(bool)


def first_rows(index: Any) -> NDArray[np.int64]:
    """Return the row of each of Lucene's document numbers, (max_doc,): of a chunk that of the first one."""
    with side_by_side():
        return np.frombuffer(load_calls().firstRows(index).tostring(), "<i8")
