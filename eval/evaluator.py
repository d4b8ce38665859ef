"""Effectiveness of a run: trec_eval's numbers through ir-measures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.collector import collector_paused
from retriever.eval.measures import JUDGED, parse_measures
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.types import Qrels, Ranking, Run

__all__ = ["DEFAULT_MEASURES", "Evaluation", "evaluate_run"]

DEFAULT_MEASURES = ("nDCG@10", "R@100")


class Evaluation(NamedTuple):
    """What a run is worth on some judgements; measures are called by their ir-measures names.

    mean: measure -> mean over all judged queries.
    per_query: query_id -> measure -> value, for every judged query in the order of the qrels.
    queries_judged: how many queries have a judgement.
    queries_missing: how many of them have no hit in the run; each measure of theirs is 0.
    queries_ignored: how many queries of the run have no judgement and were left out.
    """

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]
    queries_judged: int
    queries_missing: int
    queries_ignored: int


@collector_paused()
def evaluate_run(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT_MEASURES) -> Evaluation:
    """Evaluate `run` with ir-measures' pytrec_eval provider, which is trec_eval's own code.

    The mean is over all judged queries (`trec_eval -c`): one without hits counts as 0.
    Scores are handed over as they are and trec_eval ranks by them: it holds them in single precision and puts tied
    documents in descending order of their ids, whatever their order in the run. That is the field's convention, so
    figures compare with those of other systems. Grades below 1 are not relevant and gain nothing.
    Judged@k, which trec_eval does not have, comes from ir-measures' own code, on the ranking that trec_eval sees.
    Raises UserError for an unknown measure, no judgements, a repeated document or a score that is not finite.
    """
    import ir_measures

    parsed = parse_measures(measures)
    judged = {query_id: _grades(grades) for query_id, grades in qrels.items() if grades}
    if not judged:
        raise UserError("no judged queries; give qrels that hold at least one judgement")
    scores = {query_id: _scores(query_id, run[query_id]) for query_id in judged if run.get(query_id)}
    per_query: dict[str, dict[str, float]] = {query_id: {} for query_id in judged}
    shares = [measure for measure in parsed if measure.NAME == JUDGED]
    others = [measure for measure in parsed if measure.NAME != JUDGED]
    if others:
        for value in ir_measures.pytrec_eval.iter_calc(others, judged, scores):
            per_query[value.query_id][str(value.measure)] = value.value
    if shares:
        ranks = {query_id: _negative_ranks(found) for query_id, found in scores.items()}
        for value in ir_measures.judged.iter_calc(shares, judged, ranks):
            per_query[value.query_id][str(value.measure)] = value.value
    names = [str(measure) for measure in parsed]
    per_query = {query_id: {name: values.get(name, 0.0) for name in names} for query_id, values in per_query.items()}
    return Evaluation(
        mean={name: math.fsum(values[name] for values in per_query.values()) / len(judged) for name in names},
        per_query=per_query,
        queries_judged=len(judged),
        queries_missing=len(judged) - len(scores),
        queries_ignored=len(run.keys() - judged.keys()),
    )


def _grades(grades: dict[str, int]) -> dict[str, int]:
    # trec_eval sizes a table by a query's highest grade and writes outside it, or crashes, where all are negative.
    # No document of such a query is relevant; with grades of 0 instead every value is what it would be.
    return grades if max(grades.values()) >= 0 else dict.fromkeys(grades, 0)


def _negative_ranks(scores: dict[str, float]) -> dict[str, float]:
    """Return scores without ties that order documents as trec_eval does: single precision, then descending ids."""
    single = dict(zip(scores, np.array(list(scores.values()), dtype=np.float32).tolist(), strict=True))
    order = sorted(single, key=lambda doc_id: (single[doc_id], doc_id), reverse=True)
    return {doc_id: -float(rank) for rank, doc_id in enumerate(order)}


def _scores(query_id: str, ranking: Ranking) -> dict[str, float]:
    scores = {hit.doc_id: float(hit.score) for hit in ranking}
    if len(scores) != len(ranking):
        raise UserError(f"query {query_id!r} of the run has a document twice; give each document once")
    if not all(map(math.isfinite, scores.values())):
        raise UserError(f"query {query_id!r} of the run has a score that is not a finite number; scores must be finite")
    return scores
