"""The settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from retriever.train.data.examples import SourceConfig
from retriever.train.settings import LossWeights, TrainConfig, load_train_config
from retriever.types import UserError

WHOLE = {"base": "b/c", "output": "out", "sources": [{"path": "pairs.jsonl", "weight": 2}]}


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    values = WHOLE | {"losses": {"anchor": 3}, "upcycle": {"num_experts": 8}, "matryoshka_dims": [64], "steps": 7}
    found = load_train_config(written(tmp_path, values))
    assert found == TrainConfig(
        base="b/c",
        output="out",
        sources=(SourceConfig("pairs.jsonl", 2),),
        upcycle={"num_experts": 8},
        losses=LossWeights(anchor=3),
        matryoshka_dims=(64,),
        steps=7,
    )


def test_options_override_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE | {"steps": 7})
    found = load_train_config(path, steps=9, output="elsewhere")
    assert (found.steps, found.output) == (9, "elsewhere")
    found = load_train_config(path, steps=None, output=None)
    assert (found.steps, found.output) == (7, "out")
    without_output = {name: value for name, value in WHOLE.items() if name != "output"}
    assert load_train_config(written(tmp_path, without_output), output="given").output == "given"


def test_variables_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    values = WHOLE | {
        "base": "${DATA}/base",
        "output": "~/out",
        "states": "$DATA/states",
        "sources": [{"path": "${DATA}/a.jsonl"}, {"path": "relative/b.jsonl"}],
    }
    found = load_train_config(written(tmp_path, values))
    assert (found.base, found.output, found.states) == ("/data/base", "/home/me/out", "/data/states")
    assert [source.path for source in found.sources] == ["/data/a.jsonl", "relative/b.jsonl"]
    monkeypatch.delenv("DATA")
    with pytest.raises(UserError, match=r"a\.jsonl: the environment variable DATA is not set"):
        load_train_config(written(tmp_path, values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base": "b"}, "output is missing; a training run needs base, output and sources"),
        (WHOLE | {"sources": []}, "sources must be a list of {path: FILE, weight: NUMBER}"),
        (WHOLE | {"sources": ["a.jsonl"]}, "found 'a.jsonl', need a mapping"),
        (WHOLE | {"sources": [{"weight": 1}]}, "a source has no path"),
        (WHOLE | {"sources": [{"path": "a", "wait": 1}]}, "unknown setting 'wait'"),
        (WHOLE | {"sources": [{"path": "a", "weight": 0}]}, "the weight is 0"),
        (WHOLE | {"magic": 1}, "unknown setting 'magic'; known settings: base, output"),
        (WHOLE | {"losses": {"magic": 1}}, "losses: unknown setting 'magic'"),
        (WHOLE | {"losses": {"anchor": -1}}, "losses.anchor is -1, allowed is 0 or more"),
        (WHOLE | {"losses": 3}, "losses: found 3, need a mapping"),
        (WHOLE | {"steps": 0}, "steps is 0, allowed is 1 or more"),
        (WHOLE | {"steps": "many"}, "steps is 'many', need int"),
        (WHOLE | {"learning_rate": float("nan")}, "learning_rate is nan"),
        (WHOLE | {"query_tokens": 2}, "query_tokens is 2, allowed is 3 or more"),
        (WHOLE | {"precision": "int8"}, "precision is 'int8', allowed are float32, bfloat16"),
        (WHOLE | {"storage": "int4"}, "storage is 'int4', allowed are float32, float16, int8"),
        (WHOLE | {"matryoshka_dims": [0]}, r"matryoshka_dims are \[0\]"),
        (WHOLE | {"matryoshka_dims": [], "losses": {"matryoshka": 1}}, r"matryoshka_dims are \[\]"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_train_config(written(tmp_path, values))
    assert "\n" not in str(caught.value)
