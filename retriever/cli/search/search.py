"""The command that searches an index: for a query, for those of a file, or for documents like one of the index."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import (
    NOTHING_ASKED,
    UNFINISHED_INDEX,
    cluster_options,
    fusion_from,
    fusion_options,
    index_encoder_option,
    json_option,
    mode_option,
    query_mode_option,
    quiet_option,
    showing_options,
    sparse_backend_option,
)
from retriever.cli.pipelines import pipeline_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.cluster.replicas import SearchCluster
    from retriever.rank.pipeline import Pipeline
    from retriever.search.retriever import Retriever
    from retriever.types import Hit, PipelineRanking, QueryRanking


@click.command()
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
    from retriever.cli.printing.render import hit_json, hit_text, stage_times_text

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
