"""The command that copies an index to an engine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from retriever.cli.options import json_option, quiet_option

__all__ = ["push"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("place", metavar="ADDRESS")
@json_option
@quiet_option
def push(folder: Path, place: str, as_json: bool, quiet: bool) -> None:
    """Copy the index DIR, sharded or not, to the new Qdrant collection ADDRESS, which is then searched like a folder.

    ADDRESS is qdrant://HOST[:PORT]/COLLECTION, qdrants:// for TLS, or qdrant-edge:FOLDER for the engine in this
    process. QDRANT_API_KEY has the key of the server. Nothing is encoded. The same command after an interruption goes
    on where it was; at the end all points are counted and their checksums compared.

    \b
    Example:
      retriever push my-index qdrant://localhost/my-index
      retriever search qdrant://localhost/my-index "how do vaccines work"
    """
    from retriever.qdrant.push import push as push_index

    report = push_index(folder, place, progress=not quiet)
    if as_json:
        click.echo(json.dumps(report._asdict()))
        return
    chunks = f" in {report.chunks} chunks" if report.chunks > report.documents else ""
    click.echo(
        f"{report.documents} documents{chunks} in {place}, counted and compared ({report.sent} points sent); "
        f"{report.seconds:.1f} s"
    )
