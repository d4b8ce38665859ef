"""What Anserini's English analyser makes of plain text, without Java: most queries are such.

Lucene's StandardTokenizer, its filters of possessives, case and stop words, and Porter's stemmer, for ASCII alone.
"""

from __future__ import annotations

import re

from retriever.index.lucene.porter import stem

__all__ = ["english_terms"]

LONGEST = 255
"""Lucene cuts longer words, by rules of its own."""
_NUMBER = r"[0-9](?:(?:_*|[.,;'])[0-9])*"
_LETTERS = r"[A-Za-z](?:(?:_*|[.:'])[A-Za-z])*"
_PART = f"(?:{_NUMBER}|{_LETTERS})+"
WORD = re.compile(f"_*{_PART}(?:_+{_PART})*_*")
"""A word of ASCII by UAX 29: letters and digits, what may stand between them, and underscores anywhere."""
STOP_WORDS = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of")
    + (
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    )
)


def english_terms(text: str) -> list[str] | None:
    """Return the terms of a text, in order, repeated ones too; None where Lucene has to be asked.

    >>> english_terms("The U.S.A.'s running dogs' tails")
    ['u.s.a', 's', 'run', 'dog', 'tail']
    """
    if not text.isascii():
        return None
    words = WORD.findall(text)
    if any(len(word) > LONGEST for word in words):
        return None
    lower = (word[:-2].lower() if word[-2:] in ("'s", "'S") else word.lower() for word in words)
    return [stem(word) for word in lower if word not in STOP_WORDS]
