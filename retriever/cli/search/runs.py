"""The commands around a search: facets of an index, and fusion of run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retriever.cli.options import json_option, mode_option
from retriever.search.fusion.fusion import METHODS, MISSING, NORMALISATIONS
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.types import Run

__all__ = ["facets", "fuse"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("field", required=False)
@click.option("--query", help="Count among the first hits of this query, instead of among all documents.")
@mode_option
@click.option("--filter", metavar="F", help="Count only documents whose metadata satisfy it.")
@click.option("--top-k", "-k", type=int, default=10, show_default=True, help="How many values.")
@json_option
def facets(
    folder: Path, field: str | None, query: str | None, mode: str, filter: str | None, top_k: int, as_json: bool
) -> None:
    """Count the documents that have each value of a metadata FIELD; without one, list the fields.

    \b
    Example:
      retriever facets my-index
      retriever facets my-index topic --filter "year >= 2015"
    """
    from retriever.cli.printing.render import one_line
    from retriever.search.retriever import Retriever

    if field is None and (query is not None or filter is not None):
        raise click.UsageError("--query and --filter count the values of a FIELD; name one")
    with Retriever.open(folder) as retriever:
        if field is None:
            for name, kinds, documents in retriever.fields():
                values = {"field": name, "kinds": list(kinds), "documents": documents}
                click.echo(json.dumps(values) if as_json else f"{documents:>8}  {one_line(name)} ({', '.join(kinds)})")
            return
        for value, documents in retriever.facets(field, query, top_k=top_k, mode=mode, filter=filter):
            written = value if isinstance(value, str) else json.dumps(value)
            line = json.dumps({"value": value, "documents": documents}, ensure_ascii=False)
            click.echo(line if as_json else f"{documents:>8}  {one_line(written)}")


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The fused run (.trec, .jsonl).")
@click.option("--fusion", type=click.Choice(tuple(METHODS)), default="weighted-sum", show_default=True)
@click.option("--weights", metavar="W,...", help="One for each RUN, in their order; equal ones by default.")
@click.option("--normalisation", type=click.Choice(tuple(NORMALISATIONS)), help="For weighted-sum.  [default: min-max]")
@click.option("--missing", type=click.Choice(MISSING), help="What a document gets from a RUN without it; not for rrf.")
@click.option("--k", type=float, help="For rrf.  [default: 60]")
@click.option("--rank-base", type=int, help="The rank of the first hit, 0 or 1, for rrf.  [default: 1]")
@click.option("--top-k", type=click.IntRange(min=1), help="Hits of each query that are written; all by default.")
@click.option("--tag", default="retriever", show_default=True, help="Name of the run in its file.")
def fuse(
    runs: tuple[Path, ...],
    output: Path,
    fusion: str,
    weights: str | None,
    top_k: int | None,
    tag: str,
    **settings: str | float | None,
) -> None:
    """Fuse run files, TREC or JSON lines, whatever system they come from, into one.

    \b
    Example:
      retriever fuse bm25.trec dense.trec -o fused.trec --weights 0.3,0.7
      retriever fuse bm25.trec splade.trec colbert.trec -o fused.trec --fusion rrf
    """
    from retriever.eval.data.runs import RunWriter, read_run
    from retriever.ranking import separate_ties
    from retriever.search.fusion.runs import fuse_runs

    asked = {name: value for name, value in settings.items() if value is not None}
    read: list[Run] = [read_run(path) for path in runs]
    fused = fuse_runs(read, _weights(weights), method=fusion, top_k=top_k, settings=asked)
    with RunWriter(output, tag) as writer:
        for query_id, ranking in fused.items():
            writer.write(query_id, separate_ties(ranking))
    click.echo(f"{len(fused)} queries of {len(runs)} runs in {output}", err=True)


def _weights(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(weight) for weight in text.split(",")]
    except ValueError:
        raise UserError(f"weights {text!r} cannot be read; write one for each run, as in 0.3,0.7") from None
