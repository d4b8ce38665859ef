"""evaluate and report from the command line: several data sets, tables, one object of JSON, the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.cli.printing.results import marks_text, results_text
from retriever.eval.report.results import DatasetResult, Difference, Percentiles, Results, SystemResult
from retriever.experiments.experiment import ExperimentConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny"
QUIET = ("--encoder", "none", "--modes", "bm25", "-q")


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


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


def test_asked_in_the_words_of_another_data_set(tmp_path: Path) -> None:
    """The same questions backwards find less; the index is the data set's own, whoever asks."""
    other = tmp_path / "other"
    shutil.copytree(TINY, other)
    queries = [json.loads(line) for line in (TINY / "queries.jsonl").read_text().splitlines()]
    (other / "queries.jsonl").write_text(
        "".join(json.dumps(query | {"text": query["text"][::-1]}) + "\n" for query in queries)
    )
    options = ["evaluate", "--dataset", TINY, "--queries-from", other, "--queries-from", TINY, *QUIET, "--json"]
    found = json.loads(call(*options, "--language", "other").stdout)
    backwards, own = found["datasets"]
    assert [backwards["name"], own["name"]] == ["other in tiny", "tiny in tiny"]
    assert own["systems"][0]["mean"]["nDCG@10"] > 0.5 > backwards["systems"][0]["mean"]["nDCG@10"]
    assert own["indexes"][0]["folder"] == backwards["indexes"][0]["folder"]
    assert own["indexes"][0]["analyzer"] == "other"
    result = CliRunner().invoke(cli, [*map(str, options), "--language", "klingon"])
    assert result.exit_code == 1 and "'klingon' has no analyser" in result.stderr


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


def test_many_data_sets_have_a_row_each() -> None:
    sets = [(f"xquad-{code}", {"a": (0.5, 1.0), "b": (0.75, 0.01)}) for code in ("de", "en", "es", "hi", "zh")]
    assert results_text(results(*sets)).splitlines() == [
        "P@1            a        b",
        "xquad-de  0.5000   0.7500+",
        "xquad-en  0.5000   0.7500+",
        "xquad-es  0.5000   0.7500+",
        "xquad-hi  0.5000   0.7500+",
        "xquad-zh  0.5000   0.7500+",
        "mean      0.5000   0.7500",
    ]


def test_queries_of_each_in_documents_of_each_are_a_table() -> None:
    values = {"de in en": 0.25, "zh in en": 0.5, "de in zh": 0.125, "zh in zh": 1.0}
    text = results_text(results(*((name, {"dense": (value, 1.0)}) for name, value in values.items())))
    assert text.splitlines() == [
        "dense, P@1: queries of      en      zh",
        "de                      0.2500  0.1250",
        "zh                      0.5000  1.0000",
    ]


def test_the_options_are_the_settings_of_an_experiment_with_their_defaults() -> None:
    values = cli.commands["evaluate"].make_context("evaluate", []).params
    settings = {field.name: values[field.name] for field in dataclasses.fields(ExperimentConfig)}
    assert ExperimentConfig(**settings) == ExperimentConfig()
