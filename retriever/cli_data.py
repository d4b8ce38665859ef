"""The commands that make training data: holdout."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["holdout"]


@click.command()
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--output", "-o", "folder", required=True, type=click.Path(path_type=Path), help="The BEIR folder.")
@click.option("--percent", type=click.IntRange(1, 99), default=5, show_default=True, help="Share that is held out.")
@click.option(
    "--distractors", type=click.IntRange(min=0), default=1000, show_default=True, help="Further passages, of each file."
)
@click.option("--distractor-corpus", "corpora", multiple=True, help="Another file of pairs, or a corpus, to take from.")
def holdout(pairs: Path, folder: Path, percent: int, distractors: int, corpora: tuple[str, ...]) -> None:
    """Make a BEIR folder of the passages of PAIRS that training holds out.

    PAIRS is a JSONL file (.gz too) of {"query", "positive"}. A passage is held out by the hash of its text, so that
    `retriever train` and this command agree on it. Questions that the training part asks too are left out.

    \b
    Example:
      retriever holdout medquad.jsonl.gz -o medquad-holdout --distractors 4000
    """
    from retriever.train.holdout import write_holdout

    report = write_holdout(pairs, folder, percent=percent, distractors=distractors, corpora=corpora)
    if report.seen:
        click.echo(f"left out {report.seen} questions that the training part asks, too", err=True)
    click.echo(
        f"{report.questions} questions, {report.answers} answers and {report.distractors} distractors in {folder}"
    )
