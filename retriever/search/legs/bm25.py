"""The leg of words: BM25 over title and text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from retriever.index.chunks import ScoredChunk, chunk_rows
from retriever.index.reading.explained import explained
from retriever.search.leg import Leg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.index.contract import LegReader, Selection
    from retriever.index.stored import StoredDocument
    from retriever.search.leg import LegOptions, LegQuery
    from retriever.search.legs.bm25_postings import StoredWords
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
            from retriever.search.legs.bm25_postings import StoredWords

            self._words = StoredWords(reader, reader.word_postings)

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        """Return the best hits by BM25."""
        if self._words is not None:
            return self._words.search(self._words_of(query), depth, selection)
        if query.words is not None:
            return self.reader.bm25_words(query.words, depth, selection)
        return self.reader.bm25(query.text, depth, selection)

    def _words_of(self, query: LegQuery) -> Mapping[str, float]:
        return Counter(self.reader.query_terms(query.text)) if query.words is None else query.words

    def chunks(self, query: LegQuery, documents: Mapping[str, StoredDocument]) -> list[ScoredChunk]:
        """Return the scores of the chunks that hold a term of the query."""
        if self._words is not None:
            rows = chunk_rows(documents, self.reader.first_row)
            found = self._words.among(self._words_of(query), list(rows))
            return [ScoredChunk(*rows[row], score) for row, score in found.items()]
        if query.words is not None:
            return self.reader.bm25_words_chunks(query.words, list(documents))
        return self.reader.bm25_chunks(query.text, list(documents))

    def explain(self, query: LegQuery, doc_id: str, chunk: int, vocabulary: Sequence[str]) -> list[TermMatch]:
        """Return the analysed terms that both share."""
        words = self._words_of(query)
        if self._words is None:
            return self.reader.explain_words(words, doc_id, chunk)
        try:
            row = self.reader.first_row(doc_id) + chunk
        except KeyError:
            return []
        # A word by itself, as Lucene explains a score.
        scores = {word: self._words.among({word: 1.0}, [row]).get(row, 0.0) for word in words}
        return explained(words, scores)

    def highlight(self, query: LegQuery, text: str, encoder: Encoder | None) -> list[Span]:
        """Return the words of which analysis makes a term of the query."""
        return self.reader.bm25_spans(query.text, text)
