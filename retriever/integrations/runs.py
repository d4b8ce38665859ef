"""Runs and judgements in the forms of other tools: ranx (`pip install 'hybrid-retriever[ranx]'`) and ir-measures.

Both order documents by their scores alone, and each breaks ties in its own way: scores that tie are set apart by the
least that single precision can tell, so that a tool measures the order that our runs have.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from retriever.extras import extra
from retriever.ranking import order, separate_ties

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from retriever.types import Qrels, Run

__all__ = ["from_ir_measures", "from_ranx", "qrels_to_ir_measures", "qrels_to_ranx", "to_ir_measures", "to_ranx"]


def to_ranx(run: Run, name: str | None = None) -> Any:
    """Return a ranx.Run; a query without hits, which ranx cannot hold, is left out: compare with make_comparable."""
    with extra("ranx"):
        import ranx
    scores = {query_id: dict(separate_ties(ranking)) for query_id, ranking in run.items() if ranking}
    return ranx.Run(scores, name=name)


def from_ranx(run: Any) -> Run:
    """Return a ranx.Run as one of ours, in our order."""
    return {query_id: order(scores.items()) for query_id, scores in run.to_dict().items()}


def qrels_to_ranx(qrels: Qrels) -> Any:
    """Return judgements as ranx.Qrels; grades below 0, which ranx cannot hold, become 0."""
    with extra("ranx"):
        import ranx
    return ranx.Qrels({query_id: {d: max(g, 0) for d, g in grades.items()} for query_id, grades in qrels.items()})


def to_ir_measures(run: Run) -> Iterator[Any]:
    """Yield a run as ir_measures.ScoredDoc, one for each hit."""
    import ir_measures

    for query_id, ranking in run.items():
        for doc_id, score in separate_ties(ranking):
            yield ir_measures.ScoredDoc(query_id, doc_id, score)


def from_ir_measures(scored: Iterable[Any]) -> Run:
    """Return what ir_measures.read_trec_run yields as a run, in our order."""
    found: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for query_id, doc_id, score in scored:
        found[query_id].append((doc_id, score))
    return {query_id: order(pairs) for query_id, pairs in found.items()}


def qrels_to_ir_measures(qrels: Qrels) -> Iterator[Any]:
    """Yield judgements as ir_measures.Qrel."""
    import ir_measures

    for query_id, grades in qrels.items():
        for doc_id, grade in grades.items():
            yield ir_measures.Qrel(query_id, doc_id, grade)
