"""Reading Lucene's hits in bulk, as one JSON text: a Java call for each hit costs more than the search."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.jvm import as_type, java, lucene, lucene_object, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Found", "by_score", "no_hits", "read_documents", "read_hits"]


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
    text = _mapper().writeValueAsString(as_type("java.lang.Object", top))
    keys = [hit[3] for hit in json.loads(text)["scoreDocs"]]
    rows = np.array([key[-1] for key in keys], np.int64)
    return Found(rows, _floats(key[0] for key in keys))


@one_at_a_time()
def read_documents(top: Any) -> Found:
    """Return the hits of a search without an order of its own, with Lucene's document numbers in place of the rows."""
    hits = json.loads(_mapper().writeValueAsString(as_type("java.lang.Object", top)))["scoreDocs"]
    return Found(np.array([hit[1] for hit in hits], np.int64), _floats(hit[0] for hit in hits))


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
