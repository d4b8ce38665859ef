"""The options that say what follows the fusion of a search."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from retriever.names import FEEDBACK_METHODS, HYBRID

if TYPE_CHECKING:
    from collections.abc import Callable

    from retriever.rank.pipeline import Pipeline

__all__ = ["is_file", "pipeline_from", "pipeline_options", "served_pipelines_option"]


served_pipelines_option = click.option(
    "--pipeline",
    "pipelines",
    multiple=True,
    metavar="NAME=LINE|FILE",
    help="A pipeline that clients may ask for by its name; only so may they have models loaded.",
)


def pipeline_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --pipeline, --feedback and --rerank; the command gets one Pipeline, or None where none of them is given.

    The command has `mode_option`, too: the mode becomes the pipeline's.
    """

    @wraps(command)
    def run(
        *args: Any, mode: str, pipeline: str | None, feedback: str | None, rerank: tuple[str, ...], **others: Any
    ) -> None:
        if pipeline is not None and (mode != HYBRID or feedback or rerank):
            raise click.UsageError("--pipeline says it all; leave --mode, --feedback and --rerank out, or --pipeline")
        found = None
        if pipeline is not None or feedback or rerank:
            found = pipeline_from(mode if pipeline is None else pipeline, feedback, rerank)
            mode = HYBRID
        command(*args, mode=mode, pipeline=found, **others)

    options = (
        click.option(
            "--pipeline",
            metavar="LINE|FILE",
            help="What to do, as in 'hybrid > feedback > mmr(0.7)', or a YAML file that says it.",
        ),
        click.option(
            "--feedback",
            type=click.Choice(FEEDBACK_METHODS),
            help="Search again with what the first hits have in common.",
        ),
        click.option(
            "--rerank",
            multiple=True,
            metavar="MODEL",
            help="Score the first 50 hits with cross-encoder:NAME, a folder or hub name.",
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run


def is_file(line: str) -> bool:
    """Say whether a pipeline is given as the name of a YAML file."""
    return line.endswith((".yaml", ".yml"))


def pipeline_from(line: str, feedback: str | None = None, rerank: tuple[str, ...] = ()) -> Pipeline:
    """Return the pipeline of a line, or of a YAML file, with the stages that the other options add.

    Raises:
        UserError: it cannot be read, or names what does not exist.
    """
    from retriever.rank import Feedback, Pipeline, Rerank

    read = Pipeline.read if is_file(line) else Pipeline.parse
    stages = [Feedback(feedback)] if feedback else []
    return read(line).then(*stages, *map(Rerank, rerank))
