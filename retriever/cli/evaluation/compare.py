"""The commands that choose between systems: compare runs with a baseline, tune the fusion."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import json_option
from retriever.names import DEFAULT_MEASURES
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.eval.comparison import Comparison
    from retriever.eval.evaluator import Evaluation

__all__ = ["compare"]

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
