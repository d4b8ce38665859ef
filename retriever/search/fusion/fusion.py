"""Fusion of rankings: reciprocal rank fusion, weighted sums of normalised scores, products of scores.

A leg that is empty or whose weight is zero adds nothing, not even documents. Sums are exact (`math.fsum`), so the
result does not depend on the order of the legs, and documents that are equal in every leg tie exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retriever.ranking import RowRanking, order_scores
from retriever.search.fusion.normalisation import NORMALISATIONS, non_negative
from retriever.search.leg import LEGS, default_weights
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

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
Values: TypeAlias = "NDArray[np.float64]"
"""What one leg gives the documents that it found, in its order, (n,)."""
ROUNDING = 1e-12
"""How far a plain sum of a leg's values each is from the exact one at most, as a share of the largest magnitudes."""


def normalise(ranking: Ranking, normalisation: str = "min-max") -> Scores:
    """Return the normalised score of each document; an empty ranking gives an empty dict."""
    _check("normalisation", normalisation, NORMALISATIONS)
    values = _apply(NORMALISATIONS[normalisation], _raw(ranking))
    return {hit.doc_id: value for hit, value in zip(ranking, values.tolist(), strict=True)}


def _apply(function: Callable[[Values], Values], scores: Values) -> Values:
    return function(scores) if len(scores) else scores


def _reciprocal_ranks(scores: Values, k: float, rank_base: int) -> Values:
    import numpy as np  # here: the command line names the methods without it

    return np.reciprocal(k + np.arange(rank_base, rank_base + len(scores), dtype=np.float64))


def _raw(ranking: Ranking) -> Values:
    """Return the scores in the order of the ranking; raise ValueError for what cannot be fused."""
    import numpy as np

    if isinstance(ranking, RowRanking):
        scores = ranking.scores
    else:
        scores = np.array([hit.score for hit in ranking], np.float64)
        if len({hit.doc_id for hit in ranking}) < len(scores):
            raise ValueError("a document stands twice in one ranking, need each once")
    if not np.isfinite(scores).all():
        doc_id, score = next(hit for hit in ranking if not math.isfinite(hit.score))
        raise ValueError(f"the score of {doc_id!r} is {score}, need a finite number")
    return scores


class _Leg(NamedTuple):
    """What a leg found, and what its hits became before they were weighted, in its order."""

    ranking: Ranking
    values: Values


class _Found(NamedTuple):
    """The documents that some legs found, each at a place.

    places: of each leg's, int64, in its order. total: how many there are. ranked: makes a ranking of some places and
    their scores.
    """

    places: list[NDArray[np.int64]]
    total: int
    ranked: Callable[[NDArray[np.int64], Values], Ranking]

    def column(self, places: NDArray[np.int64], values: Values, floor: float) -> Values:
        """Return a value for each document, of which a leg gives some."""
        import numpy as np

        column = np.full(self.total, floor)
        column[places] = values
        return column


def _together(rankings: Sequence[Ranking]) -> _Found:
    """Give every document a place: by its row, where all of the rankings are of rows of one index, else by its id."""
    import numpy as np

    of_rows = [ranking for ranking in rankings if isinstance(ranking, RowRanking)]
    if of_rows and len(of_rows) == len(rankings) and all(one.ids == of_rows[0].ids for one in of_rows):
        rows, places = np.unique(np.concatenate([ranking.rows for ranking in of_rows]), return_inverse=True)
        split = np.split(places, np.cumsum([len(ranking) for ranking in of_rows[:-1]]))
        ids = of_rows[0].ids
        return _Found(split, len(rows), lambda chosen, scores: RowRanking.ordered(rows[chosen], scores, ids))
    known: dict[str, int] = {}
    found = [[known.setdefault(hit.doc_id, len(known)) for hit in ranking] for ranking in rankings]
    names = [*known]
    return _Found(
        [np.array(own, np.int64) for own in found],
        len(known),
        lambda chosen, scores: order_scores([names[place] for place in chosen.tolist()], scores),
    )


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


def _active(legs: Mapping[str, _Leg], weights: Mapping[str, float] | None) -> list[tuple[float, _Leg]]:
    """Return weight and hits of each leg that takes part, after checking that every leg has a weight."""
    if weights is None:
        weights = dict.fromkeys(legs, 1.0)
    without = [leg for leg in legs if leg not in weights]
    if without:
        raise UserError(f"weights: leg {without[0]!r} has none, only {', '.join(weights) or 'no leg'} has one; add it")
    _check_weights({leg: weights[leg] for leg in legs})
    return [(weights[leg], found) for leg, found in legs.items() if len(found.values) and weights[leg] > 0]


def _sum(
    legs: Mapping[str, _Leg], weights: Mapping[str, float] | None, missing: str, top_k: int | None = None
) -> Ranking:
    """Add weight x value of each document; what a leg did not find has its floor. top_k: only so many are wanted."""
    import numpy as np

    active = _active(legs, weights)
    found = _together([leg.ranking for _, leg in active])
    columns = [
        found.column(places, weight * leg.values, weight * _floor(leg.values, missing))
        for places, (weight, leg) in zip(found.places, active, strict=True)
    ]
    chosen = np.arange(found.total)
    if top_k is not None and top_k < found.total:
        # Exact sums of those alone that may be among the best.
        sums = np.add.reduce(columns)
        error = ROUNDING * sum(np.abs(column).max() for column in columns)
        chosen = np.flatnonzero(sums >= np.partition(sums, -top_k)[-top_k] - error)
        columns = [column[chosen] for column in columns]
    parts = zip(*(column.tolist() for column in columns), strict=True)
    ranking = found.ranked(chosen, np.fromiter(map(math.fsum, parts), np.float64, len(chosen)))
    return ranking if top_k is None else ranking[:top_k]


def _floor(values: Values, missing: str) -> float:
    return float(values.min()) if missing == "min" else 0.0


def _product(legs: Mapping[str, _Leg], weights: Mapping[str, float] | None, missing: str) -> Ranking:
    import numpy as np

    active = _active(legs, weights)
    found = _together([leg.ranking for _, leg in active])
    columns = [
        found.column(
            places, np.array([value**weight for value in leg.values.tolist()]), _floor(leg.values, missing) ** weight
        ).tolist()
        for places, (weight, leg) in zip(found.places, active, strict=True)
    ]
    # Sorted factors: a product of floats depends on their order, the result must not depend on that of the legs.
    products = (math.prod(sorted(factors)) for factors in zip(*columns, strict=True))
    return found.ranked(np.arange(found.total), np.fromiter(products, np.float64, found.total))


def reciprocal_rank_fusion(
    rankings: Mapping[str, Ranking],
    weights: Mapping[str, float] | None = None,
    *,
    k: float = 60,
    rank_base: int = 1,
) -> Ranking:
    """Sum weight / (k + rank) over the legs that found a document (Cormack et al. 2009).

    rank_base is the rank of the first hit: 1 in the paper; Haystack, LlamaIndex and Qdrant count from 0.

    >>> from retriever.types import ScoredDoc
    >>> [hit.doc_id for hit in reciprocal_rank_fusion({"x": [ScoredDoc("a", 9.0), ScoredDoc("b", 8.0)]})]
    ['a', 'b']
    """
    _check_ranks(k, rank_base)
    return list(_sum(_legs(rankings, lambda scores: _reciprocal_ranks(scores, k, rank_base)), weights, "zero"))


def _legs(rankings: Mapping[str, Ranking], score: Callable[[Values], Values]) -> dict[str, _Leg]:
    return {leg: _Leg(ranking, score(_raw(ranking))) for leg, ranking in rankings.items()}


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
    _check("normalisation", normalisation, NORMALISATIONS)
    function = NORMALISATIONS[normalisation]
    return list(_sum(_legs(rankings, lambda scores: _apply(function, scores)), weights, missing))


def product(
    rankings: Mapping[str, Ranking], weights: Mapping[str, float] | None = None, *, missing: str = "min"
) -> Ranking:
    """Multiply the scores of the legs, each to the power of its weight (LEDR of LaPraDoR, Xu et al. 2022).

    Scores are divided by the leg's highest, which does not change the order, after being moved up so that none is below
    0, which keeps the order within the leg. A document that a leg did not find gets that leg's lowest score ("min"), or
    0 ("zero"): the whole product is then 0, so only documents that every leg found are ranked by it.
    """
    _check("missing", missing, MISSING)
    return list(_product(_legs(rankings, lambda scores: _apply(non_negative, scores)), weights, missing))


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

    values: of the first hits of each leg, in its order, where those alone were fused; else None. normalised: computed
    when it is first looked at: most rankings are only ranked.
    """

    def __init__(
        self,
        ranking: Ranking,
        normalise: Callable[[], Mapping[str, Scores]],
        values: Mapping[str, Values] | None = None,
    ) -> None:
        self.ranking, self._normalise, self.values = ranking, normalise, values

    @cached_property
    def normalised(self) -> Mapping[str, Scores]:
        """Return for each leg the normalised score of each document that it found."""
        return self._normalise()


class Method(NamedTuple):
    """A way to fuse: what it makes of the scores of one leg before it weighs them, and how it puts these together."""

    score: Callable[[Values, FusionConfig], Values]
    join: Callable[[Mapping[str, _Leg], Mapping[str, float], FusionConfig, int | None], Ranking]


METHODS: dict[str, Method] = {
    "rrf": Method(
        lambda scores, config: _reciprocal_ranks(scores, config.k, config.rank_base),
        lambda legs, weights, _, top_k: _sum(legs, weights, "zero", top_k),
    ),
    "weighted-sum": Method(
        lambda scores, config: _apply(NORMALISATIONS[config.normalisation], scores),
        lambda legs, weights, config, top_k: _sum(legs, weights, config.missing, top_k),
    ),
    "product": Method(
        lambda scores, _: _apply(non_negative, scores),
        lambda legs, weights, config, top_k: _product(legs, weights, config.missing)[:top_k],
    ),
}


def fuse(rankings: Mapping[str, Ranking], config: FusionConfig | None = None, *, top_k: int | None = None) -> Fused:
    """Fuse the rankings of legs, by name, as `config` says; a leg that it gives no weight adds nothing.

    rankings: of one query, each as a leg gives it, highest score first. top_k: return so many of the fused ranking.

    Raises:
        UserError: a leg that does not exist.
        ValueError: a ranking with a document twice or a score that is not finite.
    """
    chosen = config or FusionConfig()
    for leg in rankings:
        _check("leg", leg, LEGS)
    method = METHODS[chosen.method]
    weights = {leg: chosen.weights.get(leg, 0.0) for leg in rankings}
    legs = _legs(rankings, lambda scores: method.score(scores, chosen))

    def normalised() -> dict[str, Scores]:
        return {
            name: {hit.doc_id: value for hit, value in zip(leg.ranking, leg.values.tolist(), strict=True)}
            for name, leg in legs.items()
        }

    return Fused(
        method.join(legs, weights, chosen, top_k), normalised, {name: leg.values for name, leg in legs.items()}
    )
