"""evaluate and report from the command line: several data sets, tables, one object of JSON, the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.cli.render_results import marks_text, results_text
from retriever.eval.report.results import DatasetResult, Difference, Percentiles, Results, SystemResult
from retriever.experiments.experiment import ExperimentConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[1] / "data" / "tiny"
QUIET = ("--encoder", "none", "--modes", "bm25", "-q")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "second")
    return tmp_path / "second"


def call(*args: object) -> Result:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_several_data_sets(second: Path, tmp_path: Path) -> None:
    options = ("evaluate", "--dataset", TINY, "--dataset", second, *QUIET)
    result = call(*options, "--output", tmp_path / "out")
    header, bm25, empty, *_ = result.stdout.splitlines()
    assert header.split() == ["nDCG@10", "tiny", "second", "mean"]
    name, *values = bm25.split()
    assert name == "bm25" and len(set(values)) == 1 and empty == ""
    assert str(tmp_path / "out" / "report.html") in result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "results.json",
        "per-query.parquet",
        "tiny-test-bm25.trec",
        "second-test-bm25.trec",
    }
    [line] = call(*options, "--json").stdout.splitlines()
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    [of_tiny, _] = json.loads(line)["datasets"]
    assert of_tiny["systems"][0]["mean"] == stored["datasets"][0]["systems"][0]["mean"]
    assert f"{of_tiny['systems'][0]['mean']['nDCG@10']:.4f}" == values[0]
    lines = call(*options, "--per-query").stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines if "\t" in line] == [["tiny", "bm25"]] * 6 + [["second", "bm25"]] * 6


def test_the_report_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    call("evaluate", "--dataset", TINY, *QUIET, "--output", out)
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    assert call("report", out).stdout.strip() == str(out / "report.html")
    assert (out / "report.html").read_text() == page
    (out / "diagnostics.json").write_text('[{"dataset": "tiny", "system": "bm25", "bias": "brevity", "value": 1}]')
    call("report", out)
    assert "brevity" in (out / "report.html").read_text()


def test_faults(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "nothing")])
    assert result.exit_code == 1 and "results.json" in result.stderr and "Traceback" not in result.stderr
    result = CliRunner().invoke(cli, ["evaluate", "--dataset", str(TINY), "--modes", "sparse", *QUIET[:2], "-q"])
    assert result.exit_code == 1 and "no sparse leg" in result.stderr
    result = CliRunner().invoke(cli, ["evaluate", "--dataset", str(TINY), "--query-mode", "words"])
    assert result.exit_code == 2


def results(*sets: tuple[str, dict[str, tuple[float, float]]]) -> Results:
    """Return results of data sets whose systems have a value and a p-value; the first is the baseline."""
    datasets = []
    for name, systems in sets:
        base = next(iter(systems.values()))[0]
        measured = [
            SystemResult(
                system,
                "",
                "",
                system,
                {"P@1": value},
                0,
                0,
                {"total": Percentiles(1, 1, 1, 1)},
                1.0,
                [0.0] * 11,
                {"P@1": Difference(value - base, 0, 0, p, 0, 0, 0, 0)} if system != next(iter(systems)) else {},
            )
            for system, (value, p) in systems.items()
        ]
        datasets.append(DatasetResult(name, "", "test", False, 1, 1, "", [], [], measured, next(iter(systems)), "", []))
    return Results("", 0, ["P@1"], "a", {}, {}, [], datasets, [])


def test_tables_show_the_best_and_what_is_significant() -> None:
    one = ("one", {"a": (0.5, 1.0), "better": (0.75, 0.01), "worse": (0.25, 0.04), "chance": (0.625, 0.05)})
    two = ("two", {"a": (0.5, 1.0), "better": (0.25, 0.5)})
    text = results_text(results(one, two))
    assert text.splitlines() == [
        "P@1        one      two     mean",
        "a       0.5000   0.5000   0.5000",
        "better  0.7500+  0.2500   0.5000",
        "worse   0.2500-       -        -",
        "chance  0.6250        -        -",
    ]
    assert marks_text(results(one, two)).startswith("+ or -: differs from a (paired randomisation test")
    bold = results_text(results(one), bold=True)
    assert "\x1b[1m0.7500+\x1b[0m" in bold and bold.count("\x1b[1m") == 1
    chance = results(("one", {"a": (0.5, 1.0), "b": (0.75, 0.5)}))
    assert marks_text(chance) == ""
    assert results_text(chance).splitlines() == ["mode     P@1", "a     0.5000", "b     0.7500"]


def test_the_options_are_the_settings_of_an_experiment_with_their_defaults() -> None:
    values = cli.commands["evaluate"].make_context("evaluate", []).params
    settings = {field.name: values[field.name] for field in dataclasses.fields(ExperimentConfig)}
    assert ExperimentConfig(**settings) == ExperimentConfig()
