"""How much of what exact search finds an approximate one finds, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["exact_recall"]


def exact_recall(found: Iterable[Sequence[str]], exact: Iterable[Sequence[str]], depth: int) -> float:
    """Return the share of the first `depth` exact ids that are among the first `depth` found, the mean over queries.

    found, exact: ids, best first, for the same queries in the same order. Queries for which exact search finds nothing
    do not count; 1 if there are no others.

    >>> exact_recall([["a", "c"], ["d"], ["e"]], [["a", "b"], ["d"], []], depth=2)
    0.75
    """
    pairs = [(set(ids[:depth]), set(truth[:depth])) for ids, truth in zip(found, exact, strict=True) if truth]
    return sum(len(ids & truth) / len(truth) for ids, truth in pairs) / len(pairs) if pairs else 1.0
