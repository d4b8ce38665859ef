"""Pseudo-relevance feedback on analysed words, as Anserini does it: RM3 and Rocchio.

The formulas, defaults and limits are those of Anserini's `Rm3Reranker` and `RocchioReranker`, so that the rankings are.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FeedbackText", "Weights", "rm3", "rocchio", "usable"]

Weights: TypeAlias = "dict[str, float]"
PLAIN = re.compile("[a-z0-9]+")
SHORTEST, LONGEST = 2, 20
"""Characters of a term that feedback takes up."""
MOST_FREQUENT = 0.1
"""The share of all texts that hold a term beyond which it says nothing: stands in for a list of stop words."""
SMALLEST_NORM = 0.001
"""A text of which hardly anything is usable says nothing."""


class FeedbackText(NamedTuple):
    """A text that counts as relevant: how often each usable term stands in it, and the score of its document."""

    counts: Mapping[str, float]
    score: float


def usable(counts: Mapping[str, int], frequencies: Mapping[str, int], texts: int, *, plain: bool) -> Weights:
    """Return the terms that feedback may take up.

    frequencies: in how many of the collection's `texts` each term stands. plain: only terms of letters a to z and
    digits, which RM3 wants and Rocchio does not.
    """
    return {
        term: float(count)
        for term, count in counts.items()
        if SHORTEST <= len(term) <= LONGEST
        and frequencies[term] / texts <= MOST_FREQUENT
        and (not plain or PLAIN.fullmatch(term))
    }


def rm3(query: Mapping[str, float], texts: Sequence[FeedbackText], terms: int = 10, weight: float = 0.5) -> Weights:
    """Return (1 - weight) * P(w | query) + weight * P(w | feedback) (Abdul-Jaleel et al., TREC 2004).

    P(w | feedback) is the sum over the texts of P(w | text) * score, of the `terms` strongest of each and of all.
    """
    relevance: Weights = {}
    for text in texts:
        counts = _strongest(text.counts, terms)
        norm = sum(counts.values())
        if norm > SMALLEST_NORM:
            for term, count in counts.items():
                relevance[term] = relevance.get(term, 0.0) + count / norm * text.score
    return _sum(_unit_l1(query), 1 - weight, _unit_l1(_strongest(relevance, terms)), weight)


def rocchio(
    query: Mapping[str, float], texts: Sequence[FeedbackText], terms: int = 10, weight: float = 0.75
) -> Weights:
    """Return query + weight * mean of the texts, of its `terms` strongest, all of unit length (Rocchio, 1971)."""
    mean: Weights = {}
    for text in texts:
        norm = _l2(text.counts)
        if norm > SMALLEST_NORM:
            for term, count in text.counts.items():
                mean[term] = mean.get(term, 0.0) + count / norm / len(texts)
    return _sum(_unit_l2(query), 1.0, _unit_l2(_strongest(mean, terms)), weight)


def _strongest(weights: Mapping[str, float], count: int) -> Weights:
    """Return the highest weights, of equal ones the first by name."""
    best = sorted(weights, key=lambda term: (-weights[term], term))[:count]
    return {term: weights[term] for term in best}


def _sum(one: Mapping[str, float], share: float, other: Mapping[str, float], other_share: float) -> Weights:
    total = {term: share * one.get(term, 0.0) + other_share * other.get(term, 0.0) for term in {**one, **other}}
    return {term: weight for term, weight in total.items() if weight > 0}


def _l2(weights: Mapping[str, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in weights.values()))


def _unit_l1(weights: Mapping[str, float]) -> Weights:
    norm = sum(weights.values())
    return {term: weight / norm for term, weight in weights.items()} if norm else {}


def _unit_l2(weights: Mapping[str, float]) -> Weights:
    norm = _l2(weights)
    return {term: weight / norm for term, weight in weights.items()} if norm else {}
