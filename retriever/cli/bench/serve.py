"""The command that measures a server: bench serve."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli.options import numbers

__all__ = ["bench_serve_command"]


@click.command("serve")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--queries", "queries", required=True, type=click.Path(path_type=Path), help="JSONL or TSV of queries.")
@click.option(
    "--modes",
    default="bm25,hybrid@lexical,hybrid@encoder",
    show_default=True,
    help="What is asked for; behind @ how queries become terms.",
)
@click.option("--connections", default="1,4,16", show_default=True, help="How many ask at a time, each in turn.")
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Of a turn.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Turns of each.")
@click.option("--top-k", "-k", type=click.IntRange(min=1), default=10, show_default=True, help="Hits with texts.")
@click.option("--without-pyserini", is_flag=True, help="Leave pyserini's REST server out, which does BM25 alone.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A JSON file of the figures.")
def bench_serve_command(
    index: Path,
    queries: Path,
    modes: str,
    connections: str,
    seconds: float,
    rounds: int,
    top_k: int,
    without_pyserini: bool,
    output: Path | None,
) -> None:
    """Measure what HTTP costs: searches by the library, by `retriever serve` and by pyserini's server, in turn.

    The servers are started on 127.0.0.1 and ended again. Give more than 128 different queries: an encoder remembers
    the last ones.

    \b
    Example:
      retriever bench serve my-index --queries queries.jsonl --connections 1,16
    """
    from retriever.bench.serving.serving import BenchServeConfig, ServingSpeed, bench_serve
    from retriever.files import atomic_file
    from retriever.tables import table

    named = tuple(mode.strip() for mode in modes.split(",") if mode.strip())
    config = BenchServeConfig(named, numbers(connections), seconds, rounds, top_k, not without_pyserini)
    found = bench_serve(index, queries, config)
    if output is not None:
        with atomic_file(output) as file:
            file.write((json.dumps([one._asdict() for one in found], indent=1) + "\n").encode())
    header = [name.replace("_", " ").replace("per", "a") for name in ServingSpeed._fields]
    rows = [[*map(str, one[:5]), *("" if value is None else f"{value:.2f}" for value in one[5:])] for one in found]
    click.echo(table(header, rows))
