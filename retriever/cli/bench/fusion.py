"""The command that compares ways to fuse."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli.options import json_option

__all__ = ["bench_fusion_command", "judged_sets_option"]

judged_sets_option = click.option(
    "--on",
    "sets",
    nargs=3,
    multiple=True,
    required=True,
    type=(click.Path(path_type=Path), str, str),
    metavar="INDEX DATASET SPLIT",
    help="An index and the data set that it holds; several are compared by their mean.",
)


@click.command("fusion")
@judged_sets_option
@json_option
def bench_fusion_command(sets: tuple[tuple[Path, str, str], ...], as_json: bool) -> None:
    """Compare sums, reciprocal rank fusion, products and learned models on judged queries, by nDCG@10.

    What is learned is cross-validated: each query is ranked by what was learned from the other four fifths of its set.

    \b
    Example:
      retriever bench fusion --on nf-index nfcorpus dev --on cran-index cranfield test
    """
    from retriever.bench.ranking.compared import Compared, compared_cells
    from retriever.bench.ranking.fusion import DEFAULT, compare_fusions, fusion_values
    from retriever.eval.data.datasets import load_dataset
    from retriever.search.retriever import Retriever
    from retriever.tables import table

    found, names = [], []
    for folder, dataset, split in sets:
        data = load_dataset(dataset, split)
        with Retriever.open(folder) as retriever:
            found.append(fusion_values(retriever, data))
        names.append(f"{data.name} {split}")
    rows = compare_fusions(found)
    if as_json:
        for row in rows:
            values = dict(zip(names, row.values, strict=True))
            click.echo(json.dumps(row._asdict() | {"values": values, "interval": list(row.interval)}))
        return
    shown = [[row.fusion, *compared_cells(Compared(*row[1:]), is_baseline=row.fusion == DEFAULT)] for row in rows]
    click.echo(table(("fusion", *names, "mean", "difference", "95% interval"), shown))
