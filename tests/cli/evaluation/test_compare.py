"""`retriever compare` as a user calls it, on runs written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.eval.data.datasets import read_qrels
from retriever.eval.data.runs import read_run
from retriever.eval.evaluator import evaluate_run

QRELS = Path(__file__).parents[2] / "data" / "tiny" / "qrels" / "test.tsv"
QUERIES = [f"q0{n}" for n in range(1, 7)]
BEST = ["d01", "d03", "d05", "d08", "d09", "d15"]


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, args)])


def call(*args: object) -> Result:
    result = invoke(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def write(path: Path, places: list[int], extra: str = "") -> Path:
    """Write a run that has the best document of each query at the given rank; 0: the query has no hits."""
    lines = [
        f"{query_id} Q0 {best if rank == place else f'x{rank}'} {rank} {10 - rank} t\n"
        for query_id, best, place in zip(QUERIES, BEST, places, strict=True)
        for rank in range(1, place + 1)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(lines) + extra)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    places = {"base.trec": [2, 2, 2, 3, 4, 2], "better.trec": [1, 1, 2, 1, 1, 1], "worse.trec": [2, 3, 3, 4, 0, 2]}
    return [write(tmp_path / name, ranks) for name, ranks in places.items()]


def test_json(runs: list[Path]) -> None:
    result = call(*runs, QRELS, "-m", "RR", "-m", "nDCG@10", "--json")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["measure"], line["run"], line["baseline"]) for line in found] == [
        (measure, run, "base.trec") for measure in ("RR", "nDCG@10") for run in ("better.trec", "worse.trec")
    ]
    qrels = read_qrels(QRELS)
    for line in found:
        mean, baseline = (
            evaluate_run(read_run(runs[0].parent / line[name]), qrels, measures=[line["measure"]]).mean[line["measure"]]
            for name in ("run", "baseline")
        )
        assert (line["mean"], line["baseline_mean"]) == (mean, baseline)
        assert line["difference"] == pytest.approx(mean - baseline, abs=1e-9)
        low, high = line["interval"]
        assert low <= line["difference"] <= high
        assert 0 <= line["p_t_test"] <= 1 and 0 < line["p_randomisation"] <= 1
        assert line["queries_judged"] == 6 and line["queries_missing"] == (line["run"] == "worse.trec")
    assert [(line["wins"], line["ties"], line["losses"]) for line in found[:2]] == [(5, 1, 0), (0, 2, 4)]
    assert [line["effect_size"] > 0 for line in found] == [True, False] * 2
    assert result.stderr == "worse.trec: 1 judged queries have no hits and count as 0\n"


def test_table(runs: list[Path]) -> None:
    header, *rows = call(*runs, QRELS, "-m", "RR").stdout.splitlines()
    assert header.split()[:4] == ["run", "measure", "mean", "difference"]
    assert rows[0].split() == ["base.trec", "RR", f"{(4 / 2 + 1 / 3 + 1 / 4) / 6:.4f}"]
    assert [row.split()[0] for row in rows] == ["base.trec", "better.trec", "worse.trec"]
    assert [row.split()[-1] for row in rows[1:]] == ["5/1/0", "0/2/4"]
    assert [row.split()[3][0] for row in rows[1:]] == ["+", "-"]
    assert call(*runs[:2], QRELS).stdout.count("base.trec") == 2, "one baseline for each of the two default measures"


def test_queries_without_judgements_are_left_out(runs: list[Path], tmp_path: Path) -> None:
    more = write(tmp_path / "other" / "better.trec", [1, 1, 2, 1, 1, 1], "q99 Q0 d01 1 1.0 t\n")
    [plain] = call(*runs[:2], QRELS, "-m", "RR", "--json").stdout.splitlines()
    [added] = call(runs[0], more, QRELS, "-m", "RR", "--json").stdout.splitlines()
    assert added == plain


def test_runs_of_one_name_are_called_by_their_paths(runs: list[Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other" / "base.trec", [1, 1, 1, 1, 1, 1])
    [line] = call(runs[0], other, QRELS, "-m", "RR", "--json").stdout.splitlines()
    assert (json.loads(line)["run"], json.loads(line)["baseline"]) == (str(other), str(runs[0]))


def test_what_is_undefined_is_null(tmp_path: Path) -> None:
    qrels = tmp_path / "one.qrels"
    qrels.write_text("q01 0 d01 1\n")
    pair = [write(tmp_path / f"{n}.trec", [n, 1, 1, 1, 1, 1]) for n in (2, 1)]
    [line] = call(*pair, qrels, "-m", "RR", "--json").stdout.splitlines()
    found = json.loads(line)
    assert (found["p_t_test"], found["effect_size"], found["interval"]) == (None, None, [None, None])
    assert call(*pair, qrels, "-m", "RR").stdout.splitlines()[-1].split()[4:] == ["-", "-", "1.0000", "-", "1/0/0"]


def test_faults(runs: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.trec"
    bad.write_text("q01 Q0 d01 1 3.5 t\nq01 Q0 d02 2 high t\n")
    for args, says in (
        ((*runs[:2], tmp_path / "no.tsv"), "no.tsv"),
        ((runs[0], tmp_path / "no.trec", QRELS), "no.trec"),
        ((runs[0], bad, QRELS), f"{bad}:2"),
        ((*runs, "-m", "RR"), f"{runs[2]}:1"),  # the judgements were forgotten
        ((*runs, QRELS, "-m", "nDGC@10"), "nDGC@10"),
        ((runs[0], runs[0], QRELS), "given twice"),
    ):
        result = invoke(*args)
        assert result.exit_code == 1 and result.stdout == ""
        [line] = result.stderr.splitlines()
        assert line.startswith("Error: ") and says in line
    result = invoke(runs[0], QRELS)
    assert result.exit_code == 2 and "at least two runs" in result.stderr
