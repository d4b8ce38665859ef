"""The commands to begin with: demo, doctor."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from retriever.cli.options import index_encoder_option, json_option, quiet_option
from retriever.search.modes import HYBRID

__all__ = ["demo", "doctor"]


@click.command()
@click.option("--index", "folder", type=click.Path(path_type=Path), default="python-docs-index", show_default=True)
@index_encoder_option
@quiet_option
def demo(folder: Path, encoder: str | None, quiet: bool) -> None:
    """Index the documentation of the running Python and search it.

    \b
    Example:
      retriever demo
    """
    from retriever.cli.printing.render import side_by_side
    from retriever.corpus.python_docs import DEMO_QUERIES, python_documentation
    from retriever.encoder.load import load_encoder
    from retriever.indexing.build import build_index, interrupted
    from retriever.search.retriever import Retriever

    begun = (folder / "index.json").exists()
    if begun and not interrupted(folder):
        click.echo(f"{folder} is there already and is searched as it is.", err=True)
    else:
        click.echo("Indexing the documentation of the running Python: its docstrings, nothing is downloaded.", err=True)
        coder = load_encoder("default" if encoder is None else encoder)
        report = build_index(python_documentation(), folder, encoder=coder, resume=begun, progress=not quiet)
        click.echo(f"{report.documents} documents in {folder}, {report.seconds:.0f} s.", err=True)
    with Retriever.open(folder, encoder) as retriever:
        modes = (HYBRID, *retriever.legs)
        for query in DEMO_QUERIES:
            click.echo(f"\n{query}")
            click.echo(
                side_by_side({mode: [hit.doc_id for hit in retriever.search(query, 3, mode=mode)] for mode in modes})
            )
    click.echo(
        "\nTry next:\n"
        f'  retriever search {folder} "your own question" --explain\n'
        f'  retriever search {folder} "your own question" --mode bm25 --json\n'
        "  retriever index YOUR-CORPUS.jsonl --index my-index"
    )


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check Java, torch, FAISS, the processor and the default encoder; exit with 1 if something is missing.

    \b
    Example:
      retriever doctor
    """
    from retriever.cli.checks import examine
    from retriever.cli.printing.render import findings_text
    from retriever.encoder.load import default_encoder_path

    findings = examine(default_encoder_path())
    lines = [json.dumps(finding._asdict()) for finding in findings]
    click.echo("\n".join(lines) if as_json else findings_text(findings))
    sys.exit(any(finding.status == "problem" for finding in findings))
