"""Systems compared with a baseline, query by query, on the same judgements."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.significance import (
    Interval,
    bootstrap_interval,
    effect_size,
    holm,
    paired_differences,
    paired_t_test,
    randomisation_test,
)
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.eval.evaluator import Evaluation

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """One run against the baseline in one measure; means and counts are over all judged queries.

    interval: of the difference of the means, at 95 %. Both p are two-sided and corrected by Holm over all comparisons
    made together. effect_size: Cohen's d of the differences. wins, losses: queries where the run is above, below.
    """

    run: str
    baseline: str
    measure: str
    mean: float
    baseline_mean: float
    difference: float
    interval: Interval
    p_t_test: float
    p_randomisation: float
    effect_size: float
    wins: int
    ties: int
    losses: int


def compare(evaluations: Mapping[str, Evaluation]) -> list[Comparison]:
    """Compare each evaluation with the first, measure by measure.

    Raises UserError for less than two evaluations, or for some that are not of the same queries and measures.
    """
    if len(evaluations) < 2:
        raise UserError(f"found {len(evaluations)} run to compare, need a baseline and at least one more; add one")
    baseline, first = next(iter(evaluations.items()))
    found = []
    for name, evaluation in islice(evaluations.items(), 1, None):
        if evaluation.per_query.keys() != first.per_query.keys() or evaluation.mean.keys() != first.mean.keys():
            raise UserError(
                f"{name} and {baseline} were not measured alike; evaluate both with the same qrels, measures"
            )
        found += [_compare(name, evaluation, baseline, first, measure) for measure in first.mean]
    found.sort(key=lambda comparison: list(first.mean).index(comparison.measure))
    t_tests = holm([comparison.p_t_test for comparison in found])
    randomisations = holm([comparison.p_randomisation for comparison in found])
    return [
        comparison._replace(p_t_test=t_test, p_randomisation=randomisation)
        for comparison, t_test, randomisation in zip(found, t_tests, randomisations, strict=True)
    ]


def _compare(run: str, evaluation: Evaluation, baseline: str, first: Evaluation, measure: str) -> Comparison:
    differences = paired_differences(
        [evaluation.per_query[query_id][measure] for query_id in first.per_query],
        [values[measure] for values in first.per_query.values()],
    )
    return Comparison(
        run=run,
        baseline=baseline,
        measure=measure,
        mean=evaluation.mean[measure],
        baseline_mean=first.mean[measure],
        difference=float(differences.mean()),
        interval=bootstrap_interval(differences),
        p_t_test=paired_t_test(differences),
        p_randomisation=randomisation_test(differences),
        effect_size=effect_size(differences),
        wins=int(np.count_nonzero(differences > 0)),
        ties=int(np.count_nonzero(differences == 0)),
        losses=int(np.count_nonzero(differences < 0)),
    )
