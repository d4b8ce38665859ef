"""Where the terms of a query stand in a text, as the analyser that BM25 reads by says."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from retriever.index.lucene.jvm import as_type, lucene_object, well_formed
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["term_spans"]

LAST_OF_ONE_UNIT = "\uffff"


def term_spans(analyzer: Any, text: str, wanted: Container[str]) -> list[Span]:
    """Return the characters of a text of which analysis makes one of these terms, ascending.

    Java counts UTF-16 units, Python characters. Every call is one of Java's: make them one at a time.
    """
    stream = analyzer.tokenStream("contents", well_formed(text))
    names = (f"analysis.tokenattributes.{name}Attribute" for name in ("CharTerm", "Offset"))
    term, offsets = (as_type(name, stream.addAttribute(lucene_object(name))) for name in names)
    found = []
    stream.reset()
    while stream.incrementToken():
        if str(term.toString()) in wanted:
            found.append(Span(offsets.startOffset(), offsets.endOffset()))
    stream.end()
    stream.close()  # or the analyser refuses the next text
    return _in_characters(found, text)


def _in_characters(spans: list[Span], text: str) -> list[Span]:
    if not spans or max(text) <= LAST_OF_ONE_UNIT:
        return spans
    ends = list(accumulate((1 + (character > LAST_OF_ONE_UNIT) for character in text), initial=0))
    place = {units: characters for characters, units in enumerate(ends)}
    return [Span(place[start], place[end]) for start, end in spans]
