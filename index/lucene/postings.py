"""Reading back the terms of all documents as one matrix: what search over an inverted index has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene import calls
from retriever.index.lucene.jvm import as_type, lucene, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

__all__ = ["TermImpacts", "stored_terms", "term_impacts"]


class TermImpacts(NamedTuple):
    """Of one term the live rows that hold it, int64 (n,), ascending, and its impact in each, int32 (n,)."""

    term: int
    rows: NDArray[np.int64]
    impacts: NDArray[np.int32]


def term_impacts(searcher: Any, field: str, rows: NDArray[np.int64]) -> Iterator[TermImpacts]:
    """Yield what each term (a decimal column number) of a field holds of each live row, terms ascending.

    searcher: scores a document by the frequency of the query's term: a search for each term brings its
    postings at once, about a microsecond each. rows: (max_doc,) the row of each of Lucene's document numbers.
    """
    index = searcher.getIndexReader()
    term_of, query_of = lucene("index.Term"), lucene("search.TermQuery")
    for term, most in _terms(index, field):
        with one_at_a_time():
            query = as_type("search.Query", query_of(term_of(field, str(term))))
        found = calls.documents(searcher, query, most)
        own = rows[found.rows]
        order = np.argsort(own)
        yield TermImpacts(term, own[order], found.scores[order].astype(np.int32))


@one_at_a_time()
def _terms(index: Any, field: str) -> list[tuple[int, int]]:
    """Return the terms of a field, ascending, each with the number of documents that hold it, deleted ones included."""
    terms = lucene("index.MultiTerms").getTerms(index, field)
    walk = None if terms is None else terms.iterator()
    found = []
    while walk is not None and (term := walk.next()) is not None:
        found.append((int(term.utf8ToString()), walk.docFreq()))
    return sorted(found)


def stored_terms(searcher: Any, field: str, rows: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """Return int32 csr (rows, vocab_size): the frequency of each term (a decimal column number) in each live row."""
    found = [TermImpacts(0, np.empty(0, np.int64), np.empty(0, np.int32)), *term_impacts(searcher, field, rows)]
    terms, places, frequencies = zip(*found, strict=True)
    columns = np.repeat(np.array(terms, np.int64), [len(part) for part in places])
    from scipy.sparse import csr_matrix  # a tenth of a second, which searching does without

    return csr_matrix((np.concatenate(frequencies), (np.concatenate(places), columns)), shape=shape)
