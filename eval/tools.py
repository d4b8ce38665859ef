"""The tools of ir-measures, each given a run in the form that it reads right."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.eval.measures import DIVERSITY, FAILURES, JUDGED, provider_of
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ir_measures import Measure, Metric
    from ir_measures.providers import Provider

    from retriever.types import Qrels

    Scores = Mapping[str, dict[str, float]]

__all__ = ["SubtopicQrels", "ToolValues", "compute"]

SubtopicQrels = dict[str, dict[str, dict[str, int]]]
"""Judged grades by subtopic: query_id -> doc_id -> subtopic -> relevance."""
GDEVAL_HIGHEST = 4


class ToolValues(NamedTuple):
    """What one tool says: its name, its measures, and its value for each query of each measure."""

    tool: str
    measures: list[Measure]
    values: list[Metric]


def compute(
    measures: Sequence[Measure], qrels: Qrels, scores: Scores, subtopics: SubtopicQrels | None = None
) -> Iterator[ToolValues]:
    """Yield the values of all judged queries, tool by tool, in the order in which the measures name the tools.

    Raises:
        UserError: a measure of diversity without judgements by subtopic, or data that a tool cannot compute with.
    """
    by_tool: dict[str, tuple[Provider, list[Measure]]] = {}
    for measure in measures:
        tool = provider_of(measure)
        by_tool.setdefault(tool.NAME, (tool, []))[1].append(measure)
    for name, (tool, own) in by_tool.items():
        if name == DIVERSITY:
            rows = _subtopic_rows(own, subtopics)
            values = _values(tool, own, rows, {query_id: scores[query_id] for query_id in scores if query_id in qrels})
        else:
            values = READ_BY.get(name, _values)(tool, own, qrels, scores)
        yield ToolValues(name, own, values)


def _values(tool: Provider, measures: list[Measure], qrels: object, scores: Scores) -> list[Metric]:
    try:
        return list(tool.iter_calc(measures, qrels, scores))
    except (*FAILURES, subprocess.SubprocessError) as error:
        names, reason = ", ".join(map(str, measures)), " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{tool.NAME} cannot compute {names} of this run and these judgements ({reason}); leave it out"
        ) from None


def _trec_eval(tool: Provider, measures: list[Measure], qrels: Qrels, scores: Scores) -> list[Metric]:
    # trec_eval sizes a table by a query's highest grade and writes outside it, or crashes, where all are negative.
    # No document of such a query is relevant; with grades of 0 instead every value is what it would be.
    safe = {q: grades if max(grades.values()) >= 0 else dict.fromkeys(grades, 0) for q, grades in qrels.items()}
    return _values(tool, measures, safe, scores)


def _judged(tool: Provider, measures: list[Measure], qrels: Qrels, scores: Scores) -> list[Metric]:
    """Ask for the share of judged hits of the ranking that trec_eval sees."""
    return _values(tool, measures, qrels, {query_id: _negative_ranks(found) for query_id, found in scores.items()})


def _negative_ranks(scores: dict[str, float]) -> dict[str, float]:
    """Return scores without ties that order documents as trec_eval does: single precision, then descending ids."""
    single = dict(zip(scores, np.array(list(scores.values()), dtype=np.float32).tolist(), strict=True))
    order = sorted(single, key=lambda doc_id: (single[doc_id], doc_id), reverse=True)
    return {doc_id: -float(rank) for rank, doc_id in enumerate(order)}


def _gdeval(tool: Provider, measures: list[Measure], qrels: Qrels, scores: Scores) -> list[Metric]:
    """Number queries and documents: gdeval takes whole numbers alone for topics, and words for documents.

    The numbers of documents are in the order of their ids, by which gdeval parts ties.
    """
    highest = max(grade for grades in qrels.values() for grade in grades.values())
    if highest > GDEVAL_HIGHEST:
        raise UserError(
            f"gdeval, which computes {', '.join(map(str, measures))}, reads grades up to {GDEVAL_HIGHEST}, "
            f"found {highest}; leave the measure out, or map the grades"
        )
    ids = sorted({*(d for grades in qrels.values() for d in grades), *(d for found in scores.values() for d in found)})
    number = {doc_id: f"{place:010}" for place, doc_id in enumerate(ids)}
    topics = list(qrels)
    numbered = [
        {str(i): {number[d]: value for d, value in given[q].items()} for i, q in enumerate(topics, 1) if q in given}
        for given in (qrels, scores)
    ]
    if not numbered[1]:
        numbered[1] = {"0": {"0": 0.0}}  # gdeval cannot read an empty file
    found = _values(tool, measures, *numbered)
    return [value._replace(query_id=topics[int(value.query_id) - 1]) for value in found]


READ_BY: dict[str, Callable[[Provider, list[Measure], Qrels, Scores], list[Metric]]] = {
    "pytrec_eval": _trec_eval,
    JUDGED: _judged,
    "gdeval": _gdeval,
}
"""Tools that need more than a run and judgements as they are."""


def _subtopic_rows(measures: list[Measure], subtopics: SubtopicQrels | None) -> list[object]:
    import ir_measures

    rows: list[object] = [
        ir_measures.Qrel(query_id, doc_id, grade, subtopic)
        for query_id, documents in (subtopics or {}).items()
        for doc_id, grades in documents.items()
        for subtopic, grade in grades.items()
    ]
    if len({row.iteration for row in rows}) < 2:  # type: ignore[attr-defined]  # ir_measures has no types
        raise UserError(
            f"{', '.join(map(str, measures))} needs judgements by subtopic, found one subtopic alone; "
            "give TREC qrels (query subtopic document grade) with different subtopics in the second column"
        )
    return rows
