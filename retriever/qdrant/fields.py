"""The metadata fields of a collection, and the values of one, counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from retriever.index.lucene.metadata import BOOLEANS, DOUBLES, INTEGERS, MOMENTS, NUMBERS, TEXT
from retriever.index.lucene.values import FieldValue, field_value, most_frequent
from retriever.qdrant.engine import ALL, AllOf, Between
from retriever.qdrant.filters import Selection
from retriever.qdrant.points import field_name, payload_name
from retriever.qdrant.scan import scan
from retriever.types import IndexField

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.qdrant.engine import Engine
    from retriever.types import FacetCount

__all__ = ["facet_counts", "index_fields"]

FIRSTS = Between("chunk", 0, 0)
"""The first chunks: one for each document."""


def index_fields(counts: Mapping[str, Mapping[str, int]]) -> list[IndexField]:
    """Return the fields that documents have, sorted by name; counts: as `State.fields`."""
    found = [IndexField(field_name(name), _kinds(held), held[""]) for name, held in counts.items()]
    return sorted(found)


def _kinds(held: Mapping[str, int]) -> tuple[str, ...]:
    """Return what the values are called; all texts of a field that are dates are no texts besides."""
    texts, dates = held.get(TEXT, 0), held.get(MOMENTS, 0)
    named = {
        "text": texts > dates,
        "date": dates > 0,
        "number": not NUMBERS.isdisjoint(held),
        "boolean": BOOLEANS in held,
    }
    return tuple(name for name, has in named.items() if has)


def facet_counts(engine: Engine, field: str, top_k: int, selection: Selection | None) -> list[FacetCount]:
    """Return the values of a field that most documents of a selection have; the payloads of all of them are read."""
    name = payload_name(field)
    within, check = selection or Selection(ALL, None)
    keys = [f"{kind}.{name}" for kind in (TEXT, DOUBLES, BOOLEANS, INTEGERS)] if check is None else []
    counts: Counter[FieldValue] = Counter()
    for record in scan(engine, Selection(AllOf((FIRSTS, within)), check), keys or ["id"]):
        counts.update(
            {
                field_value(kind, value)
                for kind in (TEXT, DOUBLES, BOOLEANS, INTEGERS)
                for value in record.payload.get(kind, {}).get(name, [])
            }
        )
    return most_frequent(counts, top_k)
