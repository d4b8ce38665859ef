"""Pseudo-relevance feedback: the first hits count as relevant, and the legs search again with what these say.

It costs a second search of the legs and no network: the index stores vectors, terms and texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from retriever.rank import stored
from retriever.rank.stage import Stage, min_max, on_top
from retriever.rank.view_feedback import average_vector, idf, moved_vector, rm3_terms, rocchio_terms, shared_terms
from retriever.rank.word_feedback import FeedbackText, rm3, rocchio, usable
from retriever.search.leg import LegQuery
from retriever.types import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt
    from retriever.types import FloatArray, Ranking, TermMatch

__all__ = ["METHODS", "Feedback", "Method"]

SURE_AMONG = 100
"""Hits whose scores tell which of them are sure."""


class _On(NamedTuple):
    """What feedback is taken from, and how much of it. shares: of the documents (n,), they sum to 1."""

    at: SearchAt
    query: LegQuery
    ids: Sequence[str]
    scores: Sequence[float]
    terms: int
    weight: float

    @property
    def shares(self) -> FloatArray:
        scores = np.maximum(np.array(self.scores, np.float32), 0)
        total = scores.sum()
        return scores / total if total > 0 else np.full(len(scores), 1 / len(scores), np.float32)


class Method(NamedTuple):
    """How feedback changes what each leg, by name, reads of a query, and its settings unless told otherwise."""

    change: dict[str, Callable[[_On], LegQuery]]
    documents: int
    terms: int
    weight: float
    keep: float | None = None


def _words(on: _On, *, as_rm3: bool) -> LegQuery:
    reader = on.at.view.reader
    own: dict[str, float] = dict(on.query.words or Counter(reader.query_terms(on.query.text)))
    counts = stored.words(on.at, on.ids)
    held = list(dict.fromkeys(term for text in counts for term in text))
    frequencies = dict(zip(held, reader.bm25_frequencies(held), strict=True))
    kept = [usable(text, frequencies, reader.num_chunks, plain=as_rm3) for text in counts]
    texts = [FeedbackText(text, score) for text, score in zip(kept, on.scores, strict=True)]
    return on.query._replace(words=(rm3 if as_rm3 else rocchio)(own, texts, on.terms, on.weight))


def _with_terms(query: LegQuery, terms: csr_matrix) -> LegQuery:
    assert query.encoded is not None
    dense = None if query.encoded.dense is None else query.vector
    return LegQuery(query.text, query.encoded._replace(dense=dense, sparse=terms), 0, query.words)


def _with_vector(query: LegQuery, vector: FloatArray) -> LegQuery:
    assert query.encoded is not None
    sparse = None if query.encoded.sparse is None else query.terms
    return LegQuery(query.text, query.encoded._replace(dense=vector, sparse=sparse), 0, query.words)


def _sparse_rm3(on: _On) -> LegQuery:
    impacts = stored.impacts(on.at, on.ids)
    return _with_terms(on.query, rm3_terms(on.query.terms, impacts, on.shares, terms=on.terms, weight=on.weight))


def _sparse_rocchio(on: _On) -> LegQuery:
    impacts = stored.impacts(on.at, on.ids)
    return _with_terms(on.query, rocchio_terms(on.query.terms, impacts, terms=on.terms, weight=on.weight))


def _sparse_shared(on: _On) -> LegQuery:
    reader = on.at.view.reader
    impacts = stored.impacts(on.at, on.ids)
    held = np.unique(impacts.indices)
    rarity = np.zeros(impacts.shape[1], np.float32)
    rarity[held] = idf(np.array(reader.sparse_frequencies(held.tolist()), np.int64), reader.num_chunks)
    found = shared_terms(on.query.terms, impacts, on.shares, rarity, terms=on.terms, weight=on.weight)
    return _with_terms(on.query, found)


def _dense_rocchio(on: _On) -> LegQuery:
    vectors = stored.vectors(on.at, on.ids)
    return _with_vector(on.query, moved_vector(on.query.vector, vectors, on.shares, on.weight))


def _dense_average(on: _On) -> LegQuery:
    return _with_vector(on.query, average_vector(on.query.vector, stored.vectors(on.at, on.ids)))


METHODS: dict[str, Method] = {
    "joint": Method({"sparse": _sparse_shared, "dense": _dense_rocchio}, documents=3, terms=40, weight=1.0, keep=0.7),
    "rm3": Method(
        {"bm25": lambda on: _words(on, as_rm3=True), "sparse": _sparse_rm3}, documents=10, terms=10, weight=0.5
    ),
    "rocchio": Method(
        {"bm25": lambda on: _words(on, as_rm3=False), "sparse": _sparse_rocchio, "dense": _dense_rocchio},
        documents=10,
        terms=10,
        weight=0.75,
    ),
    "average": Method({"dense": _dense_average}, documents=3, terms=0, weight=0.0),
}
"""The ways to take feedback; "joint" and "rocchio" change every view that they can, and all at once."""


@dataclass(frozen=True)
class Feedback(Stage):
    """Takes the first `documents` hits as relevant, and searches again.

    method: "joint": vectors move towards the hits, and the strongest terms that the hits share join the sparse ones;
    "rm3" and "rocchio": as in Anserini, on BM25's words, and the same on sparse terms (and vectors); "average": the
    mean of the vectors. documents, terms, weight: how many hits, how many terms of them, and how much they count;
    none for the method's own.
    keep: hits of which the search was sure stay on top, in their order: those that have such a score, from 0 to 1
    within the first 100. Above 1 keeps none; none for the method's own, 0.7 for "joint", no hits for the others.
    legs: which legs change, joined by "+"; none for all that the method knows how to change.
    """

    name: ClassVar[str] = "feedback"
    cost: ClassVar[str] = "no network; a second search of the legs that change"

    method: str = "joint"
    documents: int | None = None
    weight: float | None = None
    terms: int | None = None
    keep: float | None = None
    legs: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.method in METHODS, "method", f"one of {', '.join(METHODS)}")
        self.check(self.documents is None or self.documents >= 1, "documents", "1 or more")
        self.check(self.terms is None or self.terms >= 1, "terms", "1 or more")
        self.check(self.weight is None or 0 <= self.weight <= 10, "weight", "a number from 0 to 10")
        self.check(self.keep is None or self.keep >= 0, "keep", "a number of 0 or more")
        known = METHODS[self.method].change
        self.check(set(self._changed) <= set(known), "legs", f"some of {'+'.join(known)}, which {self.method} changes")

    @property
    def _changed(self) -> tuple[str, ...]:
        return tuple(METHODS[self.method].change) if self.legs is None else tuple(self.legs.split("+"))

    @property
    def reads(self) -> int:
        """Return how many hits feedback is taken from."""
        return METHODS[self.method].documents if self.documents is None else self.documents

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return what the changed query finds."""
        method = METHODS[self.method]
        legs = [leg for leg in at.plan.legs if leg in self._changed]
        if not legs:
            known, own = ", ".join(self._changed), ", ".join(at.plan.legs)
            raise UserError(f"feedback: {self.method} changes {known}, the search has {own}; add one of these legs")
        head: Ranking = found.ranking[: self.reads]
        if not head:
            return found
        on = _On(
            at,
            found.query,
            [hit.doc_id for hit in head],
            [hit.score for hit in head],
            method.terms if self.terms is None else self.terms,
            method.weight if self.weight is None else self.weight,
        )
        for leg in legs:
            budget.check()
            on = on._replace(query=method.change[leg](on))
        budget.check()
        after = at.search(on.query, known={leg: found.rankings[leg] for leg in at.plan.legs if leg not in legs})
        return after._replace(
            ranking=self._kept(found.ranking, after.ranking),
            lists={**found.lists, **{f"feedback.{leg}": after.rankings[leg] for leg in legs}},
        )

    def _kept(self, before: Ranking, after: Ranking) -> Ranking:
        """Return the ranking with those hits on top that were sure before.

        Which queries feedback harms cannot be told beforehand: of 29 signals none has a rank correlation with the gain
        above 0.25 in more than one of five collections. But where it harms, it puts other documents above those that
        the legs agreed on: leaving these where they are costs little of the gain, and takes nearly all of the harm.
        """
        keep = METHODS[self.method].keep if self.keep is None else self.keep
        if keep is None:
            return after
        first = before[:SURE_AMONG]
        sure = {doc_id for doc_id, score in min_max(dict(first)).items() if score >= keep}
        return on_top({hit.doc_id: hit.score for hit in first if hit.doc_id in sure}, after)

    def explain(self, before: Found, after: Found, at: SearchAt, doc_id: str) -> tuple[TermMatch, ...]:
        """Return the terms that feedback added, of those that the document holds."""
        known = {(match.leg, match.term) for match in at.explain(before.query, doc_id)}
        added = [match for match in at.explain(after.query, doc_id) if (match.leg, match.term) not in known]
        return tuple(sorted(added, key=lambda match: -match.contribution))
