"""Analysis on our side: the terms of a collection are those that the same texts have in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.lucene.analysis import analysis_of
from retriever.index.lucene.jvm import one_at_a_time, start_jvm
from retriever.lazy import lazy
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.index.lucene.analysis import Analysis
    from retriever.index.lucene.tokens import Token

__all__ = ["Words"]


class Words:
    """Reads texts and queries as BM25 does; Java starts with the first one. languages: of the documents."""

    def __init__(self, analyzer: str, languages: Sequence[str] = ()) -> None:
        self._analyzer, self._languages = analyzer, languages

    @lazy
    def _analysis(self) -> Analysis:
        start_jvm()
        with one_at_a_time():
            return analysis_of(self._analyzer)

    def of_query(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms of a query, in order, repeated ones too; language: None for what it looks like."""
        analysis, languages = self._analysis, self._languages if language is None else [language]
        with one_at_a_time():
            return analysis.query_terms(text, languages)

    def of_document(self, text: str, language: str) -> list[str]:
        """Return the terms of a document's text; language: of the document, "" where all are read alike."""
        analysis = self._analysis
        with one_at_a_time():
            return analysis.terms(text, language)

    def overlaps(self, text: str) -> int:
        """Return how many terms of a text stand where another one does: Lucene's lengths leave them out."""
        analysis = self._analysis
        with one_at_a_time():
            return analysis.overlaps(text)

    def tokens(self, text: str) -> list[Token]:
        """Return the terms of a document's text with their characters."""
        analysis = self._analysis
        with one_at_a_time():
            return analysis.tokens(text)

    def spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which a term of the query is made."""
        wanted = set(self.of_query(query))
        return [Span(token.start, token.end) for token in self.tokens(text) if token.term in wanted]
