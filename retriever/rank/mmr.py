"""Maximal marginal relevance (Carbonell & Goldstein, 1998): what is much like a hit above stands lower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from retriever.rank.stage import Stage, min_max, on_top
from retriever.rank.stored import unit_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt

__all__ = ["Mmr", "maximal_marginal_relevance"]


@dataclass(frozen=True)
class Mmr(Stage):
    """Orders the first `depth` hits anew, by balance * relevance - (1 - balance) * likeness to the hits above.

    Relevance is the score, from 0 to 1 within these hits; likeness is the cosine of the stored vectors, or of the
    sparse terms in an index without vectors.
    """

    name: ClassVar[str] = "mmr"
    cost: ClassVar[str] = "no network; depth x depth inner products"

    balance: float = 0.7
    depth: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(0 <= self.balance <= 1, "balance", "a number from 0 to 1")
        self.check(self.depth >= 1, "depth", "1 or more")

    @property
    def reads(self) -> int:
        """Return its depth."""
        return self.depth

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return the ranking, the first hits of it in their new order."""
        head = found.ranking[: self.depth]
        if not head:
            return found
        ids = [hit.doc_id for hit in head]
        vectors = unit_vectors(at, ids)
        budget.check()
        relevance = np.array(list(min_max(dict(head)).values()))
        scores = maximal_marginal_relevance(relevance, vectors @ vectors.T, self.balance)
        return found._replace(ranking=on_top(dict(zip(ids, scores.tolist(), strict=True)), found.ranking))


def maximal_marginal_relevance(
    relevance: NDArray[np.float64], likeness: NDArray[np.floating], balance: float
) -> NDArray[np.float64]:
    """Return what each of n candidates was worth when it was chosen; the next one chosen is never worth more.

    relevance (n,), highest first; likeness (n, n). Of equals the first is chosen.

    >>> alike = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    >>> maximal_marginal_relevance(np.array([1.0, 0.75, 0.5]), alike, 0.5).tolist()
    [0.5, -0.125, 0.25]
    """
    worth = balance * relevance
    most_alike = np.zeros(len(worth))
    scores = np.full(len(worth), -np.inf)
    left = np.ones(len(worth), bool)
    for _ in range(len(worth)):
        now = np.where(left, worth - (1 - balance) * most_alike, -np.inf)
        chosen = int(np.argmax(now))
        scores[chosen], left[chosen] = now[chosen], False
        most_alike = np.maximum(most_alike, likeness[chosen])
    return scores
