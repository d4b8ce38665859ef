"""The commands that change an index or look after it: add, delete, compact, verify, snapshot, merge, info."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import (
    DENSE_TYPE,
    ON_BAD,
    ON_DUPLICATE,
    UNFINISHED_INDEX,
    field_options,
    index_encoder_option,
    json_option,
    quiet_option,
    report_json,
    runtime_options,
    say_left_out,
)
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.encoder.runtime import RuntimeConfig

__all__ = ["add", "compact", "delete", "info", "merge", "snapshot", "verify"]

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@folder_argument
@click.argument("corpus")
@index_encoder_option
@runtime_options
@click.option(
    "--on-duplicate",
    type=ON_DUPLICATE,
    default="error",
    show_default=True,
    help="Ids that stand twice in CORPUS: skip keeps the first.",
)
@click.option("--on-bad", type=ON_BAD, default="error", show_default=True, help="Unreadable records.")
@field_options
@click.option("--expand", metavar="MODULE:FUNCTION", help="As for `index`.")
@json_option
@quiet_option
def add(
    folder: Path,
    corpus: str,
    encoder: str | None,
    runtime: RuntimeConfig,
    on_duplicate: str,
    on_bad: str,
    expand: str | None,
    as_json: bool,
    quiet: bool,
    **fields: Any,
) -> None:
    """Add CORPUS to the index DIR; a document whose id is there already replaces it.

    The index's own encoder is used; --encoder says where it is, if it has moved.

    \b
    Example:
      retriever add my-index more.jsonl
    """
    from retriever.indexing.build import IndexingConfig
    from retriever.indexing.writer import add_corpus

    report = add_corpus(
        folder,
        corpus,
        encoder=encoder,
        runtime=runtime,
        config=IndexingConfig(on_duplicate=on_duplicate, on_bad=on_bad, expand=expand, **fields),
        progress=not quiet,
    )
    say_left_out(report)
    if as_json:
        click.echo(report_json(report))
        return
    click.echo(
        f"{report.added} added, {report.updated} updated ({report.duplicates} duplicates left out); "
        f"{folder} has {report.documents} documents; {report.seconds:.1f} s"
    )


@click.command()
@folder_argument
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--ids-from", type=click.Path(path_type=Path), help="A file with one id a line, besides the IDs given.")
@json_option
def delete(folder: Path, ids: tuple[str, ...], ids_from: Path | None, as_json: bool) -> None:
    """Delete the documents with these IDs from the index DIR; ids that it does not have are counted.

    \b
    Example:
      retriever delete my-index d1 d2
      retriever delete my-index --ids-from outdated.txt
    """
    from retriever.indexing.writer import IndexWriter, read_ids

    if not ids and ids_from is None:
        raise click.UsageError("give at least one ID, or --ids-from FILE")
    chosen = {*ids, *(read_ids(ids_from) if ids_from else ())}
    with IndexWriter.open(folder) as writer:
        deleted = writer.delete(chosen)
        if deleted:
            writer.commit()
        left = len(writer)
    if as_json:
        click.echo(json.dumps({"deleted": deleted, "unknown": len(chosen) - deleted, "documents": left}))
        return
    click.echo(f"{deleted} deleted, {len(chosen) - deleted} not there; {folder} has {left} documents")


@click.command()
@folder_argument
@click.option(
    "--dense-type",
    type=DENSE_TYPE,
    help="FAISS index from now on; auto goes by size. As before by default.",
)
def compact(folder: Path, dense_type: str | None) -> None:
    """Drop what is deleted or replaced from the index DIR, and build FAISS again; nothing is encoded.

    \b
    Example:
      retriever compact my-index --dense-type hnsw
    """
    from retriever.index.places import describe
    from retriever.indexing.writer import IndexWriter
    from retriever.tables import human_bytes

    with IndexWriter.open(folder) as writer:
        dropped = writer.compact(dense_type)
    left = describe(folder)
    size = human_bytes(sum(left.sizes.values()))
    click.echo(
        f"{dropped} dead rows dropped; {folder} has {left.documents} documents in {size}; faiss {left.dense_type}"
    )


@click.command()
@folder_argument
@json_option
def verify(folder: Path, as_json: bool) -> None:
    """Read every file of the index DIR and compare it with its checksum; exit with 1 and say which are damaged.

    \b
    Example:
      retriever verify my-index
    """
    from retriever.index.places import verify as verify_place
    from retriever.index.verify import damage_text
    from retriever.tables import human_bytes

    found = verify_place(folder)
    if as_json:
        click.echo(json.dumps(found._asdict() | {"damages": [damage._asdict() for damage in found.damages]}))
        sys.exit(bool(found.damages))
    if found.damages:
        raise UserError(damage_text(folder, found))
    click.echo(
        f"{folder}: {found.files} files, {human_bytes(found.bytes)}, as they were committed (commit {found.commit})"
    )


@click.command()
@folder_argument
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def snapshot(folder: Path, out: Path, as_json: bool) -> None:
    """Copy the last commit of the index DIR to the new folder OUT, which is an index itself; writers may go on.

    Most files are hard links, which take no space as long as DIR has them, too; on another file system they are copies.

    \b
    Example:
      retriever snapshot my-index backup/monday
    """
    from retriever.index.shards.merge import snapshot_index
    from retriever.tables import human_bytes

    taken = snapshot_index(folder, out)
    if as_json:
        click.echo(json.dumps(taken._asdict()))
        return
    click.echo(
        f"{out}: commit {taken.commit} of {folder}, {taken.documents} documents; {taken.links} files linked, "
        f"{taken.copies} copied ({human_bytes(taken.copied_bytes)})"
    )


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", "out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@json_option
def merge(folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Join the indexes in DIR... into the new sharded index OUT; nothing is encoded, and they stay as they are.

    They need the same encoder and settings, and no document may be in two of them. Most files are hard links.

    \b
    Example:
      retriever merge monday tuesday -o week
    """
    from retriever.index.shards.merge import merge_indexes
    from retriever.tables import human_bytes

    merged = merge_indexes(folders, out)
    if as_json:
        click.echo(json.dumps(merged._asdict()))
        return
    click.echo(
        f"{out}: {merged.documents} documents in {merged.shards} shards; {merged.links} files linked, "
        f"{merged.copies} copied ({human_bytes(merged.copied_bytes)})"
    )


@click.command()
@folder_argument
@json_option
def info(folder: Path, as_json: bool) -> None:
    """Print what is in the index DIR: counts, sizes, encoder, FAISS type, commit.

    \b
    Example:
      retriever info my-index
    """
    from retriever.cli.printing.render import info_text
    from retriever.index.places import describe
    from retriever.indexing.build import interrupted
    from retriever.search.fusion.stored import stored_fusion

    found = describe(folder)
    fusion = stored_fusion(found.note)
    if interrupted(folder):
        click.echo(f"{folder}: {UNFINISHED_INDEX}", err=True)
    if as_json:
        values = found._asdict() | {"encoder": found.encoder._asdict(), "fusion": fusion and asdict(fusion)}
        values["chunking"] = found.chunking and asdict(found.chunking)
        del values["note"]  # the position in the input and the like
        click.echo(json.dumps(values))
    else:
        click.echo(info_text(found, fusion))
