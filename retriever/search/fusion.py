"""Fusion of rankings: reciprocal rank fusion, weighted sums of normalised scores, products of scores.

A leg that is empty or whose weight is zero adds nothing, not even documents. Sums are exact (`math.fsum`), so the
result does not depend on the order of the legs, and documents that are equal in every leg tie exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retriever.ranking import order, order_scores
from retriever.search.leg import LEGS, default_weights
from retriever.search.normalisation import NORMALISATIONS, non_negative
from retriever.types import ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from retriever.types import Ranking

__all__ = [
    "METHODS",
    "MISSING",
    "NORMALISATIONS",
    "Fused",
    "FusionConfig",
    "fuse",
    "normalise",
    "product",
    "reciprocal_rank_fusion",
    "weighted_sum",
]

MISSING = ("zero", "min")

Scores: TypeAlias = "dict[str, float]"
"""What one leg gives each document that it found."""


def normalise(ranking: Ranking, normalisation: str = "min-max") -> Scores:
    """Return the normalised score of each document; an empty ranking gives an empty dict."""
    _check("normalisation", normalisation, NORMALISATIONS)
    return _apply(NORMALISATIONS[normalisation], ranking)


def _apply(function: Callable[[Sequence[float]], list[float]], ranking: Ranking) -> Scores:
    scores = _scores(ranking)
    return dict(zip(scores, function(list(scores.values())), strict=True)) if scores else {}


def _reciprocal_ranks(ranking: Ranking, k: float, rank_base: int) -> Scores:
    return {doc_id: 1.0 / (k + rank) for rank, doc_id in enumerate(_scores(ranking), start=rank_base)}


def _scores(ranking: Ranking) -> Scores:
    """Return the scores by id, in the order of the ranking; raise ValueError for one that cannot be fused."""
    scores: Scores = dict(ranking)
    if len(scores) < len(ranking):
        raise ValueError("a document stands twice in one ranking, need each once")
    if not all(map(math.isfinite, scores.values())):
        doc_id, score = next(pair for pair in scores.items() if not math.isfinite(pair[1]))
        raise ValueError(f"the score of {doc_id!r} is {score}, need a finite number")
    return scores


def _check(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in tuple(allowed):
        raise UserError(f"{name}: found {value!r}, allowed: {', '.join(allowed)}; choose one of them")


def _check_weights(weights: Mapping[str, float]) -> None:
    for leg, weight in weights.items():
        if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise UserError(f"weight of {leg}: found {weight!r}, need a number of 0 or more; change it")
    if weights and not any(weights.values()):
        raise UserError(f"weights: {', '.join(weights)} all have 0, need one above 0; raise at least one")


def _check_ranks(k: float, rank_base: int) -> None:
    if rank_base not in (0, 1):
        raise UserError(f"rank_base: found {rank_base!r}, allowed: 0, 1; choose the rank of the first hit")
    if not isinstance(k, (int, float)) or not 0 < k + rank_base < math.inf:
        raise UserError(f"k: found {k!r}, need k + rank_base above 0; 60 is usual")


def _active(legs: Mapping[str, Scores], weights: Mapping[str, float] | None) -> list[tuple[float, Scores]]:
    """Return weight and scores of each leg that takes part, after checking that every leg has a weight."""
    if weights is None:
        weights = dict.fromkeys(legs, 1.0)
    without = [leg for leg in legs if leg not in weights]
    if without:
        raise UserError(f"weights: leg {without[0]!r} has none, only {', '.join(weights) or 'no leg'} has one; add it")
    _check_weights({leg: weights[leg] for leg in legs})
    return [(weights[leg], scores) for leg, scores in legs.items() if scores and weights[leg] > 0]


def _floor(scores: Scores, missing: str) -> float:
    return min(scores.values()) if missing == "min" else 0.0


def _sum(legs: Mapping[str, Scores], weights: Mapping[str, float] | None, missing: str) -> Ranking:
    import numpy as np  # here: the command line names the methods without it

    active = _active(legs, weights)
    found = list(dict.fromkeys(chain.from_iterable(scores for _, scores in active)))
    places = {doc_id: place for place, doc_id in enumerate(found)}
    columns = [_column(scores, weight, _floor(scores, missing), places) for weight, scores in active]
    sums = np.fromiter(map(math.fsum, zip(*columns, strict=True)), np.float64, len(found))
    return order_scores(found, sums)


def _column(scores: Scores, weight: float, floor: float, places: Mapping[str, int]) -> list[float]:
    """Return weight x score of each document, by its place; one that the leg did not find has the score `floor`."""
    column = [weight * floor] * len(places)
    for doc_id, score in scores.items():
        column[places[doc_id]] = weight * score
    return column


def _product(legs: Mapping[str, Scores], weights: Mapping[str, float] | None, missing: str) -> Ranking:
    active = [(weight, scores, _floor(scores, missing)) for weight, scores in _active(legs, weights)]
    found = dict.fromkeys(chain.from_iterable(scores for _, scores, _ in active))
    return order(
        # Sorted factors: a product of floats depends on their order, the result must not depend on that of the legs.
        ScoredDoc(doc_id, math.prod(sorted([scores.get(doc_id, floor) ** weight for weight, scores, floor in active])))
        for doc_id in found
    )


def reciprocal_rank_fusion(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float] | None = None, *, k: float = 60, rank_base: int = 1
) -> Ranking:
    """Sum weight / (k + rank) over the legs that found a document (Cormack et al. 2009).

    rank_base is the rank of the first hit: 1 in the paper; Haystack, LlamaIndex and Qdrant count from 0.

    >>> [hit.doc_id for hit in reciprocal_rank_fusion({"x": [ScoredDoc("a", 9.0), ScoredDoc("b", 8.0)]})]
    ['a', 'b']
    """
    _check_ranks(k, rank_base)
    return _sum({leg: _reciprocal_ranks(ranking, k, rank_base) for leg, ranking in rankings.items()}, weights, "zero")


def weighted_sum(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float] | None = None,
    *,
    normalisation: str = "min-max",
    missing: str = "zero",
) -> Ranking:
    """Sum weight x normalised score over the legs (CombSUM of Fox & Shaw 1994; convex in Bruch et al., 2210.11934).

    A document that a leg did not find gets 0 from it ("zero") or that leg's lowest normalised score ("min").
    """
    _check("missing", missing, MISSING)
    return _sum({leg: normalise(ranking, normalisation) for leg, ranking in rankings.items()}, weights, missing)


def product(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float] | None = None, *, missing: str = "min"
) -> Ranking:
    """Multiply the scores of the legs, each to the power of its weight (LEDR of LaPraDoR, Xu et al. 2022).

    Scores are divided by the leg's highest, which does not change the order, after being moved up so that none is below
    0, which keeps the order within the leg. A document that a leg did not find gets that leg's lowest score ("min"), or
    0 ("zero"): the whole product is then 0, so only documents that every leg found are ranked by it.
    """
    _check("missing", missing, MISSING)
    return _product({leg: _apply(non_negative, ranking) for leg, ranking in rankings.items()}, weights, missing)


@dataclass(frozen=True)
class FusionConfig:
    """How to fuse the legs of one search; a leg without a weight is left out.

    method: "weighted-sum" (Fox & Shaw 1994), "rrf" (Cormack et al. 2009) or "product" (LEDR, Xu et al. 2022).
    `normalisation` is read by "weighted-sum", `missing` by "weighted-sum" and "product", k and rank_base by "rrf".

    Raises:
        UserError: a setting that does not exist, or weights that are negative or all 0.
    """

    method: str = "weighted-sum"
    weights: Mapping[str, float] = field(default_factory=default_weights)
    normalisation: str = "min-max"
    missing: str = "zero"
    k: float = 60
    rank_base: int = 1

    def __post_init__(self) -> None:
        _check("fusion method", self.method, METHODS)
        _check("normalisation", self.normalisation, NORMALISATIONS)
        _check("missing", self.missing, MISSING)
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise UserError(f"weights: found {self.weights!r}, need a number for each of {', '.join(LEGS)}; give them")
        for leg in self.weights:
            _check("leg", leg, LEGS)
        _check_weights(self.weights)
        _check_ranks(self.k, self.rank_base)


class Fused:
    """A fused ranking, and what each leg's score of each document became before it was weighted.

    normalised: computed when it is first looked at: most rankings are only ranked.
    """

    def __init__(self, ranking: Ranking, normalise: Callable[[], Mapping[str, Scores]]) -> None:
        self.ranking, self._normalise = ranking, normalise

    @cached_property
    def normalised(self) -> Mapping[str, Scores]:
        """Return for each leg the normalised score of each document that it found."""
        return self._normalise()


class Method(NamedTuple):
    """A way to fuse: what it makes of the scores of one leg before it weighs them, and how it puts these together."""

    score: Callable[[Ranking, FusionConfig], Scores]
    join: Callable[[Mapping[str, Scores], Mapping[str, float], FusionConfig], Ranking]


METHODS: dict[str, Method] = {
    "rrf": Method(
        lambda ranking, config: _reciprocal_ranks(ranking, config.k, config.rank_base),
        lambda legs, weights, _: _sum(legs, weights, "zero"),
    ),
    "weighted-sum": Method(
        lambda ranking, config: normalise(ranking, config.normalisation),
        lambda legs, weights, config: _sum(legs, weights, config.missing),
    ),
    "product": Method(
        lambda ranking, _: _apply(non_negative, ranking),
        lambda legs, weights, config: _product(legs, weights, config.missing),
    ),
}


def fuse(rankings: Mapping[str, Ranking], config: FusionConfig | None = None) -> Fused:
    """Fuse the rankings of legs, by name, as `config` says; a leg that it gives no weight adds nothing.

    rankings: of one query, each as a leg gives it, highest score first.

    Raises:
        UserError: a leg that does not exist.
        ValueError: a ranking with a document twice or a score that is not finite.
    """
    chosen = config or FusionConfig()
    for leg in rankings:
        _check("leg", leg, LEGS)
    method = METHODS[chosen.method]
    weights = {leg: chosen.weights.get(leg, 0.0) for leg in rankings}
    scores = {leg: method.score(ranking, chosen) for leg, ranking in rankings.items()}
    return Fused(method.join(scores, weights, chosen), lambda: scores)
