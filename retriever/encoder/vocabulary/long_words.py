"""Long words of letters and digits, as in base64, split by WordPiece without trying every length of every piece.

The tokenizers library looks up each rest of a word from its whole length down, which takes quadratic time: text without
spaces took four times as long as prose. Here no length is tried that no term with the same beginning has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

__all__ = ["LongWords"]

EDGE = r" \t\n\r!-/:-@\[-`{-~"
LONG = re.compile(rf"(?<![^{EDGE}])[A-Za-z0-9]{{20,}}(?![^{EDGE}])")
"""A word that stands between signs at which BERT's tokeniser divides any text: a token never reaches beyond it."""
BEGINNING = 3
"""Characters by which terms are told apart."""
STAND_IN = "a"


class _Terms(NamedTuple):
    """Terms, and how long the longest of those with the same first characters is."""

    all: frozenset[str]
    longest: dict[str, int]

    @classmethod
    def of(cls, terms: Iterable[str]) -> _Terms:
        every, longest = frozenset(terms), dict[str, int]()
        for term in every:
            beginning = term[:BEGINNING]
            longest[beginning] = max(len(term), longest.get(beginning, 0))
        return cls(every, longest)

    def at(self, word: str, start: int) -> int:
        """Return where the longest term ends that a word has at a place, or -1."""
        most = self.longest.get(word[start : start + BEGINNING], BEGINNING - 1)
        for end in range(min(start + most, len(word)), start, -1):
            if word[start:end] in self.all:
                return end
        return -1


class LongWords:
    """Splits long words as the WordPiece model of a tokeniser does; `None` by `of` where it has another model."""

    def __init__(self, vocabulary: Iterable[str], *, lowercase: bool, prefix: str, limit: int) -> None:
        terms = list(vocabulary)
        self._first = _Terms.of(term for term in terms if not term.startswith(prefix))
        self._others = _Terms.of(term.removeprefix(prefix) for term in terms if term.startswith(prefix))
        self._lowercase, self._limit = lowercase, limit

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocabulary: Iterable[str]) -> LongWords | None:
        """Read what a tokeniser does with a word of ASCII letters and digits."""
        model, normalizer = tokenizer.model, tokenizer.normalizer
        kinds = [type(part).__name__ for part in (model, normalizer, tokenizer.pre_tokenizer)]
        if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"] or tokenizer.token_to_id(STAND_IN) is None:
            return None
        return cls(
            vocabulary,
            lowercase=normalizer.lowercase,
            prefix=model.continuing_subword_prefix,
            limit=model.max_input_chars_per_word,
        )

    def starts(self, word: str) -> list[int]:
        """Return where each token of a word starts; a word without terms, or too long a one, is one token."""
        if len(word) > self._limit:
            return [0]
        word = word.lower() if self._lowercase else word
        found, place, terms = [0], 0, self._first
        while (place := terms.at(word, place)) >= 0:
            if place == len(word):
                return found
            found.append(place)
            terms = self._others
        return [0]

    def shortened(self, text: str) -> tuple[str, list[re.Match[str]]]:
        """Return a text with a letter of one token in place of each long word, and the words."""
        return LONG.sub(STAND_IN, text), list(LONG.finditer(text))

    def restored(self, starts: list[int], words: list[re.Match[str]]) -> list[int]:
        """Return where the tokens of a text start, from where those of the shortened one do."""
        found: list[int] = []
        done = gone = 0
        for word in words:
            while starts[done] + gone < word.start():
                found.append(starts[done] + gone)
                done += 1
            found += [word.start() + start for start in self.starts(word[0])]
            done += 1
            gone += len(word[0]) - len(STAND_IN)
        return found + [start + gone for start in starts[done:]]
