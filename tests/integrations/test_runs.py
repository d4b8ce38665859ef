from __future__ import annotations

import io

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever import ScoredDoc, evaluate_run
from retriever.integrations.runs import (
    from_ir_measures,
    from_ranx,
    qrels_to_ir_measures,
    qrels_to_ranx,
    to_ir_measures,
    to_ranx,
)
from retriever.ranking import order, separate_ties
from retriever.types import Run

documents = st.sampled_from(["a", "b", "c", "d", "é", "10", "9"])
scores = st.sampled_from([0.0, 0.5, 0.5000001, 1.0, 3.0])
runs = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(documents, scores, min_size=1, max_size=6).map(lambda found: order(found.items())),
    min_size=1,
)
judgements = st.fixed_dictionaries(
    {query_id: st.dictionaries(documents, st.integers(0, 2), min_size=1) for query_id in ("q1", "q2", "q3")}
)


def ids(run: Run) -> dict[str, list[str]]:
    return {query_id: [hit.doc_id for hit in ranking] for query_id, ranking in run.items()}


@given(runs)
def test_runs_keep_their_order_there_and_back(run: Run) -> None:
    other = from_ir_measures(to_ir_measures(run))
    assert ids(other) == ids(run)
    for query_id, ranking in run.items():
        assert [hit.score for hit in other[query_id]] == pytest.approx([hit.score for hit in ranking], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(runs, judgements)
def test_the_tools_measure_what_we_measure(run: Run, qrels: dict[str, dict[str, int]]) -> None:
    shown = {query_id: separate_ties(ranking) for query_id, ranking in run.items()}
    ours = evaluate_run(shown, qrels, measures=["RR", "P@3"])
    measured = ir_measures.calc_aggregate(
        [ir_measures.RR, ir_measures.P @ 3], qrels_to_ir_measures(qrels), to_ir_measures(run)
    )
    assert {str(measure): value for measure, value in measured.items()} == pytest.approx(ours.mean)


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaWarning")
def test_ranx_measures_what_we_measure() -> None:
    import ranx  # takes a second; here, since every process of a parallel run reads this file

    run = {"q1": order([("a", 0.5), ("b", 0.5), ("c", 0.5)]), "q2": order([("b", 2.0), ("a", 1.0)])}
    qrels = {"q1": {"b": 1}, "q2": {"a": 1, "c": 0}}
    assert ids(from_ranx(to_ranx(run, "x"))) == ids(run)
    assert ids(from_ranx(to_ranx({**run, "q3": []}))) == ids(run), "ranx cannot hold a query without hits"
    assert qrels_to_ranx({"q1": {"a": -1, "b": 2}}).to_dict() == {"q1": {"a": 0, "b": 2}}
    measured = ranx.evaluate(qrels_to_ranx(qrels), to_ranx(run), ["mrr", "ndcg@3"])
    shown = {query_id: separate_ties(ranking) for query_id, ranking in run.items()}
    ours = evaluate_run(shown, qrels, measures=["RR", "nDCG@3"]).mean
    assert [measured["mrr"], measured["ndcg@3"]] == pytest.approx([ours["RR"], ours["nDCG@3"]])


def test_runs_of_files() -> None:
    read = ir_measures.read_trec_run(io.StringIO("q1 Q0 b 1 2.0 x\nq1 Q0 a 2 2.0 x\n"))  # type: ignore[no-untyped-call]
    assert from_ir_measures(read) == {"q1": [ScoredDoc("a", 2.0), ScoredDoc("b", 2.0)]}
