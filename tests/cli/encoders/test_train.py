"""`retriever train`: help, progress, errors, resuming, and two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.network.checkpoint import read_weights
from tests.helpers.ports import free_port

if TYPE_CHECKING:
    from tests.conftest import Parent
    from tests.helpers.warm import WarmPython

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch


@pytest.fixture(scope="module")
def inputs(tiny_parent: Parent, tiny_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a dense checkpoint and a file of pairs."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_parent.model.save_pretrained(folder / "base")
    tiny_parent.tokenizer.save_pretrained(folder / "base")
    texts = [text for text in tiny_texts if text.strip()]
    lines = [json.dumps({"query": text[:40], "positive": f"{text} {copy}"}) for copy in range(4) for text in texts]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def config(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration whose paths hold a variable; the working directory is the test's own."""
    monkeypatch.setenv("INPUTS", str(inputs))
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {
        "base": "${INPUTS}/base",
        "output": "encoder",
        "sources": [{"path": "${INPUTS}/pairs.jsonl"}],
        "upcycle": {"moe_layers": [], "head_experts": 2, "logit_scale": 0.05, "logit_bias": 0.2},
        "frozen_layers": 2,
        "steps": 4,
        "batch": 4,
        "query_tokens": 16,
        "document_tokens": 32,
        "log_every": 2,
        "save_every": 2,
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["train", *map(str, arguments)])


def test_help_ends_with_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "retriever train my-training.yaml --output my-encoder" in result.stdout


def test_a_run_in_a_process_of_its_own(config: Path, tmp_path: Path, warm: WarmPython) -> None:
    """Stdout has the result alone; stderr has a line for each line of the log and nothing of the libraries."""
    done = warm("-m", "retriever", "train", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "encoder: 4 steps; its log is encoder.run/log.jsonl\n"
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["step 2/4", "step 4/4"]
    assert all("loss " in line and "document terms " in line for line in lines)
    assert (tmp_path / "encoder" / "model.safetensors").is_file()
    result = CliRunner().invoke(cli, ["train", str(config)])
    assert result.exit_code == 1
    assert result.stderr == "Error: encoder: exists already; give another output, or remove it first\n"


def test_options_and_resuming(config: Path, tmp_path: Path) -> None:
    result = run(config, "--steps", 2, "--output", "other/", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "other: 2 steps; its log is other.run/log.jsonl\n")
    assert result.stderr == ""
    (tmp_path / "other").rename(tmp_path / "first")
    result = run(config, "--output", "other", "--quiet")
    assert result.exit_code == 1 and "other.run: holds an unfinished run; continue it with --resume" in result.stderr
    result = run(config, "--output", "other", "--resume", "--quiet")
    assert result.exit_code == 0, result.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "other.run" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4]


def test_a_dry_run_writes_nothing(config: Path, tmp_path: Path) -> None:
    result = run(config, "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("trained parameters: ") and "head " in lines[0] and "; frozen: " in lines[0]
    assert lines[1].startswith("first batch: 4 queries, 4 passages, ")
    assert any(line.startswith("  contrastive_fused ") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["train.yaml"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": [{"path": "none.jsonl"}]}, "none.jsonl"),
        ({"sources": [{"path": "${NOWHERE}/pairs.jsonl"}]}, "the environment variable NOWHERE is not set"),
        ({"base": "nowhere"}, "nowhere"),
        ({"stepps": 3}, "unknown setting 'stepps'"),
    ],
)
def test_faults_are_one_line(config: Path, change: dict[str, Any], words: str) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
    result = run(config)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_missing_configuration(tmp_path: Path) -> None:
    result = run(tmp_path / "none.yaml")
    assert result.exit_code == 1 and "no such configuration file" in result.stderr


@pytest.mark.slow
def test_two_processes(config: Path, tmp_path: Path, warm: WarmPython) -> None:
    """The same command through torchrun: one encoder, one log, states of each process; resumed as well."""
    launch = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 --standalone -m retriever train".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, str(config)], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("encoder: 4 steps") == 1
    log = (tmp_path / "encoder.run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [2, 4]
    assert {path.name for path in (tmp_path / "encoder.run" / "states").iterdir()} == {
        *("states.f16", "states.jsonl", "states-1.f16", "states-1.jsonl", "trunk.key"),
    }
    whole = read_weights(tmp_path / "encoder")
    (tmp_path / "encoder").rename(tmp_path / "first")
    (tmp_path / "encoder.run" / "checkpoint-4" / "trainer_state.json").unlink()
    # What torchrun tells its processes.
    of_two = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    resumed = [
        warm.start(
            *("-m", "retriever", "train", config, "--resume"),
            env=environment | of_two | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for process in [process.wait() for process in resumed]:
        assert process.returncode == 0, process.stderr
    again = read_weights(tmp_path / "encoder")
    assert whole is not None and again is not None
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
