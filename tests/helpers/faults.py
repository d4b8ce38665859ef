"""Commands that must fail, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from retriever.cli.main import cli

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
GOOD = '{"_id": "a", "text": "bread"}\n{"_id": "b", "text": "water"}\n'


def run(*args: object) -> Any:
    """Run a command; return its result."""
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def fault(*args: object) -> str:
    """Run a command that must fail; return the one line that it says."""
    result = run(*args)
    assert result.exit_code == 1, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), "the exception was not handled"
    assert result.stdout == ""
    lines: list[str] = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0]


def index(corpus: object, folder: object, *options: object) -> tuple[object, ...]:
    """Return the command that indexes a corpus without an encoder."""
    return ("index", corpus, "--index", folder, "--quiet", "--encoder", "none", *options)


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(file.name for file in folder.iterdir())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def found(folder: Path, query: str) -> list[str]:
    """Return the ids of what BM25 finds."""
    result = run("search", folder, query, "--mode", "bm25", "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line)["doc_id"] for line in result.stdout.splitlines()]
