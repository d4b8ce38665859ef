"""Fusion weights and normalisation fitted to judgements, and what they are worth on queries not used to fit them.

The legs are searched once; every candidate then fuses the same rankings. The search over candidates computes nDCG@10
itself, in bulk; the figures that are reported come from `fuse` and from trec_eval.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.evaluator import evaluate_run
from retriever.eval.significance import Interval, bootstrap_interval, paired_differences
from retriever.ranking import separate_ties, without_self
from retriever.search.fusion.fusion import NORMALISATIONS, FusionConfig, fuse, normalise
from retriever.search.modes import CANDIDATES
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from retriever.search.retriever import Retriever
    from retriever.types import Qrels, Query, Ranking, Run

__all__ = ["Tuning", "candidates", "fused_values", "leg_runs", "ndcg_of_candidates", "tune"]

MEASURE = "nDCG@10"
DEPTH = 10
STEPS = 20  # weights are multiples of 1/20
FOLDS = 5


class Tuning(NamedTuple):
    """What tuning found; every figure is a mean nDCG@10 over the judged queries.

    fusion: the candidate that is best on all queries. fitted: its value on these same queries, which flatters it.
    default: the default fusion's value. cross_validated: the value where each query is fused by the candidate that is
    best on the other folds. gain: cross_validated - default; interval: of the gain, at 95 %. validated: each query's
    value in `cross_validated`.
    """

    fusion: FusionConfig
    queries: int
    default: float
    cross_validated: float
    gain: float
    interval: Interval
    fitted: float
    validated: dict[str, float]


def leg_runs(retriever: Retriever, queries: Sequence[Query], *, exclude_self: bool = False) -> dict[str, Run]:
    """Return the run of each leg of an index, without hits that are the query itself if these are excluded.

    Raises UserError for an index of one leg.
    """
    if len(retriever.legs) < 2:
        raise UserError(f"{retriever.reader.path}: only {retriever.legs[0]} to fuse; build the index with an encoder")
    # As deep as in hybrid search: normalised scores depend on it.
    depth = CANDIDATES + exclude_self
    return {
        leg: {
            query_id: without_self(ranking, query_id, exclude=exclude_self)
            for query_id, ranking in retriever.rank(queries, depth, mode=leg)
        }
        for leg in retriever.legs
    }


def tune(runs: Mapping[str, Run], qrels: Qrels, seed: int = 0) -> Tuning:
    """Fit a weighted sum of the legs' `runs` to `qrels`, and cross-validate it in 5 folds drawn by `seed`.

    Among equals the candidate nearest to the default fusion is taken. Raises UserError for less than 5 judged queries.
    """
    query_ids = [query_id for query_id, grades in qrels.items() if grades]
    if len(query_ids) < FOLDS:
        raise UserError(f"found {len(query_ids)} judged queries, need {FOLDS} or more to cross-validate; judge more")
    rankings = {query_id: {leg: run.get(query_id, []) for leg, run in runs.items()} for query_id in query_ids}
    fusions = candidates(list(runs))
    values = np.array([ndcg_of_candidates(rankings[query_id], qrels[query_id], fusions) for query_id in query_ids])
    fold = np.random.default_rng(seed).permutation(len(query_ids)) % FOLDS
    best = [_best(values[fold != left_out]) for left_out in range(FOLDS)]
    fitted = fusions[_best(values)]

    def measured(chosen: Sequence[FusionConfig]) -> list[float]:
        return list(fused_values(runs, qrels, dict(zip(query_ids, chosen, strict=True))).values())

    default = measured([FusionConfig()] * len(query_ids))
    validated = measured([fusions[best[left_out]] for left_out in fold])
    differences = paired_differences(validated, default)
    return Tuning(
        fusion=fitted,
        queries=len(query_ids),
        default=float(np.mean(default)),
        cross_validated=float(np.mean(validated)),
        gain=float(differences.mean()),
        interval=bootstrap_interval(differences),
        fitted=float(np.mean(measured([fitted] * len(query_ids)))),
        validated=dict(zip(query_ids, validated, strict=True)),
    )


def fused_values(runs: Mapping[str, Run], qrels: Qrels, fusions: Mapping[str, FusionConfig]) -> dict[str, float]:
    """Return each query's nDCG@10 where it is fused by its own fusion. runs: of each leg. fusions: by query_id."""
    run = {
        query_id: separate_ties(
            fuse({leg: found.get(query_id, []) for leg, found in runs.items()}, fusion).ranking[:DEPTH]
        )
        for query_id, fusion in fusions.items()
    }
    judged = {query_id: qrels[query_id] for query_id in run}
    values = evaluate_run(run, judged, measures=[MEASURE]).per_query
    return {query_id: values[query_id][MEASURE] for query_id in run}


def candidates(legs: Sequence[str]) -> list[FusionConfig]:
    """Return the fusions to choose from: weights in steps of 0.05 that sum to 1, each with every normalisation.

    Those with the default normalisation come first, and of these the ones nearest to the default weights.
    """
    default = FusionConfig()
    given = {leg: default.weights.get(leg, 0.0) for leg in legs}
    total = sum(given.values()) or 1.0
    shares = [steps for steps in itertools.product(range(STEPS + 1), repeat=len(legs)) if sum(steps) == STEPS]
    weights = [{leg: step / STEPS for leg, step in zip(legs, steps, strict=True)} for steps in shares]
    weights.sort(key=lambda one: sum((one[leg] - given[leg] / total) ** 2 for leg in legs))
    names = sorted(NORMALISATIONS, key=lambda name: name != default.normalisation)
    return [FusionConfig(weights=one, normalisation=name) for name in names for one in weights]


def ndcg_of_candidates(
    rankings: Mapping[str, Ranking], grades: Mapping[str, int], fusions: Sequence[FusionConfig]
) -> NDArray[np.float64]:
    """Return one query's nDCG@10 under each fusion, shape (fusions,), for weighted sums of the same legs.

    A relevant document's rank is one more than the number of documents with a higher score, or the same and a lower id.
    """
    doc_ids = sorted({hit.doc_id for ranking in rankings.values() for hit in ranking})
    relevant = [(place, grades[doc_id]) for place, doc_id in enumerate(doc_ids) if grades.get(doc_id, 0) > 0]
    values = np.zeros(len(fusions))
    if not relevant:
        return values
    hits = [{hit.doc_id for hit in ranking} for ranking in rankings.values()]
    found = np.array([[doc_id in leg for doc_id in doc_ids] for leg in hits])  # (legs, documents)
    for name in {fusion.normalisation for fusion in fusions}:
        chosen = np.array([i for i, fusion in enumerate(fusions) if fusion.normalisation == name])
        weights = np.array([[fusions[i].weights[leg] for leg in rankings] for i in chosen])  # (chosen, legs)
        normalised = [normalise(ranking, name) for ranking in rankings.values()]
        scores = np.array([[leg.get(doc_id, 0.0) for doc_id in doc_ids] for leg in normalised])  # (legs, documents)
        # A leg of weight 0 adds no documents. Equals stay equal only when rounded: a product may sum in any order.
        fused = np.where((weights > 0) @ found, np.round(weights @ scores, 12), -np.inf)  # (chosen, documents)
        for place, grade in relevant:
            own = fused[:, [place]]
            before = np.count_nonzero(fused > own, axis=1) + np.count_nonzero(fused[:, :place] == own, axis=1)
            counts = (before < DEPTH) & np.isfinite(own[:, 0])
            values[chosen] += np.where(counts, grade / np.log2(before + 2), 0.0)
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:DEPTH]
    values /= sum(grade / np.log2(rank + 1) for rank, grade in enumerate(ideal, start=1))
    return values


def _best(values: NDArray[np.float64]) -> int:
    """Return the column with the highest mean, the first of equals; values: (queries, candidates)."""
    return int(np.argmax(np.round(values.mean(axis=0), 12)))
