"""Where the terms of a text stand in it, as one of Lucene's analysers says."""

from __future__ import annotations

import unicodedata
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.lucene.jvm import as_type, lucene_object, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Token", "as_typed", "overlaps", "tokens"]

LAST_OF_ONE_UNIT = "\uffff"
VOICED, JAMO = "\uff9e\uff9f", ("\u1160", "\u11ff")
"""Half-width signs of Japanese, and vowels and finals of Korean: they go into the letter before."""


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


def as_typed(text: str, normalise: Callable[[str], str], analyse: Callable[[str], list[Token]]) -> list[Token]:
    """Return the terms of a text in the form that they are indexed in, with the characters that were typed for them."""
    read = normalise(text)
    if read == text:
        return analyse(text)
    pieces: list[str] = []
    for character in text:
        if pieces and _goes_into_the_one_before(character):
            pieces[-1] += character
        else:
            pieces.append(character)
    became = [normalise(piece) for piece in pieces]
    if "".join(became) != read:  # where signs change places across pieces: the places are right, the terms almost
        return [token._replace(term=normalise(token.term)) for token in analyse(text)]
    ends = list(accumulate(map(len, pieces)))
    owner = [number for number, piece in enumerate(became) for _ in piece]
    return [
        Token(term, ends[owner[start]] - len(pieces[owner[start]]), ends[owner[end - 1]])
        for term, start, end in analyse(read)
    ]


def _goes_into_the_one_before(character: str) -> bool:
    mark = unicodedata.category(character).startswith("M") or character in VOICED
    return mark or JAMO[0] <= character <= JAMO[1]


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
