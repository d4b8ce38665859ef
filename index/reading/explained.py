"""Why a document was found by words: what each of them adds to its score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.types import TermMatch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["explained"]


def explained(weights: Mapping[str, float], scores: Mapping[str, float]) -> list[TermMatch]:
    """Return the words of a query that a document holds, the strongest first; the contributions add up to its score.

    weights: of the query's words. scores: what each adds to BM25 by itself, where it stands once in the query.
    """
    matches = [
        TermMatch("bm25", word, float(weight), scores[word], weight * scores[word])
        for word, weight in weights.items()
        if scores[word] > 0
    ]
    return sorted(matches, key=lambda match: (-match.contribution, match.term))
