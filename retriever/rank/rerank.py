"""Stages that score the first hits with a model: each with the query, or two of them against each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar

from retriever.lazy import lazy
from retriever.rank import stored
from retriever.rank.scorers import CrossEncoderScorer, Scorer, scorer_named
from retriever.rank.stage import Stage, min_max, on_top
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.rank.stage import Budget
    from retriever.search.steps import Found, SearchAt
    from retriever.types import Ranking

__all__ = ["Duo", "Rerank", "blended"]

BATCH = 16
"""Texts that are scored between two looks at the time."""
SEPARATOR = " [SEP] "


@dataclass(frozen=True)
class Rerank(Stage):
    """Scores the first `depth` hits, title and text, with a model; the others stay behind them (Nogueira & Cho, 2019).

    model: "cross-encoder:NAME", a function's name (see `registered_scorer`), or from Python the function itself.
    weight: the share of the model's score, the rest is that of the ranking before, both from 0 to 1; with 1, the
    default, hits have the model's own scores.
    """

    name: ClassVar[str] = "rerank"
    cost: ClassVar[str] = "one pass of the model for each of depth texts"
    loads: ClassVar[bool] = True

    model: str | Callable[..., object]
    depth: int = 50
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._scorer  # a name that is unknown
        self.check(self.depth >= 1, "depth", "1 or more")
        self.check(0 <= self.weight <= 1, "weight", "a number from 0 to 1")

    @lazy
    def _scorer(self) -> Scorer:
        return scorer_named(self.model) if isinstance(self.model, str) else self.model  # type: ignore[return-value]

    @property
    def reads(self) -> int:
        """Return its depth."""
        return self.depth

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return the ranking, the first hits of it by their new scores."""
        head = found.ranking[: self.depth]
        ids = [hit.doc_id for hit in head]
        texts = stored.texts(at, found.query, ids) if ids else []
        scores = _in_batches(self._scorer, found.query.text, texts, budget)
        return found._replace(ranking=blended(dict(zip(ids, scores, strict=True)), found.ranking, self.weight))


def blended(scores: Mapping[str, float], ranking: Ranking, weight: float) -> Ranking:
    """Return the documents that have scores on top, by these or by weight * these + (1 - weight) * their old ones."""
    if weight < 1:
        new, old = min_max(scores), min_max({hit.doc_id: hit.score for hit in ranking if hit.doc_id in scores})
        scores = {doc_id: weight * new[doc_id] + (1 - weight) * old[doc_id] for doc_id in scores}
    return on_top(scores, ranking)


def _in_batches(scorer: Scorer, query: str, texts: Sequence[str], budget: Budget) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(texts), BATCH):
        budget.check()
        part = texts[start : start + BATCH]
        given = scorer(query, part)
        try:
            found = [float(score) for score in given]
        except (TypeError, ValueError):
            raise UserError(f"the scorer gave {str(given)[:80]}, need a number for each text") from None
        if any(map(math.isnan, found)):
            raise UserError("the scorer gave NaN for a text, need numbers")
        if len(found) != len(part):
            raise UserError(f"the scorer gave {len(found)} scores for {len(part)} texts; need one for each")
        scores += found
    return scores


@dataclass(frozen=True)
class Duo(Stage):
    """Compares each of the first `depth` hits with each other: duoBERT (Pradeep et al., 2101.05667).

    The model reads the query with "one text [SEP] the other" and says how probably the first one is the better; the
    score of hit i is the sum of p(i, j) + 1 - p(j, i) over the others ("sym-sum"). model: as for `rerank`.
    """

    name: ClassVar[str] = "duo"
    cost: ClassVar[str] = "one pass of the model for each of depth * (depth - 1) pairs of texts"
    loads: ClassVar[bool] = True

    model: str | Callable[..., object]
    depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self._scorer
        self.check(self.depth >= 2, "depth", "2 or more")

    @lazy
    def _scorer(self) -> Scorer:
        return scorer_named(self.model) if isinstance(self.model, str) else self.model  # type: ignore[return-value]

    @property
    def reads(self) -> int:
        """Return its depth."""
        return self.depth

    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return the ranking, the first hits of it by the comparisons that they won."""
        ids = [hit.doc_id for hit in found.ranking[: self.depth]]
        if len(ids) < 2:
            return found
        texts = stored.texts(at, found.query, ids)
        scorer, separator = self._scorer, SEPARATOR
        if isinstance(scorer, CrossEncoderScorer):
            separator = scorer.separator
            scorer = scorer.probabilities
        pairs = list(permutations(range(len(ids)), 2))
        joined = [f"{texts[i]}{separator}{texts[j]}" for i, j in pairs]
        wins = dict.fromkeys(ids, 0.0)
        for (i, j), better in zip(pairs, _in_batches(scorer, found.query.text, joined, budget), strict=True):
            wins[ids[i]] += better
            wins[ids[j]] += 1 - better
        return found._replace(ranking=on_top(wins, found.ranking))
