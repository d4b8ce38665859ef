"""The commands that choose between systems: compare runs with a baseline, tune the fusion."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import index_encoder_option, json_option
from retriever.cli.pipelines import is_file, pipeline_from
from retriever.names import DEFAULT_MEASURES, LEARNED_MODELS
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.comparison import Comparison
    from retriever.eval.evaluator import Evaluation

__all__ = ["compare", "tune"]

SHOWN = 10
"""Pipelines in the table of what was tuned."""
HEADER = ("run", "measure", "mean", "difference", "95% interval", "t-test p", "random. p", "effect", "win/tie/loss")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN_A RUN_B [RUN_C ...]", type=click.Path(path_type=Path))
@click.argument("qrels", type=click.Path(path_type=Path))
@click.option("--measure", "-m", "measures", multiple=True, default=DEFAULT_MEASURES, show_default=True)
@json_option
def compare(runs: tuple[Path, ...], qrels: Path, measures: tuple[str, ...], as_json: bool) -> None:
    """Compare runs with the first of them, RUN_A, query by query, on the judgements of QRELS.

    For each run and measure: the difference of the means over all judged queries, its bootstrap interval, p of the
    paired t-test and of the paired randomisation test (two-sided, corrected by Holm over all comparisons shown),
    Cohen's d of the differences, and on how many queries the run is better, equal and worse.

    \b
    Example:
      retriever compare bm25.trec hybrid.trec qrels.tsv -m nDCG@10
    """
    from retriever.eval.comparison import compare as compare_evaluations
    from retriever.eval.data.qrels import read_judgements
    from retriever.eval.data.runs import read_run
    from retriever.eval.evaluator import evaluate_run
    from retriever.eval.measures import needs_subtopics
    from retriever.tables import table

    if len(runs) < 2:
        raise click.UsageError("give at least two runs, the baseline first, and QRELS")
    names = _names(runs)
    judged = read_judgements(qrels, subtopics=needs_subtopics(measures))
    results = {
        name: evaluate_run(read_run(run), judged.qrels, measures=measures, subtopics=judged.subtopics)
        for name, run in zip(names, runs, strict=True)
    }
    found = compare_evaluations(results)
    for name, result in results.items():
        if result.queries_missing:
            click.echo(f"{name}: {result.queries_missing} judged queries have no hits and count as 0", err=True)
    if as_json:
        for comparison in found:
            click.echo(_json(comparison, results[comparison.run]))
    else:
        click.echo(table(HEADER, _rows(found)))


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the names of the files, or the whole paths where two files have one name."""
    for names in ([run.name for run in runs], [str(run) for run in runs]):
        if len(set(names)) == len(names):
            return names
    twice = next(run for run in runs if runs.count(run) > 1)
    raise UserError(f"{twice}: given twice; a run is compared with others, give each once")


def _rows(found: Sequence[Comparison]) -> list[list[str]]:
    """Return the cells under HEADER: for each measure the baseline, then the runs."""
    rows: list[list[str]] = []
    for i, comparison in enumerate(found):
        if i == 0 or comparison.measure != found[i - 1].measure:
            baseline = [comparison.baseline, comparison.measure, f"{comparison.baseline_mean:.4f}"]
            rows.append(baseline + [""] * (len(HEADER) - len(baseline)))
        interval = comparison.interval
        rows.append(
            [
                comparison.run,
                comparison.measure,
                f"{comparison.mean:.4f}",
                f"{comparison.difference:+.4f}",
                "-" if math.isnan(interval.low) else f"{interval.low:+.4f} to {interval.high:+.4f}",
                _p(comparison.p_t_test),
                _p(comparison.p_randomisation),
                "-" if math.isnan(comparison.effect_size) else f"{comparison.effect_size:+.2f}",
                f"{comparison.wins}/{comparison.ties}/{comparison.losses}",
            ]
        )
    return rows


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _json(comparison: Comparison, evaluation: Evaluation) -> str:
    """Return one line of JSON; JSON has no NaN and no infinity, so they become null."""
    values = comparison._asdict() | {"interval": list(comparison.interval)}
    finite = {name: _finite(value) for name, value in values.items()}
    counts = {"queries_judged": evaluation.queries_judged, "queries_missing": evaluation.queries_missing}
    return json.dumps(finite | counts)


def _finite(value: object) -> object:
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    between them, if it is better than the mode without stages.

    \b
    Example:
      retriever tune my-index --dataset nfcorpus --split dev --write
      retriever tune my-index --dataset nfcorpus --split dev --pipeline "hybrid > feedback(documents=2|3, weight=0.5|1)"
      retriever tune my-index --dataset nfcorpus --split dev --model auto --pipeline "hybrid > feedback" --write
    """
    if model is not None:
        _learn(folder, dataset, split, write, model, pipeline or "hybrid > feedback", encoder, as_json)
        return
    if pipeline is not None:
        if write:
            raise click.UsageError("--write is for what an index stores, a fusion or a --model; search with --pipeline")
        _choose(folder, dataset, split, pipeline, encoder, as_json)
        return
    from retriever.cli.render import fusion_text
    from retriever.eval.data.datasets import load_dataset
    from retriever.experiments.tuning import leg_runs
    from retriever.experiments.tuning import tune as tune_fusion
    from retriever.search.retriever import Retriever
    from retriever.search.stored_fusion import store_fusion

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


def _choose(folder: Path, dataset: str, split: str, line: str, encoder: str | None, as_json: bool) -> None:
    from retriever.eval.data.datasets import load_dataset
    from retriever.experiments.pipeline_tuning import candidates, tune_pipeline
    from retriever.search.retriever import Retriever
    from retriever.tables import table

    pipelines = [pipeline_from(line)] if is_file(line) else candidates(line)
    data = load_dataset(dataset, split)
    with Retriever.open(folder, encoder) as retriever:
        found = tune_pipeline(retriever, data, pipelines=pipelines)
    if as_json:
        click.echo(json.dumps(found._asdict() | {"interval": list(found.interval)}))
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
