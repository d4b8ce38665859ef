"""What holds for every ranking: how hits are ordered, how a query's own document and how ties are dealt with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retriever.types import ScoredDoc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retriever.types import Ranking

__all__ = ["order", "separate_ties", "without_self"]


def order(scored: Iterable[tuple[str, float]], *, top_k: int | None = None) -> Ranking:
    """Order pairs of id and score by score, highest first, ties by id in code point order; then cut, if at all.

    Raises:
        ValueError: a score is NaN.

    >>> [hit.doc_id for hit in order([("b", 1.0), ("a", 1.0), ("c", 2.0)], top_k=2)]
    ['c', 'a']
    """
    pairs = [(-score, doc_id) for doc_id, score in scored]
    for score, doc_id in pairs:
        if score != score:
            raise ValueError(f"the score of {doc_id!r} is NaN, need a number")
    pairs.sort()  # as tuples of float and string, which takes half as long as with a key function
    return [ScoredDoc(doc_id, -score) for score, doc_id in pairs[:top_k]]


def without_self(ranking: Ranking, query_id: str, *, exclude: bool = True) -> Ranking:
    """Return a ranking without the document that has the query's own id, for data sets whose queries are documents.

    exclude: False returns the ranking as it is, for data sets that do not ask for this.

    >>> without_self([ScoredDoc("q1", 9.0), ScoredDoc("d1", 5.0)], "q1")
    [ScoredDoc(doc_id='d1', score=5.0)]
    """
    return [hit for hit in ranking if hit.doc_id != query_id] if exclude else ranking


def separate_ties(ranking: Ranking) -> Ranking:
    """Lower tied scores by the least that single precision can tell, so that every tool keeps the order of `ranking`.

    trec_eval sorts by score in single precision and breaks ties by descending id. A system that shows tied documents
    in one order should not be measured in another: Anserini does the same before it writes a run, and only so are its
    published figures met (BM25 on NFCorpus: nDCG@10 0.3206 without, 0.3218 with).

    >>> [hit.score for hit in separate_ties([ScoredDoc("a", 0.5), ScoredDoc("b", 0.5)])]
    [0.5, 0.4999999701976776]
    """
    import numpy as np  # the others are used where NumPy is not loaded yet

    separate = []
    last = math.inf
    scores = np.array([hit.score for hit in ranking], dtype=np.float32)
    for hit, score in zip(ranking, scores.tolist(), strict=True):
        last = score if score < last else float(np.nextafter(np.float32(last), np.float32(-math.inf)))
        separate.append(ScoredDoc(hit.doc_id, last))
    return separate
