"""Modes of search by name: a leg, several legs joined by "+", or "hybrid", the legs that the fusion weighs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from retriever.names import HYBRID
from retriever.ranking import RowRanking
from retriever.search.fusion.fusion import Fused, FusionConfig, fuse
from retriever.search.leg import LEGS, views_of
from retriever.types import ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.types import Ranking

__all__ = ["CANDIDATES", "HYBRID", "MODES", "Plan", "legs_named", "reads_text_alone", "restricted"]

MODES = (HYBRID, *LEGS)
"""The modes that have a name of their own, with the legs that come with the package."""
CANDIDATES = 200
"""Hits of each leg that are fused: normalised scores depend on it, so it does not depend on `top_k`.
On NFCorpus dev, Cranfield and CISI 200 to 1,000 are within 0.003 nDCG@10 of each other, and each costs time."""


class Plan(NamedTuple):
    """How to answer in one mode: the legs to search, and how to fuse them."""

    legs: tuple[str, ...]
    fusion: FusionConfig

    def fuse(self, rankings: Mapping[str, Ranking], top_k: int | None = None) -> Fused:
        """Fuse the rankings of the plan's legs, among others; a leg alone keeps its ranking and its raw scores.

        top_k: how many of the fused ranking are looked at, all if it is not given.

        The first CANDIDATES of each leg decide; documents that stand deeper in all legs follow behind, step by step
        (see `depth`), so that the first ten of a thousand hits are the ten that are found alone.
        """
        if len(self.legs) == 1:
            [leg] = self.legs
            found = rankings[leg]
            values = {leg: found.scores} if isinstance(found, RowRanking) else None
            return Fused(found, lambda: {leg: dict(found)}, values)
        longest = max(len(rankings[leg]) for leg in self.legs)
        fused = self._fuse_first(rankings, CANDIDATES, top_k if longest <= CANDIDATES else None)
        depth = CANDIDATES
        while depth < longest:
            depth = _next_depth(depth)
            fused = _followed(fused, self._fuse_first(rankings, depth))
        return fused

    def _fuse_first(self, rankings: Mapping[str, Ranking], depth: int, top_k: int | None = None) -> Fused:
        return fuse({leg: rankings[leg][:depth] for leg in self.legs}, self._heard(rankings), top_k=top_k)

    def _heard(self, rankings: Mapping[str, Ranking]) -> FusionConfig:
        """Return the fusion with the weights of silent legs given to those that read a query's words as they are.

        A leg is silent where the encoder does not read the documents or the query. On XQuAD's Vietnamese part hybrid
        search has nDCG@10 .959 so, .949 with the weights as they are, and BM25 .955.
        """
        silent = [leg for leg in self.legs if not rankings[leg]]
        words = [leg for leg in self.legs if rankings[leg] and not LEGS[leg].views]
        if not (silent and words):
            return self.fusion
        weights = {leg: weight for leg, weight in self.fusion.weights.items() if leg not in silent}
        share = sum(self.fusion.weights[leg] for leg in silent) / len(words)
        return replace(self.fusion, weights=weights | {leg: weights[leg] + share for leg in words})

    def depth(self, top_k: int) -> int:
        """Return how many hits of each leg decide the first `top_k`: of one leg so many, of several a fixed step.

        Scores are normalised over the hits of a leg, so a depth that grew hit by hit would order page 30 by others than
        page 31, and the pages of one search would not fit together.
        """
        if len(self.legs) == 1:
            return top_k
        depth = CANDIDATES
        while depth < top_k:
            depth = _next_depth(depth)
        return depth


def _next_depth(depth: int) -> int:
    return 1_000 if depth == CANDIDATES else 10 * depth


def _followed(head: Fused, whole: Fused) -> Fused:
    """Return the ranking `head`, and behind it what `whole` has besides, with scores that go on below."""

    def normalised() -> Mapping[str, dict[str, float]]:
        placed = {hit.doc_id for hit in head.ranking}
        deeper = {hit.doc_id for hit in whole.ranking} - placed
        return {
            leg: head.normalised[leg] | {doc_id: scores[doc_id] for doc_id in scores.keys() & deeper}
            for leg, scores in whole.normalised.items()
        }

    return Fused(_joined(head.ranking, whole.ranking), normalised)


def _joined(head: Ranking, whole: Ranking) -> Ranking:
    if isinstance(head, RowRanking) and isinstance(whole, RowRanking):
        import numpy as np  # here: the command line names the modes without it

        new = np.isin(whole.rows, head.rows, invert=True)
        rows, scores = whole.rows[new], whole.scores[new]
        if len(rows):
            scores = math.nextafter(head.scores[-1], -math.inf) + (scores - scores[0])
        return RowRanking(np.concatenate([head.rows, rows]), np.concatenate([head.scores, scores]), head.ids)
    placed = {hit.doc_id for hit in head}
    behind = [hit for hit in whole if hit.doc_id not in placed]
    if not behind:
        return [*head]
    top, floor = behind[0].score, math.nextafter(head[-1].score, -math.inf)
    return [*head, *(ScoredDoc(hit.doc_id, floor + (hit.score - top)) for hit in behind)]


def legs_named(mode: str) -> tuple[str, ...]:
    """Return the legs that a mode names, in one order whatever theirs; none for "hybrid".

    >>> legs_named("dense+bm25")
    ('bm25', 'dense')
    """
    if mode == HYBRID:
        return ()
    names = [name.strip() for name in mode.split("+")] if isinstance(mode, str) else [""]
    if len(set(names)) < len(names) or not set(names) <= set(LEGS):
        known = ", ".join((HYBRID, *LEGS))
        raise UserError(f"mode {mode!r} is unknown; choose one of {known}, or join different legs as in dense+sparse")
    return tuple(leg for leg in LEGS if leg in names)


def reads_text_alone(mode: str) -> bool:
    """Say whether no leg of a mode reads a view of the query: it is then the same with every encoder.

    >>> reads_text_alone("bm25"), reads_text_alone("bm25+dense"), reads_text_alone("hybrid")
    (True, False, False)
    """
    legs = mode.partition(">")[0].strip()  # of a pipeline
    return legs not in (HYBRID, "") and not views_of(legs_named(legs))


def restricted(fusion: FusionConfig, legs: Sequence[str]) -> FusionConfig:
    """Return the fusion of these legs alone, with their weights scaled to sum to 1.

    Raises:
        UserError: the fusion gives one of them no weight.
    """
    for leg in legs:
        if not fusion.weights.get(leg):
            raise UserError(
                f"mode {'+'.join(legs)}: the fusion gives {leg} no weight; give it one above 0, or leave the leg out"
            )
    total = sum(fusion.weights[leg] for leg in legs)
    return replace(fusion, weights={leg: fusion.weights[leg] / total for leg in legs})
