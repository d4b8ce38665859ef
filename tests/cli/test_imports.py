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
from retriever.encoder.runtime import fastest_precision
from retriever.network.int8.decoder import decoder_kernels
from retriever.network.int8.query import few_kernels

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
NETWORK = HEAVY - {"scipy"}
"""What a search with the encoder does without, too."""
COMMANDS = {
    "help": ["--help"],
    "search": ["search", "INDEX", "bread", "--mode", "bm25", "--explain"],
    "info": ["info", "INDEX"],
    "verify": ["verify", "INDEX"],
    "delete": ["delete", "INDEX", "d02"],
    "evaluate": ["evaluate", "RUN", str(TINY / "qrels" / "test.tsv")],
}


JAVA = "jnius"
ASK_JAVA = {"verify", "delete"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    result = CliRunner().invoke(cli, ["index", str(TINY), "--index", str(folder / "INDEX"), "--encoder", "none"])
    assert result.exit_code == 0, result.output
    (folder / "RUN").write_text("q1 Q0 d01 1 1.0 t\n")
    return folder


def imported(arguments: list[str], folder: Path) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_heavy_is_imported(name: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "made")
    found = imported(COMMANDS[name], tmp_path / "made")
    assert not HEAVY & found and (JAVA not in found or name in ASK_JAVA)


@pytest.mark.skipif(fastest_precision("cpu") != "int8", reason="this processor does not encode in int8")
def test_a_search_with_the_encoder_imports_no_network(real_encoder_folder: Path, tmp_path: Path) -> None:
    arguments = ["index", str(TINY), "--index", str(tmp_path / "INDEX"), "--encoder", str(real_encoder_folder)]
    arguments += ["--chunk-tokens", "16"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    few_kernels()  # compiled by now, which is what numba is for
    decoder_kernels()
    found = imported(["search", "INDEX", "why does “bread” rise", "--explain"], tmp_path)
    assert not {*NETWORK, JAVA} & found
    assert "faiss" not in found  # so few vectors are scored without it
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "bread"}\n')
    several = ["search", "INDEX", "--queries", "queries.jsonl", "--output", "run.trec", "--mode", "dense"]
    assert not NETWORK & imported(several, tmp_path)
