"""Ways to rank on several judged sets: the mean of each, and its difference to the first, with an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.significance import Interval, bootstrap_interval_of_mean, paired_differences
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Compared", "compare_on_sets", "compared_cells"]


class Compared(NamedTuple):
    """A mean value on each set, the mean of these, its difference to the baseline's, and the interval of that at 95 %.

    Sets count the same; queries are drawn within each.
    """

    values: tuple[float, ...]
    mean: float
    difference: float
    interval: Interval


def compare_on_sets(found: Sequence[Mapping[str, Mapping[str, float]]], baseline: str) -> dict[str, Compared]:
    """Return each way compared with the baseline; found: of each set, the value of each query by each way.

    Raises:
        UserError: no set.
    """
    if not found:
        raise UserError("no data set to compare on; give an index and a data set")
    rows = {}
    for name in found[0]:
        differences = [
            paired_differences([values[name][query] for query in values[baseline]], list(values[baseline].values()))
            for values in found
        ]
        means = tuple(float(np.mean(list(values[name].values()))) for values in found)
        difference = float(np.mean([one.mean() for one in differences]))
        rows[name] = Compared(means, float(np.mean(means)), difference, bootstrap_interval_of_mean(differences))
    return rows


def compared_cells(row: Compared, *, is_baseline: bool) -> list[str]:
    """Return the cells of a table: the values, the mean, and the difference and interval of all but the baseline."""
    return [
        *(f"{value:.4f}" for value in row.values),
        f"{row.mean:.4f}",
        "" if is_baseline else f"{row.difference:+.4f}",
        "" if is_baseline else f"{row.interval.low:+.4f} to {row.interval.high:+.4f}",
    ]
