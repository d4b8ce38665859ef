"""The log file and the progress of a training run."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from transformers import TrainerState

from retriever.train.progress import LogFile, Progress

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def state(step: int, first: bool = True) -> Any:
    return TrainerState(global_step=step, max_steps=10, is_world_process_zero=first)


LINE = {"loss": 1.23456, "top1_fused": 0.5, "document_terms": 31.0, "epoch": 0.1}
NOTHING: Any = None


def drive(progress: Progress, first: bool = True) -> None:
    """Go through steps 3 and 4 of 10, as a run that was resumed does."""
    progress.on_train_begin(NOTHING, state(2, first), NOTHING)
    for step in (3, 4):
        progress.on_step_end(NOTHING, state(step, first), NOTHING)
    progress.on_log(NOTHING, state(4, first), NOTHING, logs=LINE)
    progress.on_log(NOTHING, state(4, first), NOTHING, logs={"train_runtime": 1.0})
    progress.on_train_end(NOTHING, state(4, first), NOTHING)


def test_a_line_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    drive(Progress())
    assert shown.getvalue() == "step 4/10: loss 1.235, top1 0.5, document terms 31\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    drive(Progress())
    last = shown.getvalue().split("\r")[-1]
    assert " 4/10 " in last and "loss 1.235, top1 0.5" in last
    assert "step 4/10:" not in shown.getvalue()


def test_only_the_first_process_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    drive(Progress(), first=False)
    log = LogFile(tmp_path / "log.jsonl")
    log.on_train_begin(NOTHING, state(0, first=False), NOTHING)
    log.on_log(NOTHING, state(1, first=False), NOTHING, logs=LINE)
    assert shown.getvalue() == "" and list(tmp_path.iterdir()) == []


def test_the_log_is_cut_at_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    log = LogFile(path)
    log.on_train_begin(NOTHING, state(0), NOTHING)
    for step in (2, 4, 6):
        log.on_log(NOTHING, state(step), NOTHING, logs=LINE)
    log.on_log(NOTHING, state(6), NOTHING, logs={"train_runtime": 1.0})
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # torn
    log = LogFile(path)
    log.on_train_begin(NOTHING, state(4), NOTHING)
    log.on_log(NOTHING, state(6), NOTHING, logs=LINE)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[0] == {"step": 2, "loss": 1.23456, "top1_fused": 0.5, "document_terms": 31.0}
