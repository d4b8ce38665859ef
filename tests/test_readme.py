"""Runs what the README shows, in order, in one folder: commands of ```console blocks, then ```python blocks.

A line that starts with "$ " is a command, "> " goes on with it; other lines are its output, which is not compared.
A block under <!-- not run: reason --> is left out, and so are commands that start with `make`; the
environment is on the PATH without being activated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from retriever.encoder.load import default_encoder_path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?P<mark><!--\s*not run:\s*(?P<reason>[^>]*?)\s*-->\s*)?^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.DOTALL | re.MULTILINE,
)
SECONDS = 300
ACTIVATE = "source .venv/bin/activate"


class Block(NamedTuple):
    """A fenced block of the README and the line on which it starts."""

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


def test_every_fence_is_closed_and_every_mark_belongs_to_a_block() -> None:
    assert len(re.findall(r"^```", README, re.MULTILINE)) == 2 * len(blocks(README))
    assert README.count("<!-- not run:") == sum(block.reason is not None for block in blocks(README))


def test_files_and_links_are_there() -> None:
    for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", README):
        assert (ROOT / target).exists(), target


def test_what_the_readme_shows_works(tmp_path: Path) -> None:
    run = [block for block in blocks(README) if block.reason is None]
    steps = [
        (block.line, ["bash", "-c", command]) for block in run if block.kind == "console" for command in commands(block)
    ]
    steps += [(block.line, [sys.executable, "-c", block.text]) for block in run if block.kind == "python"]
    assert steps
    if not (default_encoder_path() / "config.json").is_file():
        pytest.skip(f"no default encoder at {default_encoder_path()}")
    shutil.copytree(ROOT / "tests" / "data" / "tiny", tmp_path / "tests" / "data" / "tiny")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / ".cache"),
    }
    for line, command in steps:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"README.md:{line}: {command[2]}\n{done.stdout[-2000:]}"
