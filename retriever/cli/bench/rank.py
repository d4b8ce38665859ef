"""The command that measures pipelines: quality and time of each stage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from retriever.cli.bench.fusion import judged_sets_option
from retriever.cli.options import json_option
from retriever.cli.pipelines import pipeline_from
from retriever.names import LEARNED_MODELS

__all__ = ["bench_rank_command"]


@click.command("rank")
@judged_sets_option
@click.option(
    "--pipeline",
    "lines",
    multiple=True,
    required=True,
    metavar="LINE|FILE",
    help="What to measure beside its mode alone; give it again for several.",
)
@click.option("--model", type=click.Choice(LEARNED_MODELS), default="auto", show_default=True, help="Of rescore.")
@click.option("--timed", type=click.IntRange(min=0), default=50, show_default=True, help="Queries of each set to time.")
@json_option
def bench_rank_command(
    sets: tuple[tuple[Path, str, str], ...], lines: tuple[str, ...], model: str, timed: int, as_json: bool
) -> None:
    """Measure pipelines on judged queries: nDCG@10, the difference to the first one's mode alone, milliseconds.

    `rescore` uses the model of the index where it was learnt behind the same stages from other queries; else each query
    is ranked by a model of the other four fifths. Times are medians of single queries, of the last stage and of the
    whole search, with ten hits and without texts.

    \b
    Example:
      retriever bench rank --on nf-index nfcorpus test --on cran-index cranfield test --pipeline "hybrid > feedback"
    """
    from retriever.bench.ranking.compared import Compared, compared_cells
    from retriever.bench.ranking.rank import measure_pipelines, rank_rows
    from retriever.eval.data.datasets import load_dataset
    from retriever.rank import Pipeline
    from retriever.search.retriever import Retriever
    from retriever.tables import table

    asked = [pipeline_from(line) for line in lines]
    pipelines = list(dict.fromkeys([Pipeline(asked[0].mode), *asked]))
    found, names = [], []
    for folder, dataset, split in sets:
        data = load_dataset(dataset, split)
        with Retriever.open(folder) as retriever:
            found.append(measure_pipelines(retriever, data, pipelines, kind=model, timed=timed))
        names.append(f"{data.name} {split}")
    rows = rank_rows(found)
    if as_json:
        for row in rows:
            values = dict(zip(names, row.values, strict=True))
            times = {
                name: None if math.isnan(value) else value for name, value in row._asdict().items() if "_ms" in name
            }
            click.echo(json.dumps(row._asdict() | times | {"values": values, "interval": list(row.interval)}))
        return
    shown = [
        [row.pipeline, *compared_cells(Compared(*row[1:5]), is_baseline=row is rows[0]), *map(_ms, row[5:])]
        for row in rows
    ]
    header = ("pipeline", *names, "mean", "difference", "95% interval", "last stage, ms", "search, ms")
    click.echo(table(header, shown))


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
