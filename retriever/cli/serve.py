"""The command that serves indexes over HTTP."""

from __future__ import annotations

from pathlib import Path

import click

from retriever.cli.options import index_encoder_option, query_mode_option

__all__ = ["serve"]


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="[NAME=]DIR...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--write", is_flag=True, help="Let clients add, replace and delete documents.")
@click.option("--keys", "key_file", type=click.Path(path_type=Path), help="A file of API keys: read SECRET a line.")
@click.option("--without-keys", is_flag=True, help="Listen to other machines and ask nobody for a key.")
@index_encoder_option
@query_mode_option
def serve(
    folders: tuple[str, ...],
    host: str,
    port: int,
    write: bool,
    key_file: Path | None,
    without_keys: bool,
    encoder: str | None,
    query_mode: str | None,
) -> None:
    """Serve one or several indexes over HTTP: search, documents, vectors.

    \b
    Example:
      retriever serve my-index
      curl 'http://127.0.0.1:8000/indexes/my-index/search?query=how+do+vaccines+work'
    """
    from retriever.serve.keys import read_keys
    from retriever.serve.run import serve as run
    from retriever.serve.settings import ServeSettings, named_indexes

    settings = ServeSettings(
        indexes=named_indexes(folders),
        host=host,
        port=port,
        write=write,
        keys=read_keys(key_file),
        without_keys=without_keys,
        encoder=encoder,
        query_mode=query_mode,
    )
    run(settings)
