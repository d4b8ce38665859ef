"""How experts are used and what they have to do with what: functions of counts and choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

__all__ = ["choice_counts", "entropy", "expert_load", "pointwise_mutual_information", "together"]


def choice_counts(rows: Ints, expert_ids: Ints, height: int, routed: int) -> Ints:
    """Return how often each of `height` things, one a token in `rows` (n,), went to each expert: (height, routed)."""
    flat = rows[:, None] * routed + expert_ids  # (n, active)
    return np.bincount(flat.ravel(), minlength=height * routed).reshape(height, routed)


def expert_load(expert_ids: Ints, routed: int) -> Floats:
    """Return each expert's share (routed,) of the choices (n, active)."""
    return np.bincount(expert_ids.ravel(), minlength=routed) / expert_ids.size


def entropy(shares: Floats) -> Floats:
    """Return the entropy in bits over the last axis of shares that sum to 1.

    >>> float(entropy(np.array([0.5, 0.25, 0.25, 0.0])))
    1.5
    """
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    found: Floats = -(shares * logs).sum(-1) + 0.0  # no -0.0
    return found


def pointwise_mutual_information(counts: Ints) -> Floats:
    """Return log2(p(x, y) / (p(x) p(y))) of a table of counts (x, y), -inf where a count is 0."""
    total = counts.sum()
    expected = counts.sum(1, keepdims=True) * (counts.sum(0, keepdims=True) / total)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.log2(counts / expected)
    found[counts == 0] = -np.inf
    return found


def together(counts: Ints) -> list[tuple[int, ...]]:
    """Return the experts of a table of counts (token, expert) in groups that got the same tokens; unused ones alone."""
    groups: dict[bytes, list[int]] = {}
    for expert in range(counts.shape[1]):
        column = np.ascontiguousarray(counts[:, expert])
        groups.setdefault(column.tobytes() if column.any() else str(expert).encode(), []).append(expert)
    return [tuple(group) for group in groups.values()]
