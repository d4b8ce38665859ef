"""The command that serves indexes over HTTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.options import cluster_options, index_encoder_option, query_mode_option
from retriever.cli.pipelines import served_pipelines_option
from retriever.types import UserError

if TYPE_CHECKING:
    from retriever.serve.settings import ServeSettings

__all__ = ["serve"]


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="[NAME=]DIR...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Server processes.")
@click.option("--threads", type=click.IntRange(min=1), help="Searches at once in each.  [default: one a core]")
@click.option("--write", is_flag=True, help="Let clients add, replace and delete documents.")
@click.option(
    "--keys",
    "key_file",
    type=click.Path(path_type=Path),
    help="A file of API keys, each line read SECRET or write SECRET; RETRIEVER_READ_KEYS and RETRIEVER_WRITE_KEYS too.",
)
@click.option("--without-keys", is_flag=True, help="Listen to other machines and ask nobody for a key.")
@click.option("--host-name", "host_names", multiple=True, metavar="NAME", help="What clients call it; * for anything.")
@click.option("--origin", "origins", multiple=True, metavar="URL", help="A site whose pages may ask (CORS).")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds for a search.  [default: 10]")
@click.option("--max-waiting", type=click.IntRange(min=1), help="Searches at work or waiting.  [default: 64]")
@click.option("--max-top-k", type=click.IntRange(min=1), help="Hits of one answer.  [default: 1000]")
@click.option("--max-documents", type=click.IntRange(min=1), help="MB of documents in a request.  [default: 256]")
@served_pipelines_option
@click.option("--log-queries", is_flag=True, help="Write into the log what people search for.")
@click.option("--check", is_flag=True, help="Say what would be exposed to whom, and stop.")
@index_encoder_option
@query_mode_option
@cluster_options
def serve(folders: tuple[str, ...], key_file: Path | None, check: bool, **options: Any) -> None:
    """Serve one or several indexes over HTTP: search, documents, vectors, and a page to search on.

    Read-only, and to this machine alone, unless options say otherwise. Sees new commits within a second.

    \b
    Example:
      retriever serve my-index
      curl 'http://127.0.0.1:8000/indexes/my-index/search?query=how+do+vaccines+work'
    """
    try:
        from retriever.serve.exposure import exposure
        from retriever.serve.run import serve as run
        from retriever.serve.security.keys import read_keys
    except ModuleNotFoundError as error:
        raise UserError(
            f"serving needs {error.name}, which is missing: pip install 'hybrid-retriever[serve]'"
        ) from None

    settings = _settings(folders, keys=read_keys(key_file), **options)
    if check:
        for subject, found in exposure(settings, key_file).items():
            click.echo(f"{subject:<20} {found}")
        return
    settings.check()
    names, rights = ", ".join(settings.indexes), "read and write" if settings.write else "read-only"
    click.echo(f"opening {names}", err=True)
    run(settings, announce=lambda address: click.echo(f"{names}: {address} ({rights}); Ctrl-C stops", err=True))


def _settings(folders: tuple[str, ...], threads: int | None, **options: Any) -> ServeSettings:
    from retriever.serve.indexes.pipelines import named_pipelines
    from retriever.serve.settings import Limits, ServeSettings, named_indexes

    given = {
        "seconds": options.pop("timeout"),
        "waiting": options.pop("max_waiting"),
        "top_k": options.pop("max_top_k"),
        "documents": (options["max_documents"] or 0) * 10**6 or None,
    }
    del options["max_documents"]
    options["pipelines"] = named_pipelines(options["pipelines"])
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    if threads is not None:
        options["threads"] = threads
    if options["cluster"] is not None:  # a search ends before its time is up
        options["cluster"] = replace(options["cluster"], patience=limits.seconds / 2)
    return ServeSettings(indexes=named_indexes(folders), limits=limits, **options)
