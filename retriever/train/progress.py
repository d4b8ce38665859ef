"""The log of a training run as a file, and its progress on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from pathlib import Path

    from tqdm import tqdm
    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = ["LogFile", "Progress"]

SHOWN = {
    "loss": "loss",
    "top1_fused": "top1",
    "query_terms": "query terms",
    "document_terms": "document terms",
    "dead_terms": "dead",
}
"""Figures of the log that the progress shows, and what it calls them."""


class LogFile(TrainerCallback):
    """Appends each line of the log, with its step, to a file of JSON lines; a resumed run first drops later steps."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop the lines after the checkpoint: their steps are run, and logged, again."""
        if not state.is_world_process_zero:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True) if self._path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= state.global_step]
        self._path.write_text("".join(kept), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Append the line."""
        if state.is_world_process_zero and logs and "loss" in logs:
            logs = {name: value for name, value in logs.items() if name != "epoch"}  # the stream has no end
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step} | logs) + "\n")


class Progress(TrainerCallback):
    """Shows a bar with the loss and the main figures on a terminal, and one line for each line of the log elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar at the step from which the run starts or resumes."""
        from tqdm import tqdm

        if state.is_world_process_zero and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit=" steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the figures."""
        from tqdm import tqdm

        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        shown = ", ".join(f"{word} {logs[name]:.4g}" for name, word in SHOWN.items() if name in logs)
        if self._bar is not None:
            self._bar.set_postfix_str(shown)
        else:
            tqdm.write(f"step {state.global_step}/{state.max_steps}: {shown}", file=sys.stderr)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
