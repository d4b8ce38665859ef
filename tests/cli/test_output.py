"""What is printed where the terminal has other characters, or is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

TITLE, TEXT = "Straße 🚲", "зимой снег"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("output")
    record = {"_id": "ø", "title": TITLE, "text": f"{TEXT} bicycle", "Ort": "Zürich"}
    (path / "corpus.jsonl").write_text(json.dumps(record))
    args = ["index", path / "corpus.jsonl", "--index", path / "зима", "--encoder", "none", "--quiet"]
    made = CliRunner().invoke(cli, [*map(str, args)])
    assert made.exit_code == 0
    return path / "зима"


def run(encoding: str, *args: object, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "retriever", *map(str, args)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=60)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", f"{TITLE}\n"),
        ("latin-1", "Straße \\ud83d\\udeb2\n"),
        ("cp1251", "Stra\\u00dfe \\ud83d\\udeb2\n"),
        ("ascii", "Stra\\u00dfe \\ud83d\\udeb2\n"),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped(folder: Path, encoding: str, shown: str) -> None:
    done = run(encoding, "search", folder, "bicycle")
    assert shown in done.stdout.decode(encoding)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_json_stays_json(folder: Path, encoding: str) -> None:
    hit = json.loads(run(encoding, "search", folder, "bicycle", "--json").stdout.decode(encoding))
    assert (hit["doc_id"], hit["title"], hit["metadata"]) == ("ø", TITLE, {"Ort": "Zürich"})
    said = run(encoding, "search", folder, "bicycle", "--filter", "größe = 1")
    assert said.returncode == 1 and said.stderr.decode(encoding).startswith("Error: filter: the index has no field 'gr")
    assert b"Traceback" not in said.stderr


def test_output_that_goes_nowhere(folder: Path) -> None:
    """Nobody reads the pipe any more: quiet. The disk is full: one line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run("utf-8", "search", folder, "bicycle", stdout=writer)
    os.close(writer)
    assert done.stderr == b"" and done.returncode == 1
    full = os.open("/dev/full", os.O_WRONLY)
    for args in (("search", folder, "bicycle"), ("--help",)):
        done = run("utf-8", *args, stdout=full)
        assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")
    os.close(full)
