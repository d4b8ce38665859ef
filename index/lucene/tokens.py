"""Where the terms of a text stand in it, as one of Lucene's analysers says."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, NamedTuple

from retriever.index.lucene.jvm import as_type, lucene_object, well_formed

__all__ = ["Token", "overlaps", "tokens"]

LAST_OF_ONE_UNIT = "\uffff"


class Token(NamedTuple):
    """A term, and the characters of the text from `start` up to `end` that it was made of."""

    term: str
    start: int
    end: int


def tokens(analyzer: Any, text: str) -> list[Token]:
    """Return what analysis makes of a text, in order.

    Java counts UTF-16 units, Python characters. Every call is one of Java's: make them one at a time.
    """
    stream = analyzer.tokenStream("contents", well_formed(text))
    names = (f"analysis.tokenattributes.{name}Attribute" for name in ("CharTerm", "Offset"))
    term, offsets = (as_type(name, stream.addAttribute(lucene_object(name))) for name in names)
    found = []
    stream.reset()
    while stream.incrementToken():
        found.append(Token(str(term.toString()), offsets.startOffset(), offsets.endOffset()))
    stream.end()
    stream.close()  # or the analyser refuses the next text
    return _in_characters(found, text)


def overlaps(analyzer: Any, text: str) -> int:
    """Return how many terms of a text stand at the place of the one before. Make calls one at a time."""
    stream = analyzer.tokenStream("contents", text)
    name = "analysis.tokenattributes.PositionIncrementAttribute"
    increment = as_type(name, stream.addAttribute(lucene_object(name)))
    found = 0
    stream.reset()
    while stream.incrementToken():
        found += increment.getPositionIncrement() == 0
    stream.end()
    stream.close()
    return found


def _in_characters(found: list[Token], text: str) -> list[Token]:
    if not found or max(text) <= LAST_OF_ONE_UNIT:
        return found
    ends = list(accumulate((1 + (character > LAST_OF_ONE_UNIT) for character in text), initial=0))
    place = {units: characters for characters, units in enumerate(ends)}
    return [Token(term, place[start], place[end]) for term, start, end in found]
