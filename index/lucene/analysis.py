"""How a text becomes the terms that BM25 reads: Lucene's analysers by language, and ours where it has none."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from retriever.index.lucene.jvm import as_type, java, lucene, well_formed
from retriever.index.lucene.tokens import Token, as_typed, overlaps, tokens
from retriever.languages import AUTO, ENGLISH, OTHER, detect, detect_query, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Analysis", "analysis_of"]

CLASSES = {
    "ar": "ar.Arabic",
    "bg": "bg.Bulgarian",
    "bn": "bn.Bengali",
    "ca": "ca.Catalan",
    "ckb": "ckb.Sorani",
    "cs": "cz.Czech",
    "da": "da.Danish",
    "de": "de.German",
    "el": "el.Greek",
    "es": "es.Spanish",
    "et": "et.Estonian",
    "eu": "eu.Basque",
    "fa": "fa.Persian",
    "fi": "fi.Finnish",
    "fr": "fr.French",
    "ga": "ga.Irish",
    "gl": "gl.Galician",
    "hi": "hi.Hindi",
    "hu": "hu.Hungarian",
    "hy": "hy.Armenian",
    "id": "id.Indonesian",
    "it": "it.Italian",
    "ja": "ja.Japanese",
    "ko": "cjk.CJK",
    "lt": "lt.Lithuanian",
    "lv": "lv.Latvian",
    "ne": "ne.Nepali",
    "nl": "nl.Dutch",
    "no": "no.Norwegian",
    "pl": "morfologik.Morfologik",
    "pt": "pt.Portuguese",
    "ro": "ro.Romanian",
    "ru": "ru.Russian",
    "sr": "sr.Serbian",
    "sv": "sv.Swedish",
    "ta": "ta.Tamil",
    "te": "te.Telugu",
    "tr": "tr.Turkish",
    "uk": "uk.UkrainianMorfologik",
    "zh": "cjk.CJK",
}
"""Lucene's analyser of each language, in the package org.apache.lucene.analysis."""

OVERLAPPING = ("pl", "uk")
"""Languages whose analysers give a word of several readings all their stems, at one place."""

UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\ua9e0-\ua9ff]+)")
"""Thai, Lao, Burmese and Khmer, which put no spaces between words."""
CLUSTER = re.compile(
    r"[^\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]?"
    r"[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]*"
)
"""A letter with the signs that stand on it."""
CLUSTERS = 3
"""In a term of such a script. On XQuAD's Thai half BM25 has nDCG@10 .968 with three, as with a dictionary of words
(pythainlp, newmm: .968), .961 with two, .960 with four, and .918 with pairs of code points."""


class Analysis(ABC):
    """Makes terms of texts. Every call is one of Java's: make them one at a time.

    java: the analyser to give Lucene for what `indexed` returns. by_language: whether a document's language matters.
    """

    java: Any
    by_language = False

    @abstractmethod
    def terms(self, text: str, language: str = "") -> list[str]:
        """Return the terms of a document's text, in order, repeated ones too; language: that of the document."""

    @abstractmethod
    def tokens(self, text: str) -> list[Token]:
        """Return the terms of a document's text with their characters."""

    def overlaps(self, text: str) -> int:
        """Return how many terms of a text stand at the place of another one: Lucene's lengths leave these out."""
        return 0

    def query_terms(self, text: str, languages: Sequence[str]) -> list[str]:
        """Return the terms of a query; languages: of the documents, the most frequent ones first."""
        return self.terms(text)

    @abstractmethod
    def indexed(self, text: str, language: str = "") -> str:
        """Return the text of which `java` makes the terms of a document's text."""

    def indexed_query(self, text: str, languages: Sequence[str]) -> str:
        """Return the text of which `java` makes the terms of a query."""
        return self.indexed(text)


class _LuceneAnalysis(Analysis):
    """Lucene analyses the text as it stands."""

    def __init__(self, analyzer: Any, name: str) -> None:
        self.java, self._name = as_type("analysis.Analyzer", analyzer), name
        self._analyze = java("io.anserini.analysis.AnalyzerUtils").analyze

    def terms(self, text: str, language: str = "") -> list[str]:
        return [str(term) for term in self._analyze(self.java, self.indexed(text))]

    def tokens(self, text: str) -> list[Token]:
        return as_typed(text, lambda typed: normalised(typed, self._name), lambda read: tokens(self.java, read))

    def overlaps(self, text: str) -> int:
        # Others never put two terms at a place, and looking takes as long as analysis.
        return overlaps(self.java, self.indexed(text)) if self._name in OVERLAPPING else 0

    def indexed(self, text: str, language: str = "") -> str:
        return well_formed(normalised(text, self._name))


class _WordsAnalysis(Analysis):
    """We make the terms, and Lucene splits them at the spaces that we put between them."""

    def __init__(self) -> None:
        self.java = as_type("analysis.Analyzer", lucene("analysis.core.WhitespaceAnalyzer")())

    def indexed(self, text: str, language: str = "") -> str:
        return " ".join("".join(term.split()) for term in self.terms(text, language))


class _OtherAnalysis(_WordsAnalysis):
    """Lower-case words (UAX 29), and where a script has no spaces overlapping groups of letters."""

    def __init__(self) -> None:
        super().__init__()
        self._words = _LuceneAnalysis(lucene("analysis.standard.StandardAnalyzer")(), OTHER)

    def terms(self, text: str, language: str = "") -> list[str]:
        return [group.term for word in self._words.terms(text) for group in _groups(Token(word, 0, len(word)))]

    def tokens(self, text: str) -> list[Token]:
        def analyse(read: str) -> list[Token]:
            return [group for word in tokens(self._words.java, read) for group in _groups(word)]

        return as_typed(text, lambda typed: normalised(typed, OTHER), analyse)


class _OwnLanguageAnalysis(_WordsAnalysis):
    """Each document is read by the analyser of its own language."""

    by_language = True

    def terms(self, text: str, language: str = "") -> list[str]:
        return _of_language(language or detect(text)).terms(text)

    def tokens(self, text: str) -> list[Token]:
        return _of_language(detect(text)).tokens(text)

    def indexed_query(self, text: str, languages: Sequence[str]) -> str:
        return " ".join(self.query_terms(text, languages))

    def query_terms(self, text: str, languages: Sequence[str]) -> list[str]:
        readings = [_of_language(language).terms(text) for language in detect_query(text, languages)]
        if len(readings) == 1:
            return readings[0]
        return list(dict.fromkeys(term for terms in readings for term in terms))


def _groups(word: Token) -> list[Token]:
    """Return a word as it stands, or where its script has no spaces the overlapping groups of its letters."""
    found: list[Token] = []
    place = word.start
    for part in filter(None, UNSPACED.split(word.term)):
        letters = CLUSTER.findall(part)[:-1] if UNSPACED.match(part) else [part]
        for i in range(max(1, len(letters) - CLUSTERS + 1)):
            start, group = place + sum(map(len, letters[:i])), "".join(letters[i : i + CLUSTERS])
            found.append(Token(group, start, start + len(group)))
        place += len(part)
    return found


@lru_cache
def analysis_of(name: str) -> Analysis:
    """Return how an analyser reads, by its name in index.json; Java must be running."""
    makers: dict[str, Callable[[], Analysis]] = {AUTO: _OwnLanguageAnalysis, ENGLISH: _english}
    if name in CLASSES:
        return _LuceneAnalysis(lucene(f"analysis.{CLASSES[name]}Analyzer")(), name)
    return makers.get(name, _OtherAnalysis)()


def _english() -> Analysis:
    """Return Anserini's English analyser."""
    return _LuceneAnalysis(java("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance(), ENGLISH)


def _of_language(code: str) -> Analysis:
    return analysis_of(ENGLISH if code == "en" else code)
