"""Runs what the README and the pages of docs/ show, page by page: ```console blocks, then ```python blocks.

A line that starts with "$ " is a command, "> " goes on with it; other lines are its output, which is not compared.
A block under <!-- not run: reason --> is left out, and so are commands that start with `make`; the environment is
on the PATH without being activated. Every page has a folder of its own with the tiny data set. A plain `retriever`
command runs in this process, which has Java and torch already, others in bash; Python runs in a warm process.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.load import default_encoder_path

if TYPE_CHECKING:
    from tests.helpers.warm import WarmPython

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
INDEX = "retriever index tests/data/tiny --index my-index"
"""The command with which many pages begin: their index is made once."""
BLOCK = re.compile(
    r"(?P<mark><!--\s*not run:\s*(?P<reason>[^>]*?)\s*-->\s*)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.DOTALL | re.MULTILINE,
)
SECONDS = 300
ACTIVATE = "source .venv/bin/activate"


class Block(NamedTuple):
    """A fenced block of a page and the line on which it starts."""

    kind: str
    text: str
    reason: str | None
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(found["kind"], found["text"], found["reason"], text.count("\n", 0, found.start("text")))
        for found in BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[str]:
    """Return the commands of a block; a command goes on after a backslash, or on lines that start with "> "."""
    found: list[str] = []
    going_on = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif found and line.startswith("> "):
            found[-1] += "\n" + line[2:]
        elif going_on:
            found[-1] += "\n" + line
        else:
            continue
        going_on = found[-1].endswith("\\")
    return [command for command in found if command.split()[:1] != ["make"] and command != ACTIVATE]


def test_blocks_are_read_as_written() -> None:
    text = (
        "```console\n$ make demo\n$ a \\\n  b\nout\n$ c <<'E'\n> x\n> E\n```\n"
        "text\n\n<!-- not run: takes an hour -->\n```console\n$ d\n```\n\n```python\ne()\n```\n```\n$ f\n```\n"
    )
    found = blocks(text)
    assert [(block.kind, block.reason, block.line) for block in found] == [
        ("console", None, 1),
        ("console", "takes an hour", 13),
        ("python", None, 17),
        ("", None, 20),
    ]
    assert commands(found[0]) == ["a \\\n  b", "c <<'E'\nx\nE"]
    assert found[2].text == "e()\n"


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_closed_and_every_mark_belongs_to_a_block(page: str) -> None:
    text = PAGES[page]
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))
    assert text.count("<!-- not run:") == sum(block.reason is not None for block in blocks(text))


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_are_there(page: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the index of the guide."""
    if not (default_encoder_path() / "config.json").is_file():
        pytest.skip(f"no default encoder at {default_encoder_path()}")
    folder = tmp_path_factory.mktemp("docs") / "my-index"
    result = CliRunner().invoke(cli, ["index", str(ROOT / "tests" / "data" / "tiny"), "--index", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def run(command: str) -> str:
    """Run one command line; fail with its output if it ends with an error."""
    words = shlex.shlex(command, posix=True, punctuation_chars="|<>&;$`()")
    words.whitespace_split = True
    name, *arguments = words
    if name == "retriever" and not set("|<>&;$`(").intersection(argument[:1] for argument in arguments):
        result = CliRunner().invoke(cli, arguments)
        code, output = result.exit_code, f"{result.output}{result.exception or ''}"
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        code, output = done.returncode, done.stdout
    assert code == 0, f"{command}\n{output[-2000:]}"
    return output


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if any(b.reason is None for b in blocks(text))])
def test_what_a_page_shows_works(
    page: str, index: Path, tmp_path: Path, warm: WarmPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests" / "data" / "tiny", tmp_path / "tests" / "data" / "tiny")
    shown = [block for block in blocks(PAGES[page]) if block.reason is None]
    for block in shown:
        for command in commands(block) if block.kind == "console" else ():
            if command == INDEX:
                shutil.copytree(index, "my-index")
            else:
                run(command)
    for block in shown:
        if block.kind == "python":
            done = warm("-c", f"import warnings; warnings.simplefilter('error')\n{block.text}")
            assert done.returncode == 0, f"{page}:{block.line}\n{done.stderr[-2000:]}"
