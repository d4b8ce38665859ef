"""The command that trains an encoder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from retriever.cli_options import quiet_option

__all__ = ["train"]


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an interrupted run.")
@click.option("--steps", type=click.IntRange(min=1), help="Instead of the steps that CONFIG names.")
@click.option("--output", "-o", metavar="DIR", help="Instead of the output that CONFIG names.")
@click.option("--dry-run", is_flag=True, help="Check everything, run one batch without learning, write nothing.")
@quiet_option
def train(config: Path, resume: bool, steps: int | None, output: str | None, dry_run: bool, quiet: bool) -> None:
    """Train an encoder as the YAML file CONFIG says: base, output and sources, and any setting of TrainConfig.

    Checkpoints and log.jsonl (losses, active, dead and saturated terms, load and entropy of the experts) go to
    OUTPUT.run. It runs on the processor or one GPU; on several: torchrun --nproc-per-node N -m retriever train CONFIG.

    \b
    Example:
      retriever train my-training.yaml --output my-encoder
    """
    from retriever.train.settings import load_train_config

    settings = load_train_config(config, steps=steps, output=output)
    _silence_transformers()
    if dry_run:
        from retriever.train.loop import rehearse

        found = rehearse(settings)
        trained = ", ".join(f"{kind} {count:,}" for kind, count in found.parameters.items())
        click.echo(f"trained parameters: {trained}; frozen: {found.frozen:,}")
        click.echo(f"first batch: {found.queries} queries, {found.passages} passages, {found.tokens:,} tokens")
        for name, value in found.figures.items():
            click.echo(f"  {name} {value:g}")
        return
    from retriever.train.loop import train as run

    folder = run(settings, resume=resume, progress=not quiet)
    if os.environ.get("RANK", "0") == "0":  # of several processes one reports
        click.echo(f"{folder}: {settings.steps} steps; its log is {folder}.run/log.jsonl")


def _silence_transformers() -> None:
    """Leave out bars of single files, and the remark that checkpoints are ordered by their numbers."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
