"""In how many documents of one commit each token of the encoder's vocabulary occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from retriever.index.lucene.reader import LuceneReader
    from retriever.index.postings.words import WordPostings

__all__ = ["TokenStatistics"]


class TokenStatistics:
    """Document frequencies of tokens. Where documents are split, their chunks are the documents.

    words: where they are counted; lucene: gives what counts them in an older index, which has no such part.
    """

    def __init__(self, words: WordPostings | None, lucene: Callable[[], LuceneReader]) -> None:
        self._counts = None if words is None else words.tokens
        self.documents = lucene().count("token") if self._counts is None else self._counts.documents
        self._lucene = lucene
        self._known: dict[int, int] = {}

    def document_frequency(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return for each vocabulary id the number of documents that hold it."""
        if self._counts is not None:
            return self._counts.of(terms)
        wanted = terms.tolist()
        new = [term for term in wanted if term not in self._known]
        self._known |= zip(new, self._lucene().document_frequencies("token", map(str, new)), strict=True)
        return np.array([self._known[term] for term in wanted], np.int64)
