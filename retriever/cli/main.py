"""The command line: a command parses, makes one library call and prints; results on stdout, all else on stderr."""

from __future__ import annotations

import atexit
import os
import sys

import click

from retriever.cli.bench.main import bench
from retriever.cli.encoders.associate import associate
from retriever.cli.encoders.carve import carve
from retriever.cli.encoders.experts import experts
from retriever.cli.encoders.export import export
from retriever.cli.encoders.train import train, upcycle
from retriever.cli.encoders.train_data import holdout, mine, pseudo_queries, score
from retriever.cli.evaluation.compare import compare
from retriever.cli.evaluation.diagnose import diagnose, scale
from retriever.cli.evaluation.evaluate import evaluate, report
from retriever.cli.evaluation.reproduce import reproduce
from retriever.cli.evaluation.tune import tune
from retriever.cli.indexes.edit import add, compact, delete, info, merge, snapshot, verify
from retriever.cli.indexes.index import index
from retriever.cli.indexes.push import push
from retriever.cli.options import Cli
from retriever.cli.search.mcp import mcp
from retriever.cli.search.runs import facets, fuse
from retriever.cli.search.search import search
from retriever.cli.search.serve import serve
from retriever.cli.start import demo, doctor

__all__ = ["cli"]


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hybrid-retriever")
def cli() -> None:
    """Hybrid text retrieval: BM25, learned sparse terms and dense vectors, fused.

    \b
    Example:
      retriever index my-corpus.jsonl --index my-index
      retriever search my-index "how do vaccines work"
    """
    # Threads that wait by spinning make a query on a busy machine take a second instead of 30 ms.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault(
            "TQDM_MININTERVAL", "10"
        )  # a log gets a line of progress in so many seconds, not ten in one
    atexit.register(_prepare_next_start)


def _prepare_next_start() -> None:
    """Make the next command that needs Java faster, where this one did."""
    if "retriever.index.lucene.jvm" in sys.modules:
        from retriever.index.lucene.jvm import prepare_next_start

        prepare_next_start()


for command in (
    demo,
    doctor,
    index,
    search,
    add,
    delete,
    compact,
    verify,
    snapshot,
    merge,
    push,
    info,
    facets,
    fuse,
    serve,
    mcp,
    evaluate,
    report,
    compare,
    tune,
    reproduce,
    export,
    diagnose,
    scale,
    associate,
    carve,
    experts,
    bench,
    pseudo_queries,
    mine,
    score,
    holdout,
    upcycle,
    train,
):
    cli.add_command(command)
