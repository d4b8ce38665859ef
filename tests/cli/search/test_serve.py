"""`retriever serve` says what is exposed, and what is wrong in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.indexing.build import build_index
from retriever.types import Document

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "stones"
    build_index([Document("a", "Granite")], folder, encoder="none")
    return folder


def test_check(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"read {'r' * 20}\nwrite {'w' * 20}\n")
    keys.chmod(0o644)
    result = CliRunner().invoke(cli, ["serve", f"x={folder}", "--check", "--write", "--keys", str(keys)])
    found = dict(line.split("  ", 1) for line in result.output.splitlines() if "  " in line)
    found = {subject: said.strip() for subject, said in found.items()}
    assert found["indexes"] == "x (1 documents)"
    assert (found["reading"], found["writing"]) == ("who has one of 2 keys", "who has one of 1 keys")
    assert found["key file"].endswith(f"chmod 600 {keys}")
    assert "rrrr" not in result.output
    alone = CliRunner().invoke(cli, ["serve", str(folder), "--check"]).output
    assert "this machine alone" in alone
    assert "nobody" in alone


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_what_is_refused(folder: Path, host: str) -> None:
    for arguments, said in (
        ([str(folder), "--host", host], "no key is asked for"),
        ([str(folder.with_name("nothing"))], "no such index folder"),
        ([str(folder), f"{folder}/../stones"], "are both called stones"),
        ([str(folder), "--keys", str(folder / "nothing")], "cannot be read"),
    ):
        result = CliRunner().invoke(cli, ["serve", *arguments])
        assert (result.exit_code, result.output.count("\n")) == (1, 1)
        assert said in result.output


def test_an_index_that_cannot_be_opened_is_one_line_and_no_traceback(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "rows" / "ids.utf8").write_bytes(b"x")
    command = [sys.executable, "-m", "retriever", "serve", str(broken), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "wrong checksum" in done.stderr or "damaged" in done.stderr
    assert "Traceback" not in done.stderr
