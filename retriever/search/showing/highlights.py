"""Which words of a text the query found, and the part of a text that is worth showing."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from retriever.corpus.sentences import sentences
from retriever.types import Snippet, Span, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retriever.types import Hit

__all__ = ["joined", "snippet"]

JOINERS = "\u200c\u200d"
"""Characters that stand between two of one word, or of one sign such as a family of emoji."""


def joined(spans: Iterable[Span], text: str) -> tuple[Span, ...]:
    """Return spans of a text in order, those that meet or overlap as one, each with the marks on its last character.

    >>> joined([Span(4, 5), Span(0, 1), Span(1, 2)], "e\u0301a b")
    (Span(start=0, end=2), Span(start=4, end=5))
    """
    found: list[Span] = []
    for start, end in sorted(spans):
        while end < len(text) and _continues(text[end]):
            end += 1
        if found and start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(end, found[-1].end))
        elif start < end:
            found.append(Span(start, end))
    return tuple(found)


def _continues(character: str) -> bool:
    """Say whether a character belongs to the one before: an accent, a vowel sign, a joiner."""
    return character in JOINERS or unicodedata.category(character).startswith("M")


def snippet(hit: Hit, *, length: int = 240) -> Snippet:
    """Return the part of a hit's text with the most of its highlighted words, at most `length` characters of it.

    It starts with a sentence where that is short enough, else at a space; without highlights it is the start of the
    text. Where documents are split, it is a part of the best chunk.

    Raises:
        UserError: a length below 1.

    >>> from retriever.types import Hit
    >>> hit = Hit(1, "d1", 1.0, "", "Bread is old. Yeast makes it rise.", {}, {}, highlights=(Span(14, 19),))
    >>> snippet(hit, length=25)
    Snippet(start=14, end=34, text='Yeast makes it rise.', highlights=(Span(start=0, end=5),))
    """
    if length < 1:
        raise UserError(f"a snippet of {length} characters is out of range; need 1 or more")
    whole = Span(hit.chunks[0].start, hit.chunks[0].end) if hit.chunks else Span(0, len(hit.text))
    marks = [mark for mark in hit.highlights if whole.start <= mark.start and mark.end <= whole.end]
    if not marks:
        whole = Span(whole.start, min(whole.end, whole.start + 4 * length))  # more would be split in vain
    pieces = _pieces(hit.text, whole, length, marks)
    start, end = _best_window(hit.text, pieces, length, marks)
    text = hit.text[start:end]
    start, end = start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())
    end = max(start, end)
    inside = [mark for mark in marks if start <= mark.start and mark.end <= end]
    moved = tuple(Span(mark.start - start, mark.end - start) for mark in inside)
    return Snippet(start, end, hit.text[start:end], moved)


def _pieces(text: str, whole: Span, length: int, marks: Sequence[Span]) -> list[Span]:
    """Return what a snippet is put together from: the sentences, those that are too long in shorter parts."""
    pieces = []
    for start, end in sentences(text[whole.start : whole.end]):
        start, end = start + whole.start, end + whole.start
        while len(text[start:end].rstrip()) > length:
            cut = _cut(text, start, max(1, length // 2), marks)
            pieces.append(Span(start, cut))
            start = cut
        pieces.append(Span(start, end))
    return pieces


def _cut(text: str, start: int, most: int, marks: Sequence[Span]) -> int:
    """Return where a part ends that begins at `start`: behind a space, or else between two characters."""
    for place in range(start + most, start + most // 2, -1):
        if text[place - 1].isspace():
            return place
    cut = start + most
    mark = marks[at] if (at := bisect_left(marks, Span(cut, 0)) - 1) >= 0 else Span(0, 0)
    if start < mark.start < cut < mark.end:
        return mark.start
    back = cut
    while back > start + 1 and _continues(text[back]):
        back -= 1
    return back if back > start + 1 else cut


def _best_window(text: str, pieces: Sequence[Span], length: int, marks: Sequence[Span]) -> Span:
    """Return the neighbouring pieces with the most different marked words, then the most marks, then the first ones."""
    if not pieces:
        return Span(0, 0)
    words = [text[start:end].casefold() for start, end in marks]
    starts, ends = [mark.start for mark in marks], [mark.end for mark in marks]
    best, most = _window(text, pieces, 0, length), (-1, -1)
    for number, (start, end) in enumerate(pieces):
        if bisect_left(starts, end) == bisect_left(starts, start):
            continue  # nothing to begin with
        window = _window(text, pieces, number, length)
        inside = words[bisect_left(starts, window.start) : bisect_right(ends, window.end)]
        if (worth := (len(set(inside)), len(inside))) > most:
            best, most = window, worth
    return best


def _window(text: str, pieces: Sequence[Span], first: int, length: int) -> Span:
    """Return the pieces from the first on that fit together into a length, spaces at the end not counted."""
    start, last = pieces[first].start, pieces[first].end
    for _, end in pieces[first + 1 : first + 1 + length]:
        if len(text[start:end].rstrip()) > length:
            break
        last = end
    return Span(start, last)
