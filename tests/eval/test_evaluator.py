from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.eval.data.runs import read_run, write_run
from retriever.eval.evaluator import evaluate_run
from retriever.eval.measures import parse_measures
from retriever.ranking import order
from retriever.types import Qrels, Ranking, Run, ScoredDoc, UserError

QUERY_ID = st.sampled_from(["q1", "q2", "q3", "q4"])
DOC_ID = st.sampled_from([f"d{n}" for n in range(12)] + ["D1", "é"])
# Whole and half numbers tie often; 1 and 1 + 1e-9 differ in double precision and tie in trec_eval's single precision.
SCORE = st.sampled_from([1.0, 1.0 + 1e-9, 2.0, 0.5, 0.0, -1.0]) | st.floats(-1e6, 1e6)
QRELS = st.dictionaries(QUERY_ID, st.dictionaries(DOC_ID, st.integers(-2, 4), min_size=1), min_size=1)
RUNS = st.dictionaries(
    QUERY_ID | st.just("unjudged"),
    st.dictionaries(DOC_ID, SCORE).map(lambda scores: order([ScoredDoc(*hit) for hit in scores.items()])),
)


def trec_order(ranking: Ranking) -> list[str]:
    """Rank as trec_eval does: single precision, ties by descending id (its strcmp sees UTF-8 bytes)."""
    by_id = sorted(ranking, key=lambda hit: hit.doc_id.encode(), reverse=True)
    return [hit.doc_id for hit in sorted(by_id, key=lambda hit: -np.float32(hit.score))]


def ndcg(ranking: list[str], grades: dict[str, int], depth: int) -> float:
    """Linear gains, log2(rank + 1) discount (Jarvelin and Kekalainen 2002, as in trec_eval)."""

    def dcg(gains: list[int]) -> float:
        return sum(max(gain, 0) / math.log2(rank + 1) for rank, gain in enumerate(gains[:depth], start=1))

    ideal = dcg(sorted(grades.values(), reverse=True))
    return dcg([grades.get(doc_id, 0) for doc_id in ranking]) / ideal if ideal else 0.0


def recall(ranking: list[str], grades: dict[str, int], depth: int) -> float:
    relevant = {doc_id for doc_id, grade in grades.items() if grade >= 1}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0


@given(run=RUNS, qrels=QRELS)
@settings(deadline=None)
def test_values_follow_the_definitions(run: Run, qrels: Qrels) -> None:
    result = evaluate_run(run, qrels, measures=["nDCG@3", "nDCG@10", "R@2", "R@100"])
    expected = {}
    for query_id, grades in qrels.items():
        ranking = trec_order(run.get(query_id, []))
        expected[query_id] = {f"nDCG@{depth}": ndcg(ranking, grades, depth) for depth in (3, 10)}
        expected[query_id] |= {f"R@{depth}": recall(ranking, grades, depth) for depth in (2, 100)}
    assert list(result.per_query) == list(qrels)
    for query_id, values in expected.items():
        assert result.per_query[query_id] == pytest.approx(values, abs=1e-6)
    for name, mean in result.mean.items():
        assert mean == pytest.approx(sum(values[name] for values in expected.values()) / len(qrels), abs=1e-6)


TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "R@5": "recall_5",
    "AP": "map",
    "RR": "recip_rank",
    "P@5": "P_5",
    "Success@5": "success_5",
    "nDCG": "ndcg",
    "Rprec": "Rprec",
    "Bpref": "bpref",
}


@given(run=RUNS, qrels=QRELS)
@settings(deadline=None)
def test_values_agree_with_trec_eval(run: Run, qrels: Qrels) -> None:
    result = evaluate_run(run, qrels, measures=list(TREC_NAMES))
    # pytrec_eval crashes where every grade of a query is negative; the definition says that nothing is relevant there.
    safe = {query_id: grades for query_id, grades in qrels.items() if max(grades.values()) >= 0}
    oracle = pytrec_eval.RelevanceEvaluator(safe, pytrec_eval.supported_measures)
    values = oracle.evaluate({query_id: dict(ranking) for query_id, ranking in run.items() if ranking})
    for name, trec_name in TREC_NAMES.items():
        per_query = {query_id: values.get(query_id, {}).get(trec_name, 0.0) for query_id in qrels}
        assert {q: measured[name] for q, measured in result.per_query.items()} == pytest.approx(per_query, abs=1e-6)
        assert result.mean[name] == pytest.approx(sum(per_query.values()) / len(qrels), abs=1e-6)
    hits = [query_id for query_id in qrels if run.get(query_id)]
    assert result.queries_judged == len(qrels)
    assert result.queries_missing == len(qrels) - len(hits)
    assert result.queries_ignored == len(set(run) - set(qrels))


def test_missing_queries_count_as_zero_and_unjudged_ones_are_left_out() -> None:
    qrels = {"q1": {"d": 1}, "q2": {"d": 1}, "q3": {"d": 1}, "q4": {"d": 1}, "no judgement": {}}
    run = {"q1": [ScoredDoc("d", 1.0)], "q2": [], "other": [ScoredDoc("d", 1.0)], "no judgement": [ScoredDoc("d", 1.0)]}
    result = evaluate_run(run, qrels, measures=["nDCG@10"])
    assert result.mean == {"nDCG@10": 0.25}
    assert (result.queries_judged, result.queries_missing, result.queries_ignored) == (4, 3, 2)


def test_an_empty_run_is_zero_everywhere() -> None:
    result = evaluate_run({}, {"q1": {"d": 1}, "q2": {"d": 0}})
    assert result.mean == {"nDCG@10": 0.0, "R@100": 0.0}
    assert result.per_query == {"q1": {"nDCG@10": 0.0, "R@100": 0.0}, "q2": {"nDCG@10": 0.0, "R@100": 0.0}}
    assert result.queries_missing == 2


def test_tied_documents_are_ranked_by_descending_id_as_in_trec_eval() -> None:
    tied = [ScoredDoc("a", 1.0), ScoredDoc("b", 1.0)]
    assert evaluate_run({"q": tied}, {"q": {"a": 1}}, measures=["RR"]).mean == {"RR": 0.5}
    assert evaluate_run({"q": tied}, {"q": {"b": 1}}, measures=["RR"]).mean == {"RR": 1.0}


def test_a_query_whose_grades_are_all_negative_is_zero_and_does_no_harm() -> None:
    qrels = {"bad": {"a": -3, "b": -2}, "good": {"a": 1}}
    run = {query_id: [ScoredDoc("b", 2.0), ScoredDoc("a", 1.0)] for query_id in qrels}
    for _ in range(50):  # the crash that this keeps away came after some corrupted memory
        result = evaluate_run(run, qrels, measures=list(TREC_NAMES))
        assert set(result.per_query["bad"].values()) == {0.0}
        assert result.per_query["good"]["RR"] == 0.5


@given(run=RUNS, qrels=QRELS)
@settings(deadline=None, max_examples=20)
def test_a_run_file_is_worth_what_the_run_is(run: Run, qrels: Qrels, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("runs") / "run.trec"
    write_run(path, run)
    assert evaluate_run(read_run(path), qrels).mean == evaluate_run(run, qrels).mean


def test_measures_are_called_by_one_name_and_given_once() -> None:
    assert [str(m) for m in parse_measures([" nDCG@10", "NDCG@10", "P(rel=2)@5", "nDCG(judged_only=True)@10"])] == [
        "nDCG@10",
        "P(rel=2)@5",
        "nDCG(judged_only=True)@10",
    ]


@pytest.mark.parametrize(
    "name",
    ["", " ", "ndgc@10", "nDCG@", "nDCG@x", "nDCG@0", "R@-1", "nDCG@1.5", "nDCG@10@5", "nDCG(10)", "nDCG(gain=3)@10"]
    + [
        "Bpref@3",
        "RR(judged_only=True)@10",
        "ERR",
        "RBP",
        "gm_map",
        "ndcg_cut_0",
        "R(rel=0)@5",
        "nDCG(gains=3)@10",
        "nDCG(**{})@10",
        "f()()",
        "a\x00b",
        "1",
        "R@None",
    ]
    + ["R@True", "R", "P(cutoff=5)@6", "nDCG(gains={1: 0.5})@10", "nDCG(gains={1: 'a'})@10", "(" * 500],
)
def test_a_bad_measure_shows_examples(name: str) -> None:
    with pytest.raises(UserError, match=r"examples: nDCG@10, R@100") as caught:
        evaluate_run({"q": [ScoredDoc("d", 1.0)]}, {"q": {"d": 1}}, measures=[name])
    assert "\n" not in str(caught.value)


def test_what_cannot_be_evaluated_is_refused() -> None:
    good: Qrels = {"q": {"d": 1}}
    with pytest.raises(UserError, match="no measure given"):
        evaluate_run({}, good, measures=[])
    unjudged: Qrels = {"q": {}}
    for empty in ({}, unjudged):
        with pytest.raises(UserError, match="no judged queries"):
            evaluate_run({}, empty)
    with pytest.raises(UserError, match="query 'q' of the run has a document twice"):
        evaluate_run({"q": [ScoredDoc("d", 2.0), ScoredDoc("d", 1.0)]}, good)
    with pytest.raises(UserError, match="query 'q' of the run has a score that is not a finite number"):
        evaluate_run({"q": [ScoredDoc("d", math.nan)]}, good)


@pytest.mark.skipif("RETRIEVER_DATA" not in os.environ, reason="RETRIEVER_DATA does not name the folder of real data")
def test_a_perfect_run_of_a_real_set_scores_one() -> None:
    from retriever.eval.data.datasets import load_dataset

    qrels = load_dataset(Path(os.environ["RETRIEVER_DATA"]) / "eval" / "nfcorpus").qrels
    perfect: Run = {
        query_id: order([ScoredDoc(doc_id, float(grade)) for doc_id, grade in grades.items()])
        for query_id, grades in qrels.items()
    }
    assert evaluate_run(perfect, qrels, measures=["nDCG@10"]).mean == pytest.approx({"nDCG@10": 1.0})


@given(run=RUNS, qrels=QRELS)
@settings(deadline=None)
def test_judged_is_the_share_of_the_first_hits_that_have_a_judgement(run: Run, qrels: Qrels) -> None:
    result = evaluate_run(run, qrels, measures=["Judged@3", "nDCG@10", "Judged@100"])
    for query_id, grades in qrels.items():
        ranking = trec_order(run.get(query_id, []))
        for depth in (3, 100):
            first = ranking[:depth]
            share = sum(doc_id in grades for doc_id in first) / len(first) if first else 0.0
            assert result.per_query[query_id][f"Judged@{depth}"] == pytest.approx(share)
    assert list(result.mean) == ["Judged@3", "nDCG@10", "Judged@100"]
    alone = evaluate_run(run, qrels, measures=["Judged@3"])
    assert alone.mean == {"Judged@3": result.mean["Judged@3"]} and alone.queries_missing == result.queries_missing


TREC_PRECISION = {f"IPrec@{place / 10}": f"iprec_at_recall_{place / 10:.2f}" for place in range(11)}


@given(run=RUNS, qrels=QRELS)
@settings(deadline=None)
def test_graded_and_interpolated_values_agree_with_trec_eval(run: Run, qrels: Qrels) -> None:
    levels = (1, 2, 3)
    names = [f"{name}(rel={level}){cut}" for level in levels for name, cut in (("P", "@5"), ("R", "@5"), ("AP", ""))]
    result = evaluate_run(run, qrels, measures=[*names, *TREC_PRECISION])
    safe = {query_id: grades for query_id, grades in qrels.items() if max(grades.values()) >= 0}
    hits = {query_id: dict(ranking) for query_id, ranking in run.items() if ranking}
    for level in levels:
        oracle = pytrec_eval.RelevanceEvaluator(safe, {"P", "recall", "map", "iprec_at_recall"}, relevance_level=level)
        values = oracle.evaluate(hits)
        wanted = {f"P(rel={level})@5": "P_5", f"R(rel={level})@5": "recall_5", f"AP(rel={level})": "map"}
        for name, trec_name in (wanted | (TREC_PRECISION if level == 1 else {})).items():
            name = name.replace("(rel=1)", "")
            for query_id in qrels:
                value = values.get(query_id, {}).get(trec_name, 0.0)
                assert result.per_query[query_id][name] == pytest.approx(value, abs=1e-6)
