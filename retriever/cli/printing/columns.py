"""Text in the columns of a terminal: wide characters take two, marks none; text from right to left keeps its place."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["columns", "isolated", "wrapped"]

PIECE = re.compile(r"\s+|\S+")
WIDE = ("W", "F")
NOT_FIRST = "、。，．！？：；）］｝」』】〉》〕ー々"  # noqa: RUF001
"""Signs that no line of Chinese or Japanese begins with."""
ISOLATE, END = "\u2068", "\u2069"
RIGHT_TO_LEFT = ("R", "AL")


def columns(text: str) -> int:
    """Return how many columns a text takes.

    >>> columns("abc"), columns("東京"), columns("e\u0301")
    (3, 4, 1)
    """
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if character < " " or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in WIDE else 1


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns: cut at spaces, beside wide characters, else anywhere."""
    lines, line, used = [], "", 0
    for piece in _pieces(text, width):
        size = columns(piece)
        if line and used + columns(piece.rstrip()) > width:
            lines.append(line.rstrip())
            line, used = "", 0
        if line or not piece.isspace():
            line, used = line + piece, used + size
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str, width: int) -> list[str]:
    """Return what no line divides, in order."""
    pieces: list[str] = []
    for word in PIECE.findall(text):
        piece = ""
        for character in word:
            apart = piece and not word.isspace() and _breaks(piece[-1], character)
            if apart or columns(piece + character) > width:
                pieces.append(piece)
                piece = ""
            piece += character
        pieces.append(piece)
    return [piece for piece in pieces if piece]


def _breaks(before: str, after: str) -> bool:
    """Say whether a line may end between two characters of a word."""
    return after not in NOT_FIRST and _columns(after) > 0 and 2 in (_columns(before), _columns(after))


def isolated(text: str) -> str:
    """Return a text that runs from right to left so that what stands beside it, such as numbers, keeps its place.

    >>> isolated("bread"), isolated("\u05dc\u05d7\u05dd") == "\u2068\u05dc\u05d7\u05dd\u2069"
    ('bread', True)
    """
    turned = any(unicodedata.bidirectional(character) in RIGHT_TO_LEFT for character in text)
    return f"{ISOLATE}{text}{END}" if turned else text
