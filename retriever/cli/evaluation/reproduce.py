"""The command that measures named experiments again: reproduce."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from retriever.cli.options import json_option, quiet_option
from retriever.types import UserError

__all__ = ["reproduce"]

HEADER = ("experiment", "mode", "measure", "expected", "found", "")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the data sets; the hub's without it.")
@click.option("--list", "listed", is_flag=True, help="Say which experiments there are.")
@json_option
@quiet_option
def reproduce(names: tuple[str, ...], data: Path | None, listed: bool, as_json: bool, quiet: bool) -> None:
    """Measure the experiments called NAME, or all, and compare with the figures on record; exit with 1 on drift.

    \b
    Example:
      retriever reproduce --list
      retriever reproduce bm25-nfcorpus --data beir
    """
    from retriever.experiments.reproduce import choose, reproductions
    from retriever.tables import table

    chosen = choose(reproductions(), names)
    if listed:
        for one in chosen:
            modes = ", ".join(one.expected)
            click.echo(f"{one.name}: {modes} of {one.dataset}, {one.split}, encoder {one.encoder} ({one.source})")
        return
    from retriever.experiments.reproduction import dataset_of
    from retriever.experiments.reproduction import reproduce as measure_again

    checks = []
    for one in chosen:
        dataset = dataset_of(one, data)
        if dataset is None:
            where = "is not on the hub; say with --data where it is" if data is None else f"is not in {data}"
            if names:
                raise UserError(f"{one.name}: the data set {one.dataset} {where}")
            click.echo(f"{one.name}: left out, the data set {one.dataset} {where}", err=True)
            continue
        checks += measure_again(one, dataset, progress=not quiet)
    if not checks:
        raise UserError("nothing was measured; say with --data where the data sets are")
    if as_json:
        for found in checks:
            click.echo(json.dumps(found._asdict()))
    else:
        verdict = {True: "DRIFTED", False: "OK"}
        rows = [[*found[:3], f"{found.expected:.4f}", f"{found.found:.4f}", verdict[found.drifted]] for found in checks]
        click.echo(table(HEADER, rows))
    sys.exit(any(found.drifted for found in checks))
