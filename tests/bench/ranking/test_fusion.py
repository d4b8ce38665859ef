"""The table of fusions, against tune, learn and evaluate on the same queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.bench.ranking.fusion import DEFAULT, FUSIONS, TUNED, compare_fusions, fusion_values
from retriever.cli.main import cli
from retriever.eval.data.datasets import load_dataset
from retriever.eval.significance import bootstrap_interval
from retriever.experiments.experiment import ExperimentConfig, evaluate
from retriever.experiments.learning import learn
from retriever.experiments.tuning import leg_runs, tune
from retriever.indexing.build import build_index
from retriever.rank import Pipeline
from retriever.search.retriever import Retriever
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = Path(__file__).parents[2] / "data" / "tiny"


def test_values_are_those_of_the_commands(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    build_index(TINY, tmp_path / "index", encoder=str(tiny_encoder_folder))
    data = load_dataset(TINY, "test")
    means = {}
    with Retriever.open(tmp_path / "index") as retriever:
        found = fusion_values(retriever, data)
        means = {name: float(np.mean(list(values.values()))) for name, values in found.items()}
        tuned = tune(leg_runs(retriever, data.queries), data.qrels)
        assert means[TUNED] == pytest.approx(tuned.cross_validated) and means[DEFAULT] == pytest.approx(tuned.default)
        learnt = learn(retriever, data, Pipeline("bm25+dense+sparse"), kind="logistic")
        assert means["logistic regression, learned"] == pytest.approx(learnt.cross_validated)
    for name, fusion in FUSIONS.items():
        with Retriever.open(tmp_path / "index", fusion=fusion) as retriever:
            result = evaluate(data, retriever, config=ExperimentConfig(modes=("hybrid",)))["hybrid"]
            assert means[name] == pytest.approx(result.mean["nDCG@10"]), name
    [first, *_] = rows = compare_fusions([found])
    assert [row.mean for row in rows] == sorted(means.values(), reverse=True) and first.mean == max(means.values())
    for row in rows:
        differences = np.array([found[row.fusion][query] - found[DEFAULT][query] for query in found[DEFAULT]])
        assert row.difference == pytest.approx(differences.mean(), abs=1e-9)
        assert row.interval == pytest.approx(bootstrap_interval(differences), abs=1e-9)
    command = ["bench", "fusion", "--on", str(tmp_path / "index"), str(TINY), "test", "--json"]
    printed = CliRunner().invoke(cli, command).stdout
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["fusion"], line["mean"]) for line in lines] == [(row.fusion, row.mean) for row in rows]
    assert lines[0]["values"] == {"tiny test": pytest.approx(rows[0].mean)}


def test_several_sets_count_the_same() -> None:
    small = {name: {"q1": float(name == "a"), "q2": 0.5} for name in (DEFAULT, "a")}
    large = {name: {f"q{n}": 0.25 for n in range(50)} for name in (DEFAULT, "a")}
    row = next(row for row in compare_fusions([small, large]) if row.fusion == "a")
    assert row.values == (0.75, 0.25) and row.mean == 0.5 and row.difference == 0.25
    assert row.interval.low == 0 and row.interval.high == 0.5
    with pytest.raises(UserError, match="no data set"):
        compare_fusions([])
