"""What a command that needs no network imports: a fresh process should answer at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli

TINY = Path(__file__).parents[1] / "data" / "tiny"
HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "pandas", "pyarrow", "datasets", "numba", "scipy"}
PROGRAM = """
import json, sys
from retriever.cli.main import cli
try:
    cli(sys.argv[1:])
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
COMMANDS = {
    "help": ["--help"],
    "search": ["search", "INDEX", "bread", "--mode", "bm25"],
    "info": ["info", "INDEX"],
    "verify": ["verify", "INDEX"],
    "delete": ["delete", "INDEX", "d02"],
    "evaluate": ["evaluate", "RUN", str(TINY / "qrels" / "test.tsv")],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    result = CliRunner().invoke(cli, ["index", str(TINY), "--index", str(folder / "INDEX"), "--encoder", "none"])
    assert result.exit_code == 0, result.output
    (folder / "RUN").write_text("q1 Q0 d01 1 1.0 t\n")
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_heavy_is_imported(name: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    command = [sys.executable, "-c", PROGRAM, *COMMANDS[name]]
    done = subprocess.run(command, cwd=tmp_path / "made", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stderr.splitlines()[-1]))
