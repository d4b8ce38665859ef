"""The command that hands an encoder to other libraries: export."""

from __future__ import annotations

from pathlib import Path

import click

from retriever.names import VIEWS

__all__ = ["export"]


@click.command()
@click.argument("encoder")
@click.option("--view", type=click.Choice(VIEWS), required=True, help="Which vectors the model gives.")
@click.option(
    "--slices", type=click.IntRange(min=1), default=768, show_default=True, help="Numbers for the terms, if folded."
)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The folder to make.")
def export(encoder: str, view: str, slices: int, output: Path) -> None:
    """Write a view of ENCODER (a folder, a hub name or default) as a model of sentence-transformers.

    The dense view is a SentenceTransformer, the sparse one a SparseEncoder; folded is a SentenceTransformer of both in
    one vector, for stores without sparse ones. They are loaded with trust_remote_code=True where this package is
    installed.

    \b
    Example:
      retriever export default --view dense --output my-dense-model
    """
    from retriever.integrations.export import export_view

    folder = export_view(encoder, view, output, slices=slices)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    kind = "SparseEncoder" if view == "sparse" else "SentenceTransformer"
    click.echo(f'{folder}: {size:.1f} MiB; load it with {kind}("{folder}", trust_remote_code=True)')
