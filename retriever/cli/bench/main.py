"""The commands that measure speed and memory: bench."""

from __future__ import annotations

import click

from retriever.cli.bench.compression import compression
from retriever.cli.bench.encode import bench_encode_command
from retriever.cli.bench.fusion import bench_fusion_command
from retriever.cli.bench.rank import bench_rank_command
from retriever.cli.bench.search import bench_search_command, bench_sparse_command
from retriever.cli.bench.serve import bench_serve_command
from retriever.cli.bench.shards import bench_shards_command
from retriever.cli.bench.tail import bench_tail_command
from retriever.cli.options import DENSE_TYPE, encoder_option, numbers

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measure speed and memory.

    \b
    Example:
      retriever bench index wiki.jsonl.gz
    """


@bench.command("index")
@click.argument("corpus")
@click.option("--sizes", default="10000,100000", show_default=True, help="How many documents, one index each.")
@click.option("--dense-type", type=DENSE_TYPE, default="flat", show_default=True)
def bench_index_command(corpus: str, sizes: str, dense_type: str) -> None:
    """Index the start of CORPUS with a stub encoder: documents per second and peak memory.

    \b
    Example:
      retriever bench index wiki.jsonl.gz --sizes 10000,100000
    """
    from retriever.bench.encoding.indexing import IndexingSpeed, bench_index
    from retriever.tables import table

    rows = bench_index(corpus, numbers(sizes), dense_type)
    click.echo(
        table(
            IndexingSpeed._fields, [[str(v) if isinstance(v, int | str) else f"{v:.1f}" for v in row] for row in rows]
        )
    )


@bench.command("evaluate")
@click.option("--queries", type=click.IntRange(min=1), default=7000, show_default=True)
@click.option("--hits", type=click.IntRange(min=1), default=1000, show_default=True, help="Hits of each query.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns; medians are shown.")
def bench_evaluate_command(queries: int, hits: int, rounds: int) -> None:
    """Measure a random run with retriever, ir_measures and (if installed) ranx: seconds from files to figures.

    \b
    Example:
      retriever bench evaluate --queries 500
    """
    from retriever.bench.evaluate import EvaluationSpeed, bench_evaluate
    from retriever.tables import table

    found = bench_evaluate(queries, hits, rounds)
    rows = [[one.tool, *(f"{value:.2f}" for value in one[1:4]), f"{one.ndcg:.6f}"] for one in found]
    click.echo(table(EvaluationSpeed._fields, rows))


@bench.command("chunk")
@click.option("--length", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="UTF-8 bytes.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns; medians are shown.")
@encoder_option
def bench_chunk_command(length: int, rounds: int, encoder: str) -> None:
    """Split one long text of each of many shapes (no sentences, no spaces, only dots): seconds, and ratio to prose.

    \b
    Example:
      retriever bench chunk --length 100000
    """
    from retriever.bench.encoding.chunking import ChunkingSpeed, bench_chunking
    from retriever.encoder.load import load_encoder
    from retriever.tables import table

    found = bench_chunking(load_encoder(encoder), length, rounds=rounds)
    rows = [[one.shape, f"{one.seconds:.3f}", f"{one.ratio:.2f}", str(one.tokens), str(one.chunks)] for one in found]
    click.echo(table(ChunkingSpeed._fields, rows))


bench.add_command(bench_encode_command)
bench.add_command(compression)
bench.add_command(bench_fusion_command)
bench.add_command(bench_rank_command)
bench.add_command(bench_search_command)
bench.add_command(bench_sparse_command)
bench.add_command(bench_serve_command)
bench.add_command(bench_shards_command)
bench.add_command(bench_tail_command)
