"""Reading back the terms of all documents as one matrix: what search over an inverted index has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from retriever.index.jvm import lucene, one_at_a_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["stored_terms"]


@one_at_a_time()
def stored_terms(index: Any, field: str, rows: NDArray[np.int64], shape: tuple[int, int]) -> csr_matrix:
    """Return int32 csr (rows, vocab_size): the frequency of each term (a decimal column number) in each row.

    rows: (max_doc,) the row of each of Lucene's document numbers. Deleted documents that are not merged away yet have
    their terms. Two Java calls a posting: three seconds for a million.
    """
    terms = lucene("index.MultiTerms").getTerms(index, field)
    docs: list[int] = []
    frequencies: list[int] = []
    columns: list[int] = []
    counts: list[int] = []
    walk = None if terms is None else terms.iterator()
    while walk is not None and (term := walk.next()) is not None:
        postings, count = walk.postings(None), walk.docFreq()
        next_doc, frequency = postings.nextDoc, postings.freq
        for _ in range(count):
            docs.append(next_doc())
            frequencies.append(frequency())
        columns.append(int(term.utf8ToString()))
        counts.append(count)
    places = rows[np.array(docs, np.int64)], np.repeat(np.array(columns, np.int64), counts)
    return csr_matrix((np.array(frequencies, np.int32), places), shape=shape)
