"""Effectiveness of a run: the numbers of trec_eval and of ir-measures' other tools."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from retriever.eval.collector import collector_paused
from retriever.eval.measures import parse_measures
from retriever.eval.tools import compute
from retriever.names import DEFAULT_MEASURES
from retriever.types import FrozenMapping, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ir_measures import Measure

    from retriever.eval.tools import SubtopicQrels
    from retriever.types import Qrels, Ranking, Run

__all__ = ["DEFAULT_MEASURES", "Evaluation", "evaluate_run", "others_than_trec_eval"]


class Evaluation(NamedTuple):
    """What a run is worth on some judgements; measures are called by their ir-measures names.

    mean: measure -> mean over all judged queries; the sum for counts (NumRet, NumRel, NumRelRet, NumQ).
    per_query: query_id -> measure -> value, for every judged query in the order of the qrels.
    queries_judged: how many queries have a judgement.
    queries_missing: how many of them have no hit in the run; each measure of theirs is 0.
    queries_ignored: how many queries of the run have no judgement and were left out.
    tools: measure -> the tool of ir-measures that computed it; "pytrec_eval" is trec_eval's own code.
    """

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]
    queries_judged: int
    queries_missing: int
    queries_ignored: int
    tools: Mapping[str, str] = FrozenMapping()


@collector_paused()
def evaluate_run(
    run: Run,
    qrels: Qrels,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    subtopics: SubtopicQrels | None = None,
) -> Evaluation:
    """Evaluate `run` with the tools of ir-measures; whatever trec_eval knows, its own code computes.

    The mean is over all judged queries (`trec_eval -c`): one without hits counts as 0. Accuracy alone, by its
    definition, leaves queries without a relevant hit out of its mean.
    Scores are handed over as they are and trec_eval ranks by them: it holds them in single precision and puts tied
    documents in descending order of their ids, whatever their order in the run. That is the field's convention, so
    figures compare with those of other systems. Grades below 1 are not relevant and gain nothing.
    Judged@k, which trec_eval does not have, comes from ir-measures' own code, on the ranking that trec_eval sees.
    Other tools part ties by rules of their own, as `ir_measures.calc_aggregate` does with them.
    subtopics: judgements by subtopic, for measures of diversity such as alpha_nDCG@20 (`read_judgements`).

    Raises:
        UserError: an unknown measure, no judgements, a repeated document or a score that is not finite.
    """
    parsed = parse_measures(measures)
    judged = {query_id: grades for query_id, grades in qrels.items() if grades}
    if not judged:
        raise UserError("no judged queries; give qrels that hold at least one judgement")
    scores = {query_id: _scores(query_id, run[query_id]) for query_id in judged if run.get(query_id)}
    found: dict[str, dict[str, float]] = {str(measure): {} for measure in parsed}
    tools: dict[str, str] = {}
    for tool in compute(parsed, judged, scores, subtopics):
        tools |= {str(measure): tool.tool for measure in tool.measures}
        for value in tool.values:
            found[str(value.measure)][value.query_id] = value.value
    per_query = {q: {name: values.get(q, 0.0) for name, values in found.items()} for q in judged}
    return Evaluation(
        mean={str(measure): _aggregate(measure, found[str(measure)], len(judged)) for measure in parsed},
        per_query=per_query,
        queries_judged=len(judged),
        queries_missing=len(judged) - len(scores),
        queries_ignored=len(run.keys() - judged.keys()),
        tools={name: tools[name] for name in found},
    )


def others_than_trec_eval(tools: Mapping[str, str]) -> str:
    """Return which measures another tool than trec_eval computed, as a sentence; "" for none.

    >>> others_than_trec_eval({"nDCG@10": "pytrec_eval", "RR@10": "msmarco"})
    'by other tools of ir-measures than trec_eval: RR@10 (msmarco)'
    """
    others = ", ".join(f"{measure} ({tool})" for measure, tool in tools.items() if tool != "pytrec_eval")
    return f"by other tools of ir-measures than trec_eval: {others}" if others else ""


def _aggregate(measure: Measure, values: dict[str, float], judged: int) -> float:
    """Return the sum for counts and the mean for all else."""
    total = math.fsum(values.values())
    if type(measure.aggregator()).__name__ == "SumAgg":
        return total
    return total / (len(values) or 1 if measure.NAME == "Accuracy" else judged)


def _scores(query_id: str, ranking: Ranking) -> dict[str, float]:
    scores = {hit.doc_id: float(hit.score) for hit in ranking}
    if len(scores) != len(ranking):
        raise UserError(f"query {query_id!r} of the run has a document twice; give each document once")
    if not all(map(math.isfinite, scores.values())):
        raise UserError(f"query {query_id!r} of the run has a score that is not a finite number; scores must be finite")
    return scores
