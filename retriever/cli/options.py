"""What the commands share: options, their parsing, and how the user's faults become one line."""

from __future__ import annotations

import errno
import json
import sys
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from retriever.cli.printing.output import escape_what_cannot_be_shown, hold_closed_streams
from retriever.corpus import corpus
from retriever.encoder.runtime import PRECISIONS, RuntimeConfig
from retriever.index.vectors.faiss_types import DENSE_TYPES
from retriever.names import QUERY_MODES, SPARSE_BACKENDS
from retriever.search.fusion.fusion import METHODS, NORMALISATIONS, FusionConfig
from retriever.search.modes import HYBRID, MODES, legs_named
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retriever.indexing.build import IndexReport
    from retriever.indexing.writer import AddReport

__all__ = [
    "DENSE_TYPE",
    "NOTHING_ASKED",
    "ON_BAD",
    "ON_DUPLICATE",
    "UNFINISHED_INDEX",
    "Cli",
    "cluster_options",
    "encoder_option",
    "field_options",
    "fusion_from",
    "fusion_options",
    "index_encoder_option",
    "json_option",
    "mode_option",
    "numbers",
    "query_mode_option",
    "query_modes_option",
    "quiet_option",
    "report_json",
    "runtime_options",
    "say_left_out",
    "showing_options",
    "sparse_backend_option",
]

INTERRUPTED = 130
UNFINISHED_INDEX = "indexing was interrupted, so documents are missing; `retriever index ... --resume` adds them"
INTERRUPTION = {
    "index": "interrupted; what was committed is safe, and the same command with --resume continues",
    "add": "interrupted; what was committed is safe, and the same command continues",
    "train": "interrupted; the same command with --resume continues from the last checkpoint, if there is one",
}


DENSE_TYPE = click.Choice(("auto", *DENSE_TYPES))
ON_DUPLICATE, ON_BAD = click.Choice(corpus.ON_DUPLICATE), click.Choice(corpus.ON_BAD)


class Cli(click.Group):
    """Turns the user's faults into one line and exit code 1, Ctrl-C into exit code 130."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        hold_closed_streams()
        escape_what_cannot_be_shown()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # of help or version, which come before any command
            click.echo(f"Error: {error.strerror or error}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(_one_line(str(error))) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has seen enough
                raise
            name = f"{error.filename}: " if error.filename else ""
            remedy = "; check the path, permissions and free space" if name else ""
            raise click.ClickException(_one_line(f"{name}{error.strerror or error}{remedy}")) from None
        except KeyboardInterrupt:
            click.echo(INTERRUPTION.get(ctx.invoked_subcommand or "", "interrupted"), err=True)
            ctx.exit(INTERRUPTED)


def _one_line(message: str) -> str:
    """Return an error with the line ends escaped that names of files may hold."""
    return message.replace("\n", "\\n").replace("\r", "\\r")


ENCODERS = "A folder or hub name; st:DENSE or st:DENSE+SPARSE for sentence-transformers models; none for BM25 alone."
_encoder_option = partial(click.option, "--encoder", "-e", metavar="E")
encoder_option = _encoder_option(default="default", show_default=True, help=ENCODERS)
index_encoder_option = _encoder_option(help=f"{ENCODERS}  [default: the index's own]")


def runtime_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how an encoder runs; the command gets them as one RuntimeConfig, `runtime`."""

    @wraps(command)
    def run(*args: Any, precision: str, device: str, workers: int, **others: Any) -> None:
        command(*args, runtime=RuntimeConfig(precision=precision, device=device, workers=workers), **others)

    options = (
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            show_default=True,
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, or several: cuda:0,cuda:1."),
        click.option(
            "--workers",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Encode documents in so many processes, each on cores of its own.",
        ),
    )
    for option in reversed(options):
        run = option(run)
    return run


def _mode(_ctx: click.Context, _param: click.Parameter, mode: str) -> str:
    try:
        legs_named(mode)
    except UserError as error:
        raise click.BadParameter(str(error)) from None
    return mode


mode_option = click.option(
    "--mode",
    "-m",
    callback=_mode,
    default=HYBRID,
    show_default=True,
    help=f"{', '.join(MODES)}, or legs joined as in dense+sparse.",
)
_query_mode_option = partial(
    click.option,
    "--query-mode",
    type=click.Choice(QUERY_MODES),
    help="How queries become sparse terms: by the network, or without it.  [default: the encoder's own]",
)
query_mode_option = _query_mode_option()
query_modes_option = _query_mode_option("query_modes", multiple=True)
sparse_backend_option = click.option(
    "--sparse-backend",
    type=click.Choice(SPARSE_BACKENDS),
    default=SPARSE_BACKENDS[0],
    show_default=True,
    help="What searches the sparse terms: two-step and seismic are not exact; seismic loads all terms first.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress bars.")


NOTHING_ASKED: dict[str, Any] = {"offset": 0, "min_score": None, "fields": None, "highlight": False}
"""What `showing_options` gives where none of them is used."""


def field_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what the fields of a corpus are called."""
    for role, usual in (
        ("title", "title"),
        ("text", "text, contents or abstract"),
        ("id", "_id, id, doc_id, docid or docno"),
    ):
        help = f"The field of CORPUS with the {role}; usually {usual}."
        command = click.option(f"--{role}-field", metavar="NAME", help=help)(command)
    return command


def showing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which hits are shown, and what of them; the command gets them as one dict, `showing`."""

    @wraps(command)
    def run(
        *args: Any, offset: int, min_score: float | None, fields: str | None, highlight: bool, **others: Any
    ) -> None:
        names = None if fields is None else [name.strip() for name in fields.split(",") if name.strip()]
        showing = {"offset": offset, "min_score": min_score, "fields": names, "highlight": highlight}
        command(*args, showing=showing, **others)

    options = (
        click.option("--offset", type=int, default=0, show_default=True, help="How many hits to pass over."),
        click.option("--min-score", type=float, help="Leave out hits below this score."),
        click.option("--fields", metavar="NAME,...", help="Metadata that --json prints; all by default, none for ''."),
        click.option("--highlight", is_flag=True, help="Show the best part of each text, and mark the words found."),
    )
    for option in reversed(options):
        run = option(run)
    return run


def cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that search a sharded index on a cluster; the command gets them as a SearchCluster, `cluster`."""

    @wraps(command)
    def run(
        *args: Any, cluster: str | None, replicas: int | None, hedge: float | None, partial: bool, **others: Any
    ) -> None:
        given = {"replicas": replicas, "hedge": hedge, "partial": partial or None}
        how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if how and cluster is None:
            raise click.UsageError(f"--{next(iter(how))} is for a search on a --cluster")
        if cluster is None:
            command(*args, cluster=None, **others)
            return
        from retriever.cluster.replicas import SearchCluster

        command(*args, cluster=SearchCluster(cluster, **how), **others)

    options = (
        click.option(
            "--cluster",
            metavar="C",
            help="Search shards on a Ray cluster: local, or its address (ray://HOST:10001).",
        ),
        click.option(
            "--replicas", type=click.IntRange(min=1), help="Processes that have each shard open.  [default: 1]"
        ),
        click.option("--hedge", type=click.FloatRange(min=0), help="Seconds before a second replica is asked, too."),
        click.option("--partial", is_flag=True, help="Leave out shards that do not answer, and say so."),
    )
    for option in reversed(options):
        run = option(run)
    return run


def fusion_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose how hybrid search fuses its legs."""
    options = (
        click.option("--fusion", type=click.Choice(tuple(METHODS)), help="How to fuse the legs."),
        click.option("--weights", metavar="LEG=W,...", help="Weights of the legs, e.g. bm25=0.3,sparse=0.2,dense=0.5."),
        click.option("--normalisation", type=click.Choice(tuple(NORMALISATIONS)), help="For weighted-sum."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def fusion_from(method: str | None, weights: str | None, normalisation: str | None) -> FusionConfig | None:
    """Return the fusion that the options ask for, what they leave out at its default; None, the index's, for none."""
    if method is weights is normalisation is None:
        return None
    from retriever.config import resolve

    return resolve(FusionConfig, None, method=method, weights=_weights(weights), normalisation=normalisation)


def _weights(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    try:
        return {leg.strip(): float(weight) for leg, weight in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"weights {text!r} cannot be read; write them as bm25=0.3,sparse=0.2,dense=0.5") from None


def numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers of "1,3,5"; raise UserError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{text!r} cannot be read; write whole numbers as 1,3,5") from None


def say_left_out(report: IndexReport | AddReport, language: str = "en") -> None:
    """Say on stderr what of a corpus did not come into the index, or not into all of its views.

    language: how BM25 was told to read it.
    """
    from retriever.corpus.left_out import left_out_text
    from retriever.languages import ENGLISH, analyzer_named

    if report.bad:
        click.echo(f"left out {report.bad} bad records, the first: {report.first_bad}", err=True)
    if text := left_out_text(report.left_out):
        click.echo(text, err=True)
    if report.unread:
        one = report.unread == 1
        texts, found = ("1 text is", "it is") if one else (f"{report.unread} texts are", "they are")
        read = analyzer_named(language) != ENGLISH
        words = "" if read else "--language auto (or theirs) for the right words, and "
        click.echo(
            f"{texts} in a language that the encoder does not read; {found} found by words alone. Index with "
            f"{words}-e st:intfloat/multilingual-e5-small for vectors",
            err=True,
        )


def report_json(report: IndexReport | AddReport) -> str:
    """Return a report as one line of JSON."""
    return json.dumps(report._asdict() | {"left_out": [kind._asdict() for kind in report.left_out]})
