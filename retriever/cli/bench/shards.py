"""The command that compares sharded indexes with a single one: bench shards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retriever.cli.options import numbers

if TYPE_CHECKING:
    from retriever.bench.shards.shards import ShardsMeasured

__all__ = ["bench_shards_command"]


@click.command("shards")
@click.argument("corpus")
@click.option("--queries", required=True, help="JSONL or TSV of queries.")
@click.option("--documents", type=click.IntRange(min=1), default=10_000, show_default=True, help="The first of CORPUS.")
@click.option("--number", type=click.IntRange(min=1), default=500, show_default=True, help="The first of the queries.")
@click.option("--shards", default="1,2,8", show_default=True, help="Sharded indexes to build, one after the other.")
@click.option("--encoder", "-e", metavar="E", default="hashed", show_default=True, help="hashed costs next to nothing.")
@click.option("--top-k", "-k", type=click.IntRange(min=1), default=100, show_default=True, help="Hits compared.")
def bench_shards_command(
    corpus: str, queries: str, documents: int, number: int, shards: str, encoder: str, top_k: int
) -> None:
    """Build and search a single index and sharded ones of the start of CORPUS: equal rankings, speed, memory.

    The single one is built in this process, the others by a local Ray cluster with a worker for each processor.

    \b
    Example:
      retriever bench shards wiki.jsonl --queries queries.jsonl --documents 200000
    """
    from retriever.bench.shards.shards import bench_shards
    from retriever.tables import table

    found = []
    for one in bench_shards(
        corpus,
        queries,
        documents=documents,
        shards=numbers(shards),
        encoder=encoder,
        depth=top_k,
        number_of_queries=number,
    ):
        found.append(one)
        click.echo(_row(one), err=True)
    modes = list(found[0].different)
    header = ["index", "build s", "CPU s", "documents/s", "queries/s", *(f"{mode} differ" for mode in modes)]
    click.echo(table(header, [_row(one) for one in found]))
    for one in found:
        click.echo(f"\n{one.setting}:")
        rows = [[seen.name, str(seen.number), f"{seen.resident:.0f}", f"{seen.private:.0f}"] for seen in one.memory]
        click.echo(table(["process", "number", "resident MiB", "private MiB"], rows))


def _row(one: ShardsMeasured) -> list[str]:
    built = ["" if value is None else f"{value:.1f}" for value in one[1:4]]
    return [one.setting, *built, f"{one.queries_per_second:.1f}", *map(str, one.different.values())]
