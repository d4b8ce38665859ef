"""The command that measures the tail latency of many shards: bench tail."""

from __future__ import annotations

import click

__all__ = ["bench_tail_command"]


@click.command("tail")
@click.option("--shards", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--median", type=float, default=20, show_default=True, help="Milliseconds that a shard usually takes.")
@click.option("--pause", type=float, default=500, show_default=True, help="Milliseconds more in some cases.")
@click.option("--pauses", type=float, default=0.01, show_default=True, help="The share of these cases.")
@click.option("--hedge", type=float, default=60, show_default=True, help="Milliseconds before a second request.")
def bench_tail_command(shards: int, queries: int, median: float, pause: float, pauses: float, hedge: float) -> None:
    """Measure how long a query waits for the slowest of many shards, with and without replicas and hedged requests.

    Actors of a local Ray cluster are asked as a search asks them, and wait for as long as a delay that is drawn says.

    \b
    Example:
      retriever bench tail --shards 32 --queries 200
    """
    from retriever.bench.shards.tail import Delays, TailLatency, bench_tail
    from retriever.tables import table

    delays = Delays(median=median / 1000, pause=pause / 1000, pauses=pauses)
    found = bench_tail(shards, queries, delays=delays, hedge=hedge / 1000)
    rows = [[one.setting, *(f"{value:.0f}" for value in one[1:4]), f"{one.requests:.3f}"] for one in found]
    click.echo(table(TailLatency._fields, rows))
