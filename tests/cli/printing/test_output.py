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


SEVERAL = """
import sys
from retriever.cli.main import cli
for options in ([], ["--json"], ["--filter", sys.argv[2]]):
    try:
        cli(["search", sys.argv[1], "bicycle", *options])
    except SystemExit as ended:
        print("ended with", ended.code or 0, flush=True)
"""


def run(encoding: str, *args: object, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=300)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", f"{TITLE}\n"),
        ("latin-1", "Straße \\ud83d\\udeb2\n"),
        ("cp1252", "Straße \\ud83d\\udeb2\n"),
        ("cp1251", "Stra\\u00dfe \\ud83d\\udeb2\n"),
        ("ascii", "Stra\\u00dfe \\ud83d\\udeb2\n"),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped_and_json_stays_json(folder: Path, encoding: str, shown: str) -> None:
    done = run(encoding, "-c", SEVERAL, folder, "größe = 1")
    text, found, nothing = done.stdout.decode(encoding).split("ended with ")[:3]
    assert shown in text
    assert found.startswith("0\n") and nothing == "0\n"
    hit = json.loads(found.removeprefix("0\n"))
    assert (hit["doc_id"], hit["title"], hit["metadata"]) == ("ø", TITLE, {"Ort": "Zürich"})
    [said] = done.stderr.decode(encoding).splitlines()
    assert said.startswith("Error: filter: the index has no field 'gr")
    assert done.stdout.endswith(b"ended with 1\n")


def test_output_that_goes_nowhere(folder: Path) -> None:
    """Nobody reads the pipe any more: quiet. The disk is full: one line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run("utf-8", "-m", "retriever", "search", folder, "bicycle", stdout=writer)
    os.close(writer)
    assert done.stderr == b"" and done.returncode == 1
    full = os.open("/dev/full", os.O_WRONLY)
    for args in (("search", folder, "bicycle"), ("--help",)):
        done = run("utf-8", "-m", "retriever", *args, stdout=full)
        assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")
    os.close(full)


def test_a_closed_standard_output_is_said_and_no_file_takes_its_number(folder: Path) -> None:
    program = (
        "import os, sys\nfrom retriever.cli.main import cli\n"
        "try: cli(['info', sys.argv[1]])\n"
        "finally: print(*(os.readlink(f'/proc/self/fd/{number}') for number in (0, 1)), file=sys.stderr)"
    )
    command = 'exec "$@" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=300
    )
    said = done.stderr.splitlines()
    assert done.returncode == 0 and len(said) == 2, done.stderr
    assert said[0].startswith("standard output is closed") and said[1] == "/dev/null /dev/null"
