"""The command that gives indexes to agents."""

from __future__ import annotations

from pathlib import Path

import click

from retriever.cli.options import index_encoder_option, query_mode_option
from retriever.cli.pipelines import served_pipelines_option

__all__ = ["mcp"]


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="[NAME=]DIR...")
@click.option("--http", is_flag=True, help="Listen on a port, for clients elsewhere, in place of standard input.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --http: the address to listen on.")
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True, help="With --http.")
@click.option(
    "--keys", "key_file", type=click.Path(path_type=Path), help="With --http: a file of API keys, as `serve` takes it."
)
@served_pipelines_option
@index_encoder_option
@query_mode_option
def mcp(
    folders: tuple[str, ...],
    http: bool,
    host: str,
    port: int,
    key_file: Path | None,
    pipelines: tuple[str, ...],
    encoder: str | None,
    query_mode: str | None,
) -> None:
    """Give one or several indexes to agents, by the Model Context Protocol: search, fetch_document, list_indexes.

    Read-only. A client starts this command itself and speaks with it over standard input and output.

    \b
    Example:
      retriever mcp my-index
    """
    from retriever.extras import extra

    with extra("serve"):
        from retriever.serve.agents.mcp import PATH, run_stdio
        from retriever.serve.indexes.pipelines import named_pipelines
        from retriever.serve.run import serve
        from retriever.serve.security.keys import read_keys
        from retriever.serve.settings import ServeSettings, named_indexes
    settings = ServeSettings(
        indexes=named_indexes(folders),
        host=host,
        port=port,
        keys=read_keys(key_file),
        encoder=encoder,
        query_mode=query_mode,
        mcp=True,
        pipelines=named_pipelines(pipelines),
    )
    if not http:
        run_stdio(settings)
        return
    settings.check()
    names = ", ".join(settings.indexes)
    click.echo(f"opening {names}", err=True)
    serve(settings, announce=lambda address: click.echo(f"{names}: {address}{PATH}; Ctrl-C stops", err=True))
