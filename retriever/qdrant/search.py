"""Searching a collection: several legs and queries in one round, exact to the last tie.

Qdrant returns hits of equal scores in any order, and BM25's vectors may be of another mean length than today's. So more
than `top_k` hits are fetched: until no other can belong to the first ones, neither by its score nor by its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.index.chunks import ScoredChunk
from retriever.qdrant.bm25 import exact_scores, term_scores
from retriever.qdrant.engine import Question, SparseVector
from retriever.ranking import order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retriever.qdrant.bm25 import Collection, QueryWords
    from retriever.qdrant.engine import Engine, Record, Vector
    from retriever.qdrant.filters import Selection
    from retriever.types import FloatArray, Ranking, ScoredDoc

__all__ = ["Asked", "run", "word_scores"]

SPARE = 32
"""Extra hits fetched beyond `top_k`: they usually show whether others tie with the last one."""
MOST = 100_000
"""Hits fetched of one question at most: of more that tie, some in Qdrant's order are left out."""
SLACK = 1e-5
"""By how much, relatively, Qdrant's sums in single precision may be wrong at most."""


class Asked(NamedTuple):
    """What one leg asks for one query. name: of the vectors, which is the leg's. vector: None for nothing to find.

    scale: a score is Qdrant's divided by this. words: the terms of BM25, whose scores are computed anew where `drift`
    is above 1: no score of today is more than so many times the one that the stored vectors give.
    """

    name: str
    vector: Vector | None
    scale: float = 1.0
    words: QueryWords | None = None
    drift: float = 1.0


class _Search:
    """One question that is repeated, each time twice as deep, until its answer is complete."""

    def __init__(
        self, asked: Asked, top_k: int, selection: Selection | None, chunks_per_document: int, collection: Collection
    ) -> None:
        self._asked, self._top_k, self._selection = asked, top_k, selection
        self._collection = collection
        self._limit = min(top_k * chunks_per_document + SPARE, MOST)
        self.ranking: Ranking = []
        self.done = asked.vector is None

    def question(self, *, exact: bool) -> Question:
        asked, selection = self._asked, self._selection
        assert asked.vector is not None
        payload = ["id", "chunk"]
        if self._anew:
            payload += ["length", "mean"]
        if selection is not None and selection.check is not None:
            payload += ["s", "d", "b", "t", "x"]
        found = Question(asked.name, asked.vector, self._limit, payload=payload, with_vector=self._anew, exact=exact)
        return found if selection is None else found._replace(within=selection.within)

    @property
    def _anew(self) -> bool:
        return self._asked.drift > 1

    def take(self, found: Sequence[Record]) -> None:
        """Read an answer: it is complete, or a deeper one is needed."""
        check = None if self._selection is None else self._selection.check
        kept = [record for record in found if check is None or check(record.payload)]
        ranked = order((record.payload["id"], self._score(record)) for record in kept)
        best: dict[str, ScoredDoc] = {}
        for hit in ranked:
            best.setdefault(hit.doc_id, hit)
        self.ranking = [hit for hit in best.values() if self._asked.name == "dense" or hit.score > 0][: self._top_k]
        whole = len(found) < self._limit or self._limit >= MOST
        self.done = whole or self._complete(found[-1].score / self._asked.scale)
        self._limit = min(2 * self._limit, MOST)

    def _score(self, record: Record) -> float:
        if not self._anew:
            return record.score / self._asked.scale
        assert self._asked.words is not None
        scores = word_scores(self._asked.words, record, self._collection)
        return exact_scores(scores)

    def _complete(self, last: float) -> bool:
        """Say whether no hit behind the last one that was fetched can belong to the first ones."""
        bound = last * self._asked.drift * (1 + SLACK) if self._anew else last
        return len(self.ranking) >= self._top_k and self.ranking[-1].score > bound


def word_scores(words: QueryWords, record: Record, collection: Collection) -> FloatArray:
    """Return what each term of a query adds to the BM25 score of a chunk today, float32 (n,)."""
    vector = record.vectors.get("bm25")
    if not isinstance(vector, SparseVector):
        return np.zeros(len(words.indices), np.float32)
    length = record.payload["length"]
    old = collection.inverse_norm(length, record.payload["mean"])
    return term_scores(words, vector, old, collection.inverse_norm(length))


def run(
    engine: Engine,
    asked: Sequence[Asked],
    top_k: int,
    *,
    selection: Selection | None,
    chunks_per_document: int,
    collection: Collection,
    exact: bool,
) -> list[Ranking]:
    """Return the best documents of each question, each with its best chunk's score; all are asked together.

    exact: whether the dense vectors are all scored.
    """
    searches = [_Search(one, top_k, selection, chunks_per_document, collection) for one in asked]
    while waiting := [search for search in searches if not search.done]:
        answers = engine.ask([search.question(exact=exact) for search in waiting])
        for search, answer in zip(waiting, answers, strict=True):
            search.take(answer)
    return [search.ranking for search in searches]


def scored_chunks(records: Sequence[Record], score: Callable[[Record], float]) -> list[ScoredChunk]:
    """Return the scores of chunks, those above 0."""
    found = ((record, score(record)) for record in records)
    return [ScoredChunk(record.payload["id"], record.payload["chunk"], value) for record, value in found if value > 0]
