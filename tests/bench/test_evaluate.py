from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.bench import evaluate as bench_evaluate
from retriever.bench.evaluate import write_files
from retriever.cli.main import cli
from retriever.eval.data.qrels import read_qrels
from retriever.eval.data.runs import read_run
from retriever.eval.evaluator import evaluate_run
from retriever.types import UserError


def test_the_files_hold_what_was_asked_for_without_ties(tmp_path: Path) -> None:
    qrels, run = write_files(tmp_path, queries=4, hits=100)
    rankings = read_run(run)
    assert [len(ranking) for ranking in rankings.values()] == [100] * 4
    for ranking in rankings.values():
        assert len({hit.score for hit in ranking}) == 100
    judged = read_qrels(qrels)
    for query_id, grades in judged.items():
        assert grades.keys() <= {hit.doc_id for hit in rankings[query_id]}
        assert set(grades.values()) <= {0, 1, 2}
    assert 0 < evaluate_run(rankings, judged).mean["nDCG@10"] < 1


def test_every_tool_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # ranx compiles for a minute
    result = CliRunner().invoke(cli, ["bench", "evaluate", "--queries", "20", "--hits", "50", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["tool", "seconds", "ratio", "compile_s", "ndcg"]
    assert [row[0] for row in rows] == ["retriever", "ir_measures"]
    assert rows[0][4] == rows[1][4] and 0 < float(rows[0][4]) < 1
    assert rows[0][2] == "1.00" and float(rows[1][1]) > 0


def test_a_tool_that_fails_and_sizes_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_evaluate, "MEASURES", ("nothing",))
    with pytest.raises(UserError, match=r"failed .*nothing.*is the tool whole"):
        bench_evaluate.bench_evaluate(2, 5, 1)
    with pytest.raises(UserError, match="queries 0 and hits 5 are out of range"):
        write_files(tmp_path, 0, 5)
