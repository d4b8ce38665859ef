"""Every measure that ir-measures computes with what is installed, against its own `calc_aggregate`."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import ir_measures
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.eval.data.qrels import read_judgements, read_qrels
from retriever.eval.data.runs import write_run
from retriever.eval.evaluator import evaluate_run
from retriever.eval.measures import parse_measures
from retriever.ranking import order
from retriever.types import Qrels, Run, ScoredDoc, UserError

if TYPE_CHECKING:
    from pathlib import Path

COMPUTED = {
    "nDCG@10": "pytrec_eval",
    "infAP": "pytrec_eval",
    "P(rel=2)@5": "pytrec_eval",
    "RR": "pytrec_eval",
    "NumRelRet": "pytrec_eval",
    "NumQ": "pytrec_eval",
    "RR@10": "msmarco",
    "RR(rel=2)@3": "msmarco",
    "RBP(rel=1)": "cwl_eval",
    "RBP(p=0.5,rel=2)": "cwl_eval",
    "INST(max_rel=3)": "cwl_eval",
    "NERR8(max_rel=3)@10": "cwl_eval",
    "Compat(p=0.8)": "compat",
    "Judged@7": "judged",
    "ERR@10": "gdeval",
    "nDCG(dcg='exp-log2')@10": "gdeval",
    "Accuracy@20": "accuracy",
}


def random_case(seed: int) -> tuple[Run, Qrels]:
    """Return a run without ties and judgements; one judged query has no hit, one hit list no judgement."""
    draw = random.Random(seed)
    documents = [f"d{number}" for number in range(40)]
    qrels = {f"{number}": {d: draw.randint(0, 3) for d in draw.sample(documents, 12)} for number in range(1, 9)}
    for grades in qrels.values():
        grades |= {documents[0]: 2, documents[1]: 0}
    run = {
        query_id: order([ScoredDoc(d, 30.0 - place) for place, d in enumerate(draw.sample(documents, 30))])
        for query_id in [*list(qrels)[1:], "unjudged"]
    }
    return run, qrels


@pytest.mark.parametrize("name", COMPUTED)
def test_values_are_those_of_ir_measures_and_the_tool_is_named(name: str) -> None:
    run, qrels = random_case(7)
    [measure] = parse_measures([name])
    scores = {query_id: dict(run[query_id]) for query_id in qrels if query_id in run}
    expected = ir_measures.calc_aggregate([measure], qrels, scores)[measure]
    found = evaluate_run(run, qrels, measures=[name])
    assert found.mean[str(measure)] == pytest.approx(expected, abs=1e-6)
    assert found.tools == {str(measure): COMPUTED[name]}


@pytest.mark.parametrize("name", ["alpha_nDCG@10", "ERR_IA@20", "StRecall@5", "NRBP", "AP_IA"])
def test_measures_of_diversity_read_the_subtopics(name: str, tmp_path: Path) -> None:
    run, qrels = random_case(3)
    lines = [
        f"{query_id} {subtopic} {doc_id} {max(0, grade - subtopic)}"
        for query_id, grades in qrels.items()
        for doc_id, grade in grades.items()
        for subtopic in (1, 2)
    ]
    path = tmp_path / "diversity.qrels"
    path.write_text("\n".join(lines))
    judged = read_judgements(path, subtopics=True)
    assert judged.qrels == read_qrels(path)
    assert judged.qrels["1"] == {doc_id: max(0, grade - 1) for doc_id, grade in qrels["1"].items()}
    [measure] = parse_measures([name])
    rows = list(ir_measures.read_trec_qrels(str(path)))  # type: ignore[no-untyped-call]
    expected = ir_measures.calc_aggregate([measure], rows, {q: dict(r) for q, r in run.items()})[measure]
    found = evaluate_run(run, judged.qrels, measures=[name, "RR@10"], subtopics=judged.subtopics)
    assert found.mean[name] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UserError, match=f"{name} needs judgements by subtopic"):
        evaluate_run(run, judged.qrels, measures=[name])


@pytest.mark.parametrize(
    ("typed", "meant"),
    {
        "MRR@10": "RR@10",
        "mrr": "RR",
        "recip_rank": "RR",
        "NDCG@10": "nDCG@10",
        "ndcg@10": "nDCG@10",
        "ndcg10": "nDCG@10",
        "ndcg_cut_10": "nDCG@10",
        "ndcg_cut.10": "nDCG@10",
        "Recall@100": "R@100",
        "recall_100": "R@100",
        "MAP": "AP",
        "map_cut_100": "AP@100",
        "mAP@5": "AP@5",
        "Precision@5": "P@5",
        "P_5": "P@5",
        "p5": "P@5",
        "success@5": "Success@5",
        "hit@1": "Success@1",
        "r-prec": "Rprec",
        "alpha-nDCG@20": "alpha_nDCG@20",
        "rbp(rel=2, p=0.5)": "RBP(rel=2,p=0.5)",
    }.items(),
)
def test_measures_are_understood_as_people_type_them(typed: str, meant: str) -> None:
    assert [str(measure) for measure in parse_measures([typed])] == [meant]


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("ndgc@10", "near it are nDCG"),
        ("P", "it needs a cutoff, as in P@10"),
        ("recall", "it needs a cutoff, as in R@10"),
        ("RBP", r"as in RBP\(rel=1\)"),
        ("BPM@5", "it needs max_rel"),
    ],
)
def test_what_cannot_be_computed_is_answered_with_what_is_meant(typed: str, answer: str) -> None:
    with pytest.raises(UserError, match=answer) as caught:
        parse_measures([typed])
    assert "\n" not in str(caught.value) and "object at" not in str(caught.value)


def test_tools_that_fail_are_one_line() -> None:
    run = {"q": [ScoredDoc("d", 1.0)]}
    with pytest.raises(UserError, match="reads grades up to 4, found 9"):
        evaluate_run(run, {"q": {"d": 9}}, measures=["ERR@5"])
    with pytest.raises(UserError, match=r"accuracy cannot compute Accuracy of this run.*leave it out"):
        evaluate_run(run, {"q": {"d": 1}}, measures=["Accuracy"])


def test_odd_ids_and_missing_hits_pass_through_every_tool() -> None:
    run = {"a b": [ScoredDoc("x y", 2.0), ScoredDoc("é", 1.0)]}
    qrels = {"a b": {"é": 1, "x y": 0}, "none": {"x y": 1}}
    found = evaluate_run(run, qrels, measures=["ERR@5", "RR@10", "Compat"])
    assert found.per_query["a b"]["RR@10"] == 0.5 and found.mean["RR@10"] == 0.25
    assert found.per_query["a b"]["ERR@5"] == pytest.approx(1 / 16 / 2, abs=1e-5)  # R = (2^1 - 1) / 2^4 at rank 2
    assert evaluate_run({}, qrels, measures=["ERR@5", "RR@10"]).mean == {"ERR@5": 0.0, "RR@10": 0.0}


def test_the_command_says_which_tool_computed_what(tmp_path: Path) -> None:
    run, qrels = random_case(5)
    write_run(tmp_path / "run.trec", run)
    (tmp_path / "qrels").write_text("".join(f"{q} 0 {d} {g}\n" for q, of in qrels.items() for d, g in of.items()))
    command = ["evaluate", str(tmp_path / "run.trec"), str(tmp_path / "qrels"), "-m", "MRR@10", "-m", "nDCG@10"]
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0
    assert "RR@10 (msmarco)" in shown.stderr and "nDCG@10" not in shown.stderr
    line = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert line["tools"] == {"RR@10": "msmarco", "nDCG@10": "pytrec_eval"}
