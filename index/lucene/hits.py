"""Reading Lucene's hits in bulk, as one JSON text: a Java call for each hit costs more than the search.

The first hits of a process are read in the words of Java's own `toString`: Jackson takes longer to start than they do.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.jvm import as_type, java, lucene, lucene_object, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Found", "by_score", "no_hits", "read_documents", "read_hits"]


_read: list[bool] = []
"""Holds something once hits were read in this process."""
_SORTED = re.compile(r"doc=\d+ score=\S+ shardIndex=-?\d+ fields=\[([^,]+),.*?(\d+)\]")
"""A hit with its keys: the score, maybe the id, and the row."""


class Found(NamedTuple):
    """Hits as Lucene ordered them: their rows, int64 (n,), and their scores, float64 (n,)."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]


def no_hits() -> Found:
    """Return what is found where nothing is."""
    return Found(np.empty(0, np.int64), np.empty(0, np.float64))


def by_score(*, then_id: bool) -> Any:
    """Return the order (score descending, row ascending), or (score, id, row); both keep Lucene's dynamic pruning.

    The row is a key because the keys' values come back with a hit.
    """
    key, kinds = lucene("search.SortField"), lucene("search.SortField$Type")
    ids = [key("id", kinds.STRING_VAL)] if then_id else []
    return lucene("search.Sort")(key.FIELD_SCORE, *ids, key("row", kinds.LONG))


@one_at_a_time()
def read_hits(top: Any) -> Found:
    """Return the hits of a search that was sorted by `by_score`."""
    if _is_first():
        sorted_hits = [_SORTED.fullmatch(hit) for hit in _described(top)]
        pairs = [(float(hit[1]), int(hit[2])) for hit in sorted_hits if hit]
        assert len(pairs) == len(sorted_hits)
        return Found(np.array([row for _, row in pairs], np.int64), _floats(score for score, _ in pairs))
    text = _mapper().writeValueAsString(as_type("java.lang.Object", top))
    keys = [hit[3] for hit in json.loads(text)["scoreDocs"]]
    rows = np.array([key[-1] for key in keys], np.int64)
    return Found(rows, _floats(key[0] for key in keys))


@one_at_a_time()
def read_documents(top: Any) -> Found:
    """Return the hits of a search without an order of its own, with Lucene's document numbers in place of the rows."""
    hits = json.loads(_mapper().writeValueAsString(as_type("java.lang.Object", top)))["scoreDocs"]
    return Found(np.array([hit[1] for hit in hits], np.int64), _floats(hit[0] for hit in hits))


def _is_first() -> bool:
    """Say whether no hits were read before, in this process."""
    if _read:
        return False
    _read.append(True)
    return True


def _described(top: Any) -> list[str]:
    """Return each hit as Java describes it."""
    text = str(java("java.util.Arrays").toString(top.scoreDocs))
    return [f"doc={hit}" for hit in text[1:-1].removeprefix("doc=").split(", doc=")] if len(text) > 2 else []


def _floats(numbers: Iterable[float]) -> NDArray[np.float64]:
    """Return the float32 values that Java wrote in as few digits as tell them apart."""
    return np.array([*numbers], np.float32).astype(np.float64)


@functools.cache
def _mapper() -> Any:
    """Return what writes a hit as [score, number, shard, [sort keys]], an id among these as null."""
    mapper = java("com.fasterxml.jackson.databind.ObjectMapper")()
    shapes, styles = (java(f"com.fasterxml.jackson.annotation.JsonFormat${name}") for name in ("Shape", "Value"))
    for name in ("ScoreDoc", "FieldDoc"):
        mapper.configOverride(lucene_object(f"search.{name}")).setFormat(styles.forShape(shapes.ARRAY))
    module = java("com.fasterxml.jackson.databind.module.SimpleModule")()
    nothing = java("com.fasterxml.jackson.databind.ser.std.NullSerializer").instance
    module.addSerializer(lucene_object("util.BytesRef"), nothing)
    mapper.registerModule(module)
    return mapper
