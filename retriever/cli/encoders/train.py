"""The commands that make an encoder: upcycle, train."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from retriever.cli.options import numbers, quiet_option
from retriever.network.checkpoint import STORAGE

__all__ = ["train", "upcycle"]


@click.command()
@click.argument("base")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The encoder folder to make.")
@click.option("--experts", "num_experts", type=int, help="Copies of each feed-forward layer.")
@click.option("--experts-per-token", type=int, help="Copies that a token uses.")
@click.option("--granularity", type=int, help="Fine-grained experts that a copy is cut into.")
@click.option("--shared-experts", type=int, help="Fine-grained experts that every token uses.")
@click.option("--moe-layers", metavar="I,J,...", help="Layers to turn into MoE layers; every second one by default.")
@click.option("--reinit-fraction", type=float, help="Share of each expert's neurons drawn afresh.")
@click.option("--query-prompt", metavar="TEXT", help="Put before queries, instead of what BASE says.")
@click.option("--document-prompt", metavar="TEXT", help="Put before documents, instead of what BASE says.")
@click.option("--storage", type=click.Choice(STORAGE), default="int8", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; options override it.")
def upcycle(
    base: str, output: Path, moe_layers: str | None, storage: str, config: Path | None, **settings: Any
) -> None:
    """Turn the BERT-shaped checkpoint BASE (a folder or hub name) into a Mixture-of-Experts encoder.

    BASE may be a sentence-transformers model with its pooling, Dense layers and prompts. The result is compared with it
    on twenty texts, and written if it gives the same vectors.

    \b
    Example:
      retriever upcycle sentence-transformers/all-MiniLM-L6-v2 --output my-encoder
    """
    from retriever.config import resolve
    from retriever.languages import folder_languages
    from retriever.network.checkpoint import local_folder
    from retriever.network.folder import load_model, save_encoder
    from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint

    _silence_transformers()
    layers = None if moe_layers is None else numbers(moe_layers)
    made = upcycle_checkpoint(base, resolve(UpcycleConfig, config, moe_layers=layers, **settings))
    if made.notice:
        click.echo(made.notice, err=True)
    languages = folder_languages(local_folder(base))
    folder = save_encoder(made.model, made.tokenizer, output, storage, languages=languages)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    count = sum(value.numel() for value in made.model.parameters()) / 1e6
    click.echo(f"{folder}: {count:.1f} million parameters, {size:.1f} MiB")
    differs = "not compared, reinit_fraction is above 0" if made.deviation is None else f"at most {made.deviation:.1e}"
    stored = made.parent.least_cosine(load_model(folder))
    click.echo(f"difference from {base} on twenty texts: {differs}; stored as {storage}: cosine {stored:.6f} or more")


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
