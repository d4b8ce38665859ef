"""The command that makes an index of a corpus: index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import (
    DENSE_TYPE,
    ON_BAD,
    ON_DUPLICATE,
    encoder_option,
    field_options,
    json_option,
    quiet_option,
    report_json,
    runtime_options,
    say_left_out,
)
from retriever.names import ROW_TYPES, TOKEN_BITS

if TYPE_CHECKING:
    from retriever.encoder.runtime import RuntimeConfig


@click.command()
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
@field_options
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
    from retriever.search.compiled import compile_beside
    from retriever.tables import human_bytes

    if cluster is not None and shards is None:
        raise click.UsageError("--cluster needs --shards: how many folders to build, such as one for each processor")

    if settings["chunk_tokens"] is not None or settings["chunk_overlap"] is not None:
        settings["chunk"] = True
    how: dict[str, Any] = {"config": resolve(IndexingConfig, config, **settings)}
    how |= {"resume": resume, "progress": not quiet}
    compile_beside()
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
