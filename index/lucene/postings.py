"""Reading back the terms of all documents as one matrix: what search over an inverted index has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from retriever.index.lucene.hits import read_documents
from retriever.index.lucene.jvm import lucene, one_at_a_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["stored_terms"]


@one_at_a_time()
def stored_terms(searcher: Any, field: str, rows: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """Return int32 csr (rows, vocab_size): the frequency of each term (a decimal column number) in each live row.

    searcher: scores a document by the frequency of the term that is asked for: a search for each term brings its
    postings at once, about a microsecond each. rows: (max_doc,) the row of each of Lucene's document numbers.
    """
    index = searcher.getIndexReader()
    term_of, query_of = lucene("index.Term"), lucene("search.TermQuery")
    terms = lucene("index.MultiTerms").getTerms(index, field)
    walk = None if terms is None else terms.iterator()
    docs, frequencies = [np.empty(0, np.int64)], [np.empty(0, np.float64)]
    columns: list[int] = []
    while walk is not None and (term := walk.next()) is not None:
        text = term.utf8ToString()
        found = read_documents(searcher.search(query_of(term_of(field, text)), walk.docFreq()))
        docs.append(found.rows)
        frequencies.append(found.scores)
        columns.append(int(text))
    counts = [len(part) for part in docs[1:]]
    places = rows[np.concatenate(docs)], np.repeat(np.array(columns, np.int64), counts)
    return csr_matrix((np.concatenate(frequencies).astype(np.int32), places), shape=shape)
