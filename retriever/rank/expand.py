"""Query expansion by a function of the user's own, such as one that asks a language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from retriever.functions import check_function_name, function_named
from retriever.lazy import lazy
from retriever.rank import stored
from retriever.rank.stage import Stage
from retriever.search.leg import LegQuery, views_of
from retriever.types import TermMatch, UserError

if TYPE_CHECKING:
    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt
    from retriever.types import Encoded, FloatArray

__all__ = ["Expand"]


@dataclass(frozen=True)
class Expand(Stage):
    """Searches again with the query and the texts that a function gives for it, as language models write them.

    Query2doc (Wang et al., 2303.07678), HyDE (2212.10496), LLM-QE and ProQE do so, with different prompts.
    function: "module:function", or from Python the function itself: of the query and the texts of the first `documents`
    hits, it returns texts to search with as well (one, or a list, which may be empty).
    weight: how much they count, all together, for 1 of the query: their mean vector, and the mass of their terms.
    """

    name: ClassVar[str] = "expand"
    cost: ClassVar[str] = "what the function costs; one pass of the encoder for its texts, a second search of all legs"
    loads: ClassVar[bool] = True

    function: str | Callable[..., object]
    documents: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.function, str):
            check_function_name(self.function)
        self.check(self.documents >= 0, "documents", "0 or more")
        self.check(0 <= self.weight <= 10, "weight", "a number from 0 to 10")

    @lazy
    def _function(self) -> Callable[..., Any]:
        return function_named(self.function) if isinstance(self.function, str) else self.function

    @property
    def reads(self) -> int:
        """Return how many hits the function is given."""
        return self.documents

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return what the expanded query finds."""
        ids = [hit.doc_id for hit in found.ranking[: self.documents]]
        given = stored.texts(at, found.query, ids) if ids else []
        texts = _texts(self._function(found.query.text, given))
        budget.check()
        if not texts:
            return found
        after = at.search(_expanded(found.query, texts, self.weight, at))
        return after._replace(lists={**found.lists, **{f"expand.{leg}": after.rankings[leg] for leg in at.plan.legs}})

    def explain(self, before: Found, after: Found, at: SearchAt, doc_id: str) -> tuple[TermMatch, ...]:
        """Return the terms that the texts added, of those that the document holds."""
        known = {(match.leg, match.term) for match in at.explain(before.query, doc_id)}
        added = [match for match in at.explain(after.query, doc_id) if (match.leg, match.term) not in known]
        return tuple(sorted(added, key=lambda match: -match.contribution))


def _texts(given: object) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"expand: the function gave {type(given).__name__}, need a text or a list of texts; return one")
    return [text for text in texts if text.strip()]


def _expanded(query: LegQuery, texts: Sequence[str], weight: float, at: SearchAt) -> LegQuery:
    """Return the query with what legs read of the texts; see `Expand.weight`."""
    reader = at.view.reader
    own: dict[str, float] = dict(query.words or Counter(reader.query_terms(query.text)))
    words = Counter(term for text in texts for term in reader.query_terms(text))
    share = weight * (sum(own.values()) or 1.0) / max(words.total(), 1)
    summed = {term: own.get(term, 0.0) + share * words[term] for term in {**own, **words}}
    summed = {term: one for term, one in summed.items() if one > 0}
    if query.encoded is None:
        return query._replace(words=summed)
    views = views_of(at.plan.legs)
    encoder = at.encoder()
    added = encoder.encode_queries(texts, dense="dense" in views, sparse="sparse" in views)
    if added.sparse is not None and encoder.adapts:
        added = added._replace(sparse=encoder.adapt(added.sparse, reader.token_statistics))
    return LegQuery(query.text, _summed(query, added, weight), 0, summed)


def _summed(query: LegQuery, added: Encoded, weight: float) -> Encoded:
    from scipy.sparse import csr_matrix

    assert query.encoded is not None
    dense, sparse = None, None
    if query.encoded.dense is not None and added.dense is not None:
        moved: FloatArray = query.vector + np.float32(weight) * added.dense.mean(axis=0, keepdims=True)
        length = np.linalg.norm(moved)
        dense = (moved / length if length > 0 else moved).astype(np.float32)
    if query.encoded.sparse is not None and added.sparse is not None:
        terms = csr_matrix(np.asarray(added.sparse.sum(axis=0), np.float32))
        share = weight * (query.terms.sum() or 1.0) / (terms.sum() or 1.0)
        sparse = csr_matrix(query.terms + csr_matrix(terms * np.float32(share)))
    return query.encoded._replace(dense=dense, sparse=sparse)
