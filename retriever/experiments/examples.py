"""The queries that gain and lose most, with the first hits of both systems, to look at."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, TypeAlias

from retriever.eval.report.results import Example, ExampleHit
from retriever.index.places import open_reader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retriever.eval.data.dataset import Dataset
    from retriever.eval.evaluator import Evaluation
    from retriever.types import Run

__all__ = ["FirstHits", "choose_examples", "first_hits"]

HITS = 5
QUERIES_A_SIDE = 3
LONGEST_TITLE = 100

FirstHits: TypeAlias = "dict[str, list[str]]"
"""The ids of a system's first hits: query_id -> doc_ids."""


def first_hits(run: Run) -> FirstHits:
    """Return the ids of each query's first hits."""
    return {query_id: [hit.doc_id for hit in ranking[:HITS]] for query_id, ranking in run.items()}


def choose_examples(
    data: Dataset,
    evaluations: Mapping[str, Evaluation],
    hits: Mapping[str, FirstHits],
    baseline: str,
    index: Path | str,
) -> tuple[str, list[Example]]:
    """Return the best system besides the baseline, "" if there is none, and the queries where they differ most.

    By the first measure: the queries that gain most, then those that lose most, each from the largest difference on.
    """
    measure = next(iter(evaluations[baseline].mean))
    others = {name: evaluation.mean[measure] for name, evaluation in evaluations.items() if name != baseline}
    if not others:
        return "", []
    best = max(others, key=lambda name: others[name])
    texts = {query.query_id: query.text for query in data.queries}
    before, after = (
        {query_id: values[measure] for query_id, values in evaluations[name].per_query.items()}
        for name in (baseline, best)
    )
    ascending = sorted((after[query_id] - before[query_id], query_id) for query_id in before)
    chosen = [query_id for difference, query_id in reversed(ascending) if difference > 0][:QUERIES_A_SIDE]
    chosen += [query_id for difference, query_id in ascending if difference < 0][:QUERIES_A_SIDE]
    shown = {doc_id for name in (baseline, best) for query_id in chosen for doc_id in hits[name].get(query_id, ())}
    with closing(open_reader(index)) as reader:
        titles = {
            doc_id: _title(document.title or document.text) for doc_id, document in reader.documents(shown).items()
        }

    def found(name: str, query_id: str) -> list[ExampleHit]:
        grades = data.qrels[query_id]
        return [ExampleHit(doc_id, titles.get(doc_id, ""), grades.get(doc_id)) for doc_id in hits[name][query_id]]

    return best, [
        Example(
            query_id,
            texts[query_id],
            before[query_id],
            after[query_id],
            found(baseline, query_id),
            found(best, query_id),
        )
        for query_id in chosen
    ]


def _title(text: str) -> str:
    words = " ".join(text[: 4 * LONGEST_TITLE].split())
    return words if len(words) <= LONGEST_TITLE else f"{words[:LONGEST_TITLE].rsplit(' ', 1)[0]} …"
