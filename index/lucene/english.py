"""What Anserini's English analyser makes of plain text, without Java: most queries are such.

Lucene's StandardTokenizer, its filters of possessives, case and stop words, and Porter's stemmer, for Latin letters
and the signs of typed text.
"""

from __future__ import annotations

import re

from retriever.index.lucene.porter import stem
from retriever.index.lucene.tokens import Token

__all__ = ["english_terms", "english_tokens"]

LONGEST = 255
"""Lucene cuts longer words, by rules of its own."""
_LETTER = "[A-Za-zªµºÀ-ÖØ-öø-ɏ]"
_NUMBER = "[0-9](?:(?:_*|[.,;'\u2018\u2019])[0-9])*"
_LETTERS = f"{_LETTER}(?:(?:_*|[.:'\u2018\u2019]){_LETTER})*"
_PART = f"(?:{_NUMBER}|{_LETTERS})+"
WORD = re.compile(f"_*{_PART}(?:_+{_PART})*_*")
"""A word by UAX 29: letters and digits, what may stand between them, and underscores anywhere."""
_LATIN = r"\x00-\x7f\xaa\xb5\xba\xc0-\u012f\u0131-\u024f"
_SIGNS = r"\xa0-\xa8\xab\xac\xaf-\xb1\xb4\xb6\xb8\xbb\xbf"
_PUNCTUATION = r"\u2010-\u2015\u2018-\u201e\u2020-\u2022\u2026\u2032\u2033\u2039\u203a\u20ac"
READ = re.compile(f"[{_LATIN}{_SIGNS}{_PUNCTUATION}]*")
"""Texts that are read here. Of other signs some join to letters, and some are words of their own."""
POSSESSIVES = ("'s", "'S", "\u2019s", "\u2019S")
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


def english_tokens(text: str) -> list[Token] | None:
    """Return the terms of a text in order, each with its characters; None where Lucene has to be asked."""
    if not text.isascii() and READ.fullmatch(text) is None:
        return None
    found = []
    for match in WORD.finditer(text):
        word = match.group()
        if len(word) > LONGEST:
            return None
        lower = (word[:-2] if word.endswith(POSSESSIVES) else word).lower()
        if lower not in STOP_WORDS:
            found.append(Token(stem(lower), *match.span()))
    return found


def english_terms(text: str) -> list[str] | None:
    """Return the terms of a text, in order, repeated ones too; None where Lucene has to be asked.

    >>> english_terms("The U.S.A.'s running dogs' tails — “Zürich”"), english_terms("東京")
    (['u.s.a', 's', 'run', 'dog', 'tail', 'zürich'], None)
    """
    found = english_tokens(text)
    return None if found is None else [token.term for token in found]
