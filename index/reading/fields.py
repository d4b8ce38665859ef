"""The metadata fields of an index, as its users see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.lucene.metadata import BOOLEANS, MOMENTS, NUMBERS, TEXT
from retriever.types import IndexField

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from retriever.index.lucene.facets import FieldCounts

__all__ = ["list_fields"]


def list_fields(counts: FieldCounts, kinds: Mapping[str, Collection[str]]) -> list[IndexField]:
    """Return the fields that documents have, sorted by name. kinds: of each, how its values stand in Lucene."""
    found = []
    for field, held in sorted(kinds.items()):
        documents = counts.documents(f"{kind}.{field}" for kind in held)
        if documents:
            found.append(IndexField(field, _kinds(field, held, counts), documents))
    return found


def _kinds(field: str, held: Collection[str], counts: FieldCounts) -> tuple[str, ...]:
    """Return what the values are called; all texts of a field that are dates are no texts besides."""
    texts, dates = TEXT in held, MOMENTS in held
    if texts and dates:
        texts = counts.documents([f"{TEXT}.{field}"]) > counts.documents([f"{MOMENTS}.{field}"])
    named = {"text": texts, "date": dates, "number": not NUMBERS.isdisjoint(held), "boolean": BOOLEANS in held}
    return tuple(name for name, has in named.items() if has)
