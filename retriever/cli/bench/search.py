"""The commands that measure search: bench search and bench sparse."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli.options import encoder_option, numbers, quiet_option
from retriever.names import SPARSE_BACKENDS

__all__ = ["bench_search_command", "bench_sparse_command"]


@click.command("search")
@click.argument("corpus")
@click.option("--queries", "queries", required=True, type=click.Path(path_type=Path), help="JSONL or TSV of queries.")
@encoder_option
@click.option("--sizes", default="10000,100000", show_default=True, help="How many documents, one run each.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Folder of the report.")
@click.option(
    "--systems", help="What is measured, of retriever,faiss,pyserini,bm25s,qdrant,seismic.  [default: all installed]"
)
@click.option("--top-k", default="10,200", show_default=True, help="Numbers of hits to find.")
@click.option("--threads", default="1,2", show_default=True, help="How many queries at a time.")
@click.option("--first", "count", type=click.IntRange(min=1), default=100, show_default=True, help="Number of queries.")
@quiet_option
def bench_search_command(
    corpus: str,
    queries: Path,
    encoder: str,
    sizes: str,
    output: Path,
    systems: str | None,
    top_k: str,
    threads: str,
    count: int,
    quiet: bool,
) -> None:
    """Build and search collections of any size beside other engines, on the same data in the same run.

    CORPUS is what `retriever index` takes: its first documents are encoded, once, into the output folder, and each leg,
    hybrid search and its parts are measured. Or it is an index with all legs. For more documents than there are these
    are repeated, with other words left out and other noise in their vectors and weights, and the report says so. The
    systems answer in turn, a few queries each. A size that is on record in the output folder is shown and not measured
    again; what was interrupted continues.

    \b
    Example:
      retriever bench search wiki.jsonl.gz --queries nq.jsonl --sizes 10000,100000 --output report
    """
    from retriever.bench.search.report import text_of, title_of
    from retriever.bench.search.search import BenchSearchConfig, bench_search

    config = BenchSearchConfig(
        numbers(sizes),
        tuple(name.strip() for name in systems.split(",")) if systems else (),
        numbers(top_k),
        numbers(threads),
        count,
    )
    for report in bench_search(corpus, queries, output, config, encoder=encoder, progress=not quiet):
        click.echo(f"{title_of(report)}\n\n{text_of(report)}\n")


@click.command("sparse")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--queries", "queries", required=True, type=click.Path(path_type=Path), help="JSONL or TSV of queries.")
@click.option("--backends", help=f"What is measured, of {','.join(SPARSE_BACKENDS)}.  [default: all installed]")
@click.option("--top-k", default="10,1000", show_default=True, help="Numbers of hits to find.")
@click.option("--first", "count", type=click.IntRange(min=1), default=100, show_default=True, help="Number of queries.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A JSON file of the figures.")
def bench_sparse_command(
    index: Path, queries: Path, backends: str | None, top_k: str, count: int, output: Path | None
) -> None:
    """Search the sparse terms of INDEX by each back end in turn: speed, and recall of the exact hits.

    \b
    Example:
      retriever bench sparse my-index --queries queries.jsonl --backends postings,lucene,two-step
    """
    from retriever.bench.search.sparse import BackendSpeed, bench_sparse, stored_postings
    from retriever.files import atomic_file
    from retriever.tables import table

    names = [name.strip() for name in backends.split(",")] if backends else []
    found = bench_sparse(index, queries, names, count, numbers(top_k))
    stored = stored_postings(index)
    if output is not None:
        with atomic_file(output) as file:
            file.write((json.dumps([one._asdict() for one in found], indent=1) + "\n").encode())
    rows = [[one.backend, str(one.top_k), *("" if v is None else f"{v:.3f}" for v in one[2:])] for one in found]
    click.echo(table(BackendSpeed._fields, rows))
    if stored is not None:
        click.echo(
            f"\n{stored.postings:,} postings of {stored.bytes_a_posting:.2f} bytes; opened in {stored.open_s:.4f} s, "
            f"made from Lucene's in {stored.build_s:.2f} s"
        )
