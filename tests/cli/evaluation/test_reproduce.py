from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.eval.measures import parse_measures
from retriever.experiments import reproduce
from retriever.experiments.reproduce import FILE, choose, reproductions
from retriever.search.modes import legs_named
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny"
BM25 = {"nDCG@10": 0.0, "R@100": 0.0}


@pytest.fixture
def data(tmp_path: Path, own_cache: Path) -> Path:
    """Return a folder with the tiny data set; indexes are kept beside it."""
    shutil.copytree(TINY, tmp_path / "data" / "tiny")
    return tmp_path / "data"


def experiments(path: Path, monkeypatch: pytest.MonkeyPatch, **values: dict[str, object]) -> None:
    """Let the command read these experiments, BM25 on the tiny set unless they say otherwise."""
    whole = {"dataset": "tiny", "encoder": "none", "expected": {"bm25": BM25}, "source": "a guess"}
    path.write_text(yaml.safe_dump({name: whole | value for name, value in values.items()}))
    monkeypatch.setattr(reproduce.reproductions, "__defaults__", (path,))


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["reproduce", *map(str, args)])


def test_drift_is_said_and_is_exit_code_1(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments(tmp_path / "e.yaml", monkeypatch, one={})
    result = invoke("--data", data, "--json", "--quiet")
    assert result.exit_code == 1
    found = {line["measure"]: line for line in map(json.loads, result.stdout.splitlines())}
    command = ["evaluate", "--dataset", str(data / "tiny"), "--encoder", "none", "--modes", "bm25", "--json", "--quiet"]
    mean = json.loads(CliRunner().invoke(cli, command).stdout.splitlines()[-1])["mean"]
    assert {measure: line["found"] for measure, line in found.items()} == mean
    assert all(line["drifted"] for line in found.values())

    near = {"bm25": {measure: value + 0.0009 for measure, value in mean.items()}}
    experiments(tmp_path / "e.yaml", monkeypatch, one={"expected": near})
    for kept in (tmp_path / "cache" / "retriever" / "rankings").iterdir():
        kept.write_bytes(b"of an earlier version")
    result = invoke("--data", data, "--quiet")
    assert result.exit_code == 0, "nothing is measured on rankings that were kept"
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == ["OK", "OK"]
    experiments(tmp_path / "e.yaml", monkeypatch, one={"expected": near, "tolerance": 0.0005})
    result = invoke("--data", data, "--quiet")
    assert result.exit_code == 1
    assert [line.split()[-1] for line in result.stdout.splitlines()[1:]] == ["DRIFTED", "DRIFTED"]


def test_what_cannot_be_had_is_left_out_unless_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments(tmp_path / "e.yaml", monkeypatch, here={"tolerance": 1}, away={"dataset": "away"})
    result = invoke("--data", data, "--quiet")
    assert result.exit_code == 0 and "here" in result.stdout and "away" not in result.stdout
    assert "away: left out, the data set away is not in" in result.stderr
    result = invoke("away", "--data", data)
    assert result.exit_code == 1 and "away: the data set away is not in" in result.stderr
    result = invoke()
    assert result.exit_code == 1 and "nothing was measured; say with --data" in result.stderr
    assert invoke("nobody").stderr.startswith("Error: no experiment is called 'nobody'; there are away, here")
    assert "no such folder" in invoke("--data", tmp_path / "none").stderr
    experiments(tmp_path / "e.yaml", monkeypatch, one={"expected": {"dense": BM25}})
    result = invoke("--data", data, "--quiet")
    assert result.exit_code == 1 and "none has no dense leg" in result.stderr


def test_the_list_and_the_shipped_experiments() -> None:
    known = reproductions()
    lines = invoke("--list").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(known)
    assert "bm25-nfcorpus: bm25 of nfcorpus, test, encoder none" in lines[0]
    for one in known.values():
        assert one.expected and 0 < one.tolerance <= 0.01
        for mode, values in one.expected.items():
            legs_named(mode)
            assert [str(measure) for measure in parse_measures(list(values))] == list(values)
            assert all(0 < value < 1 for value in values.values())
    assert choose(known, ["bm25-nfcorpus"] * 2) == [known["bm25-nfcorpus"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one: {dataset: tiny, source: us}", "one has no expected; each experiment needs"),
        ("one: {dataset: tiny, source: us, expected: {}, colour: red}", "one: unknown setting 'colour'"),
    ],
)
def test_a_bad_experiment(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        reproductions(tmp_path / "e.yaml")


@pytest.mark.skipif("RETRIEVER_DATA" not in os.environ, reason="RETRIEVER_DATA does not name the folder of real data")
def test_bm25_on_the_real_sets() -> None:
    names = [name for name, one in reproductions().items() if one.encoder == "none"]
    assert FILE.is_file() and names
    result = invoke(*names, "--data", Path(os.environ["RETRIEVER_DATA"]) / "eval", "--quiet")
    assert result.exit_code == 0, result.output
