"""The command line: a command parses, makes one library call and prints; results on stdout, all else on stderr."""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.associate import associate
from retriever.cli.bench import bench
from retriever.cli.carve import carve
from retriever.cli.compare import compare
from retriever.cli.diagnose import diagnose, scale
from retriever.cli.edit import add, compact, delete, info, merge, snapshot, verify
from retriever.cli.evaluate import evaluate, report
from retriever.cli.experts import experts
from retriever.cli.export import export
from retriever.cli.mcp import mcp
from retriever.cli.options import (
    DENSE_TYPE,
    NOTHING_ASKED,
    ON_BAD,
    ON_DUPLICATE,
    UNFINISHED_INDEX,
    Cli,
    cluster_options,
    encoder_option,
    fusion_from,
    fusion_options,
    index_encoder_option,
    json_option,
    mode_option,
    query_mode_option,
    quiet_option,
    report_json,
    runtime_options,
    say_left_out,
    showing_options,
    sparse_backend_option,
)
from retriever.cli.pipelines import pipeline_options
from retriever.cli.push import push
from retriever.cli.reproduce import reproduce
from retriever.cli.runs import facets, fuse
from retriever.cli.serve import serve
from retriever.cli.start import demo, doctor
from retriever.cli.train import train, upcycle
from retriever.cli.train_data import holdout, mine, pseudo_queries, score
from retriever.cli.tune import tune
from retriever.names import ROW_TYPES, TOKEN_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.cluster.replicas import SearchCluster
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.rank.pipeline import Pipeline
    from retriever.search.retriever import Retriever
    from retriever.types import Hit, PipelineRanking, QueryRanking

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
    atexit.register(_prepare_next_start)


def _prepare_next_start() -> None:
    """Make the next command that needs Java faster, where this one did."""
    if "retriever.index.lucene.jvm" in sys.modules:
        from retriever.index.lucene.jvm import prepare_next_start

        prepare_next_start()


@cli.command()
@click.argument("corpus")
@click.option("--index", "folder", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@encoder_option
@runtime_options
@click.option("--resume", is_flag=True, help="Go on after the last commit of an interrupted run.")
@click.option(
    "--on-duplicate",
    type=ON_DUPLICATE,
    help="Ids that stand twice: skip keeps the first.",
)
@click.option("--on-bad", type=ON_BAD, help="Records that cannot be read.")
@click.option("--dense-type", type=DENSE_TYPE, help="FAISS index; auto goes by size.")
@click.option("--rows", type=click.Choice(ROW_TYPES), help="How vectors are stored.")
@click.option("--language", metavar="L", help="de, zh, ...: how BM25 reads words; auto: each document in its own.")
@click.option("--impact-scale", type=click.IntRange(min=1), help="A term weight is stored as round(weight * this).")
@click.option(
    "--max-terms", type=click.IntRange(min=1), help="Store only this many terms of a document, the strongest."
)
@click.option(
    "--chunk", is_flag=True, default=None, help="Split long documents by sentences; hits show their best chunk."
)
@click.option(
    "--chunk-tokens", type=click.IntRange(min=1), help="Longest chunk (sets --chunk); 200, or what the encoder reads."
)
@click.option(
    "--chunk-overlap", type=click.IntRange(min=0), help="Tokens that neighbouring chunks share (sets --chunk); a fifth."
)
@click.option(
    "--tokens",
    is_flag=False,
    flag_value="own",
    metavar="[FOLDER]",
    help="Store a vector for each token, for the stage late-interaction: of the encoder, or of a MultiVectorEncoder.",
)
@click.option(
    "--token-bits", type=click.Choice(TOKEN_BITS), help="Of each of their numbers: 2 take a quarter of the room of 8."
)
@click.option(
    "--expand", metavar="MODULE:FUNCTION", help="Gives for each of many texts words to be found by, too (doc2query)."
)
@click.option("--shards", type=click.IntRange(min=1), help="Make an index of so many folders, which are one together.")
@click.option(
    "--cluster", metavar="C", help="Build the shards on a Ray cluster: local, or its address (ray://HOST:10001)."
)
@click.option("--commit-every-documents", type=click.IntRange(min=1), help="A crash loses no more than this.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; options override it.")
@json_option
@quiet_option
def index(
    corpus: str,
    folder: Path,
    encoder: str,
    runtime: RuntimeConfig,
    resume: bool,
    shards: int | None,
    cluster: str | None,
    config: Path | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Index CORPUS into a new folder.

    CORPUS is a BEIR folder, a JSONL, TSV or CSV (.gz too) or Parquet file, several of them ('parts/*.jsonl.gz'), the
    same in an object store (s3://BUCKET/parts/*.parquet), a folder of text files, hf:NAME of the hub, or ir:ID of
    ir_datasets.

    \b
    Example:
      retriever index corpus.jsonl --index my-index
    """
    from retriever.config import resolve
    from retriever.encoder.load import load_encoder
    from retriever.indexing.build import IndexingConfig, build_index
    from retriever.tables import human_bytes

    if cluster is not None and shards is None:
        raise click.UsageError("--cluster needs --shards: how many folders to build, such as one for each processor")

    if settings["chunk_tokens"] is not None or settings["chunk_overlap"] is not None:
        settings["chunk"] = True
    how: dict[str, Any] = {"config": resolve(IndexingConfig, config, **settings)}
    how |= {"resume": resume, "progress": not quiet}
    if shards is None:
        report = build_index(corpus, folder, encoder=load_encoder(encoder, runtime), **how)
    else:
        from retriever.cluster.indexing import build_sharded_index

        report = build_sharded_index(
            corpus, folder, shards=shards, cluster=cluster, encoder=encoder, runtime=runtime, **how
        )
    say_left_out(report, how["config"].language)
    if report.truncated:
        click.echo(
            f"{report.truncated} texts are longer than the encoder reads; their vectors cover the start", err=True
        )
    if as_json:
        click.echo(report_json(report))
        return
    sizes = ", ".join(f"{part} {human_bytes(size)}" for part, size in report.sizes.items() if size)
    chunks = f" in {report.chunks} chunks" if report.chunks > report.documents else ""
    click.echo(
        f"{report.documents} documents{chunks} ({report.empty} without text, {report.duplicates} duplicates left out) "
        f"in {folder}: {sizes}; {report.seconds:.1f} s"
    )


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option("--queries", type=click.Path(path_type=Path), help="A file of queries (JSONL or TSV) instead of QUERY.")
@click.option("--like", metavar="DOC_ID", help="A document of the index instead of QUERY: find others like it.")
@mode_option
@pipeline_options
@click.option("--language", metavar="L", help="Of the queries: de, zh, ...; where it is not said, each is looked at.")
@click.option("--top-k", "-k", type=int, default=10, show_default=True)
@click.option("--filter", metavar="F", help="Only documents whose metadata satisfy it: 'year >= 2020 and lang = en'.")
@showing_options
@click.option("--explain", is_flag=True, help="Show which terms matched.")
@click.option("--verify", is_flag=True, help="First read the whole index, and refuse a damaged one.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where --queries writes its run (.trec, .jsonl).")
@click.option("--tag", default="retriever", show_default=True, help="Name of the run in its file.")
@fusion_options
@index_encoder_option
@query_mode_option
@sparse_backend_option
@cluster_options
@click.option("--quick", is_flag=True, help="Encode queries in int8 without torch, whatever documents are in.")
@json_option
@quiet_option
def search(
    folder: Path,
    query: str | None,
    queries: Path | None,
    like: str | None,
    mode: str,
    pipeline: Pipeline | None,
    language: str | None,
    top_k: int,
    filter: str | None,
    showing: dict[str, Any],
    explain: bool,
    verify: bool,
    output: Path | None,
    tag: str,
    fusion: str | None,
    weights: str | None,
    normalisation: str | None,
    encoder: str | None,
    query_mode: str | None,
    sparse_backend: str,
    cluster: SearchCluster | None,
    quick: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Search an index for QUERY, for every query of a file, or for documents like one of the index.

    \b
    Example:
      retriever search my-index "how do vaccines work" --explain --highlight
      retriever search my-index --like d07 --top-k 5
      retriever search my-index "how do vaccines work" --pipeline "hybrid > feedback > mmr(0.7)"
      retriever search my-index --queries queries.jsonl --top-k 1000 --mode bm25 --output run.trec
    """
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.index.commit import unfinished
    from retriever.search.retriever import Retriever

    if (query, queries, like).count(None) != 2 or (like and pipeline):
        raise click.UsageError(
            "give a QUERY, --queries FILE or --like DOC_ID, one of the three; the last has no pipeline"
        )
    if language is not None and like is not None:
        raise click.UsageError("--language is for a QUERY or --queries; documents of the index are read in their own")
    if (queries is None) != (output is None):
        raise click.UsageError("--queries and --output go together")
    if queries is not None and (explain or as_json or showing != NOTHING_ASKED):
        raise click.UsageError(
            "--explain, --json, --offset, --min-score, --fields and --highlight are for hits with their texts; "
            "--queries writes a run (.jsonl for JSON lines)"
        )
    how = fusion_from(fusion, weights, normalisation)
    with Retriever.open(
        folder,
        encoder,
        fusion=how,
        runtime=RuntimeConfig(quick_queries=True) if quick else None,
        query_mode=query_mode,
        verify=verify,
        sparse_backend=sparse_backend,
        cluster=cluster,
    ) as retriever:
        if unfinished(retriever.reader.commit_data):
            click.echo(f"{folder}: {UNFINISHED_INDEX}", err=True)
        if queries is not None and output is not None:
            asked = {"top_k": top_k, "filter": filter, "language": language}
            _search_file(retriever, queries, output, mode, pipeline, asked, tag, quiet)
            return
        how_many: dict[str, Any] = {"top_k": top_k, "mode": mode, "explain": explain, "filter": filter, **showing}
        if like is None:
            hits = retriever.search(query or "", pipeline=pipeline, language=language, **how_many)
        else:
            hits = retriever.more_like_this(like, **how_many)
        _show(hits, as_json, showing["highlight"])


def _show(hits: Sequence[Hit], as_json: bool, highlight: bool) -> None:
    from retriever.cli.render import hit_json, hit_text, stage_times_text

    if not hits and not as_json:
        click.echo("no hits", err=True)
    for hit in hits:
        click.echo((hit_json if as_json else hit_text)(hit, highlight))
    if hits and hits[0].stages and not as_json:
        click.echo(stage_times_text(hits[0]))


def _search_file(
    retriever: Retriever,
    queries: Path,
    output: Path,
    mode: str,
    pipeline: Pipeline | None,
    asked: dict[str, Any],
    tag: str,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    from retriever.corpus.corpus import load_queries
    from retriever.eval.data.runs import RunWriter
    from retriever.ranking import separate_ties

    loaded = list(load_queries(queries))
    found: Iterator[QueryRanking] | Iterator[PipelineRanking]
    if pipeline is None:
        found = retriever.rank(loaded, mode=mode, **asked)
    else:
        found = retriever.rank_pipeline(loaded, pipeline=pipeline, **asked)
    with RunWriter(output, tag) as writer:
        bar = tqdm(total=len(loaded), desc=mode, unit=" queries", file=sys.stderr, disable=quiet)
        for one in found:
            writer.write(one.query_id, separate_ties(one.ranking))
            bar.update()
        bar.close()
    click.echo(f"{len(loaded)} queries in {output}", err=True)


for command in (
    demo,
    doctor,
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
