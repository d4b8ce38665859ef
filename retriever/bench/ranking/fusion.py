"""Ways to fuse the legs, compared on judged queries: sums, reciprocal ranks, the product of LEDR, learned models."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from retriever.bench.ranking.compared import compare_on_sets
from retriever.experiments.learning import cross_validated, judged_lists
from retriever.experiments.tuning import fused_values, leg_runs, tune
from retriever.rank.pipeline import Pipeline
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.leg import default_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retriever.eval.data.dataset import Dataset
    from retriever.eval.significance import Interval
    from retriever.search.retriever import Retriever

__all__ = ["DEFAULT", "FUSIONS", "FusionRow", "compare_fusions", "fusion_values"]

DEFAULT = "weighted sum, min-max"
EQUAL = dict.fromkeys(default_weights(), 1.0)
FUSIONS: dict[str, FusionConfig] = {
    DEFAULT: FusionConfig(),
    "weighted sum, min-max, missing as the lowest": FusionConfig(missing="min"),
    "weighted sum, z-score, missing as the lowest": FusionConfig(normalisation="z-score", missing="min"),
    "equal sum, min-max": FusionConfig(weights=EQUAL),
    "RRF, k 60, equal": FusionConfig("rrf", EQUAL),
    "RRF, k 60, weighted": FusionConfig("rrf"),
    "RRF, k 10, weighted": FusionConfig("rrf", k=10),
    "product (LEDR), equal": FusionConfig("product", EQUAL, missing="min"),
    "product (LEDR), weighted": FusionConfig("product", missing="min"),
    "product (LEDR), weighted, missing as 0": FusionConfig("product"),
}
"""Fusions that learn nothing. Weights that differ are the default ones: of NFCorpus dev, Cranfield and CISI."""
MODELS = {"logistic regression, learned": "logistic", "LambdaMART, learned": "lambdamart"}
TUNED = "weights and normalisation, learned"


class FusionRow(NamedTuple):
    """One way to fuse: its nDCG@10 on each data set and on their mean, and the difference to the default one.

    What is learned is cross-validated within each data set, in 5 folds. interval: of the difference, at 95 %.
    """

    fusion: str
    values: tuple[float, ...]
    mean: float
    difference: float
    interval: Interval


def fusion_values(retriever: Retriever, data: Dataset) -> dict[str, dict[str, float]]:
    """Return for each way to fuse the nDCG@10 of each judged query.

    Raises:
        UserError: less than 5 judged queries, an index of one leg, or LightGBM is not installed.
    """
    runs = leg_runs(retriever, data.queries, exclude_self=data.exclude_self)
    judged = {query_id: grades for query_id, grades in data.qrels.items() if grades}
    found = {name: fused_values(runs, judged, dict.fromkeys(judged, fusion)) for name, fusion in FUSIONS.items()}
    found[TUNED] = tune(runs, judged).validated
    pipeline = Pipeline("+".join(runs))
    names, lists = judged_lists(retriever, data, pipeline)
    for name, kind in MODELS.items():
        found[name] = cross_validated(data, lists, names, pipeline, kind=kind)
    return found


def compare_fusions(found: Sequence[Mapping[str, Mapping[str, float]]]) -> list[FusionRow]:
    """Return the table of all ways, best mean first; found: of each data set, as `fusion_values` gives it."""
    rows = [FusionRow(name, *row) for name, row in compare_on_sets(found, DEFAULT).items()]
    return sorted(rows, key=lambda row: -row.mean)
