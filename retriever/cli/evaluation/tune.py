"""The command that fits what an index stores to judgements: tune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import index_encoder_option, json_option
from retriever.cli.pipelines import is_file, pipeline_from
from retriever.names import LEARNED_MODELS

if TYPE_CHECKING:
    from retriever.rank.pipeline import Pipeline

__all__ = ["tune"]

SHOWN = 10
"""Pipelines in the table of what was tuned."""


@click.command()
@click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
@click.option("--dataset", required=True, help="The data set that INDEX holds: a BEIR folder, hf:NAME, ir:ID, ...")
@click.option("--split", default="dev", show_default=True, help="Its judgements to fit to; keep those of the test.")
@click.option("--write", is_flag=True, help="Store what was fitted in INDEX: hybrid search then fuses so by default.")
@click.option("--model", type=click.Choice(LEARNED_MODELS), help="Learn a model of all lists, for the stage rescore.")
@click.option(
    "--pipeline",
    metavar="LINE|FILE",
    help="What gives --model its lists [default: hybrid > feedback]; without --model, what to choose settings of.",
)
@index_encoder_option
@json_option
def tune(
    folder: Path,
    dataset: str,
    split: str,
    write: bool,
    model: str | None,
    pipeline: str | None,
    encoder: str | None,
    as_json: bool,
) -> None:
    """Fit fusion weights and normalisation of INDEX to judgements, by nDCG@10; nothing is written without --write.

    The gain over the default fusion is cross-validated: each query is fused by what is best on the other four fifths.
    With --model, a model of the scores and ranks in all lists of a pipeline is learnt instead; the stage `rescore`
    behind that pipeline uses it. With --pipeline alone, the best of the settings is chosen that the line names with |
    between them, if it is better than the mode without stages; where the line ends in `rescore`, with a model for each,
    and no query is ranked, nor settings chosen for it, by a model that has seen it.

    \b
    Example:
      retriever tune my-index --dataset nfcorpus --split dev --write
      retriever tune my-index --dataset nfcorpus --split dev --pipeline "hybrid > feedback(documents=2|3, weight=0.5|1)"
      retriever tune my-index --dataset nfcorpus --split dev --pipeline "hybrid > feedback > rescore" --write
    """
    if pipeline is not None and (model is None or _learns(pipeline)):
        _choose(folder, dataset, split, write, pipeline, model or "auto", encoder, as_json)
        return
    if model is not None:
        _learn(folder, dataset, split, write, model, pipeline or "hybrid > feedback", encoder, as_json)
        return
    from retriever.cli.printing.render import fusion_text
    from retriever.eval.data.datasets import load_dataset
    from retriever.experiments.tuning import leg_runs
    from retriever.experiments.tuning import tune as tune_fusion
    from retriever.search.fusion.stored import store_fusion
    from retriever.search.retriever import Retriever

    data = load_dataset(dataset, split)
    with Retriever.open(folder, encoder) as retriever:
        found = tune_fusion(leg_runs(retriever, data.queries, exclude_self=data.exclude_self), data.qrels)
    if write:
        store_fusion(folder, found.fusion)
        click.echo(f"{folder}: hybrid search now fuses so unless told otherwise", err=True)
    if as_json:
        fusion = {"weights": dict(found.fusion.weights), "normalisation": found.fusion.normalisation}
        values = found._asdict() | {"fusion": fusion, "interval": list(found.interval)}
        del values["validated"]
        click.echo(json.dumps(values))
        return
    click.echo(
        f"nDCG@10 of {found.queries} queries: default {found.default:.4f}, cross-validated {found.cross_validated:.4f},"
        f" gain {found.gain:+.4f} (95% interval {found.interval.low:+.4f} to {found.interval.high:+.4f})\n"
        f"best on all of them, where it has {found.fitted:.4f}:\n" + fusion_text(found.fusion)
    )


def _candidates(line: str) -> list[Pipeline]:
    from retriever.experiments.pipeline_tuning import candidates

    return [pipeline_from(line)] if is_file(line) else candidates(line)


def _learns(line: str) -> bool:
    """Say whether a pipeline of a line ends in a model to be learnt."""
    from retriever.experiments.cross_fit import split_model

    return any(split_model(pipeline)[1] is not None for pipeline in _candidates(line))


def _choose(
    folder: Path, dataset: str, split: str, write: bool, line: str, kind: str, encoder: str | None, as_json: bool
) -> None:
    from retriever.eval.data.datasets import load_dataset
    from retriever.experiments.learning import store_model
    from retriever.experiments.pipeline_tuning import tune_pipeline
    from retriever.search.retriever import Retriever
    from retriever.tables import table

    if write and not _learns(line):
        raise click.UsageError(
            "--write is for what an index stores: a fusion, or the model of a pipeline that ends in rescore; "
            "search with --pipeline"
        )
    data = load_dataset(dataset, split)
    with Retriever.open(folder, encoder) as retriever:
        found = tune_pipeline(retriever, data, pipelines=_candidates(line), kind=kind)
    if write and found.model is None:
        click.echo(f"{folder}: nothing is stored, the best learns no model", err=True)
    elif write and found.model is not None:
        store_model(folder, found.model)
        click.echo(f"{folder}: its rescore now ranks behind {found.model.pipeline!r}", err=True)
    if as_json:
        learnt = None if found.model is None else json.loads(found.model.to_json())
        click.echo(json.dumps(found._asdict() | {"interval": list(found.interval), "model": learnt}))
        return
    mode = next(iter(found.values))
    best = sorted(found.values.items(), key=lambda pair: -pair[1])[:SHOWN]
    click.echo(
        table(("pipeline", "nDCG@10"), [[name, f"{value:.4f}"] for name, value in best])
        + f"\n{len(found.values)} pipelines, {found.queries} queries: {mode} {found.before:.4f}, the best chosen by "
        f"cross-validation {found.cross_validated:.4f}, gain {found.gain:+.4f} (95% interval {found.interval.low:+.4f} "
        f"to {found.interval.high:+.4f})\nbest on all of them: --pipeline {found.pipeline!r}"
    )


def _learn(
    folder: Path, dataset: str, split: str, write: bool, kind: str, line: str, encoder: str | None, as_json: bool
) -> None:
    from retriever.eval.data.datasets import load_dataset
    from retriever.experiments.learning import learn, store_model
    from retriever.search.retriever import Retriever

    pipeline, data = pipeline_from(line), load_dataset(dataset, split)
    with Retriever.open(folder, encoder) as retriever:
        found = learn(retriever, data, pipeline, kind=kind)
    if write:
        store_model(folder, found.model)
        click.echo(f"{folder}: {str(pipeline)!r} may now be followed by > rescore", err=True)
    if as_json:
        values = found._asdict() | {"model": json.loads(found.model.to_json()), "interval": list(found.interval)}
        click.echo(json.dumps(values))
        return
    interval = f"{found.interval.low:+.4f} to {found.interval.high:+.4f}"
    click.echo(
        f"nDCG@10 of {found.queries} queries: {pipeline.mode} {found.before:.4f}, {pipeline} {found.pipeline:.4f}, "
        f"with the model, cross-validated, {found.cross_validated:.4f}, gain over {pipeline.mode} {found.gain:+.4f} "
        f"(95% interval {interval})"
    )
