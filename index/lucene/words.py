"""How an index reads words, without the index: for who searches one that is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.lucene.analysis import analysis_of
from retriever.index.lucene.jvm import one_at_a_time, start_jvm
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.index.lucene.tokens import Token

__all__ = ["Words"]


class Words:
    """Makes terms of texts. languages: of the documents, the most frequent one first."""

    @one_at_a_time()
    def __init__(self, analyzer: str, languages: Sequence[str]) -> None:
        start_jvm()
        self._analysis, self._languages = analysis_of(analyzer), languages

    @one_at_a_time()
    def of_query(self, text: str, language: str | None = None) -> list[str]:
        """Return the terms that BM25 reads of a query, in order, repeated ones too; language: the query's, if known."""
        return self._analysis.query_terms(text, self._languages if language is None else [language])

    @one_at_a_time()
    def tokens(self, text: str) -> list[Token]:
        """Return the terms that BM25 reads of a document's text, each with its characters."""
        return self._analysis.tokens(text)

    def spans(self, query: str, text: str) -> list[Span]:
        """Return the characters of a text of which BM25 reads a term of the query."""
        wanted = set(self.of_query(query))
        return [Span(token.start, token.end) for token in self.tokens(text) if token.term in wanted]
