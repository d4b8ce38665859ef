"""The leg of words: BM25 over title and text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from retriever.search.leg import Leg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.chunks import ScoredChunk
    from retriever.index.contract import LegReader, Selection
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegOptions, LegQuery
    from retriever.search.words import StoredWords
    from retriever.types import Encoder, Ranking, Span, TermMatch

__all__ = ["Bm25Leg"]


class Bm25Leg(Leg):
    """Every index has it, and it reads a query's text as it is."""

    name = "bm25"
    folders = ("lucene", "bm25")
    weight = 0.25
    colour = "#7f7f7f"

    def __init__(self, reader: LegReader, options: LegOptions) -> None:
        """Take the commit; its postings are searched, and Lucene where an older index has none."""
        super().__init__(reader, options)
        self._words: StoredWords | None = None
        if reader.word_postings is not None:
            from retriever.search.words import StoredWords

            self._words = StoredWords(reader, reader.word_postings)

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        """Return the best hits by BM25."""
        if self._words is not None:
            words = Counter(self.reader.query_terms(query.text)) if query.words is None else query.words
            return self._words.search(words, depth, selection)
        if query.words is not None:
            return self.reader.bm25_words(query.words, depth, selection)
        return self.reader.bm25(query.text, depth, selection)

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks that hold a term of the query."""
        if query.words is not None:
            return self.reader.bm25_words_chunks(query.words, list(documents))
        return self.reader.bm25_chunks(query.text, list(documents))

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the analysed terms that both share."""
        if query.words is not None:
            return self.reader.explain_words(query.words, doc_id, chunk)
        return self.reader.explain_bm25(query.text, doc_id, chunk)

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the words of which analysis makes a term of the query."""
        return self.reader.bm25_spans(query.text, text)
