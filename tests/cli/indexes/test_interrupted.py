"""Commands that end half-way, in processes of their own: a full disk, Ctrl-C, and what is left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers.faults import GOOD, ROOT, TINY, found, index, run
from tests.helpers.waiting import interrupted, wait_until


def start(*args: object, limit: int = 0, program: Sequence[str] = ("-m", "retriever")) -> subprocess.Popen[str]:
    """Start a real process, in which no file may grow beyond `limit` bytes."""
    before: Callable[[], None] | None = None
    if limit:
        before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    return subprocess.Popen(
        [sys.executable, *program, *map(str, args)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )


def write_corpus(path: Path, documents: int, words: int = 40) -> Path:
    """Write documents that can be told apart; the last hundred are ten times as long."""
    with path.open("w") as file:
        for i in range(documents):
            count = words if i < documents - 100 else 10 * words
            text = " ".join(f"w{(i * 7919 + j * 104729) % 50_021}" for j in range(count))
            file.write(json.dumps({"_id": f"d{i}", "text": f"number{i} {text}"}) + "\n")
    return path


def test_a_fault_of_a_real_process(tmp_path: Path) -> None:
    process = start("search", tmp_path / "missing", "bread")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1)
    process = start("search", tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2 and "QUERY" in err, "wrong usage is another exit code"


@pytest.mark.parametrize(
    ("documents", "limit", "commit"), [(1500, 300_000, 500), (5_000, 600_000, 250)], ids=["flush", "merge"]
)
def test_disk_full_while_indexing(tmp_path: Path, documents: int, limit: int, commit: int) -> None:
    corpus, folder = write_corpus(tmp_path / "corpus.jsonl", documents), tmp_path / "index"
    arguments = index(corpus, folder, "--commit-every-documents", commit)
    process = start(*arguments, limit=limit)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert str(folder) in err and "space" in err
    # What was committed is whole: it can be searched, and the run can go on.
    last = f"number{documents - 1}"
    assert (found(folder, "number0"), found(folder, last)) == (["d0"], [])
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"] == documents
    assert (found(folder, "number0"), found(folder, last)) == (["d0"], [f"d{documents - 1}"])


def test_disk_full_from_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    process = start(*index(TINY, folder), limit=100)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), err
    assert "space" in err
    assert not folder.exists()


WAITS = """
import time
from retriever.cli.main import cli
from retriever.index.writer import FolderWriter

def commit(writer, *arguments, **settings):
    committed(writer, *arguments, **settings)
    if writer.committed.number == 15:
        time.sleep(300)

committed, FolderWriter.commit = FolderWriter.commit, commit
cli(prog_name="retriever")
"""
"""The command line, which waits at the 15th commit: on a busy machine the signal may take its time."""


def test_ctrl_c_while_indexing(tmp_path: Path) -> None:
    corpus, folder = write_corpus(tmp_path / "corpus.jsonl", 5_000), tmp_path / "index"
    arguments = index(corpus, folder, "--commit-every-documents", 250)
    process = start(*arguments, program=("-c", WAITS))
    first = {"live-0.bin", "live-1.bin"}
    wait_until(lambda: process.poll() is not None or {file.name for file in folder.glob("rows/live-*.bin")} - first)
    out, err = interrupted(process)
    assert process.returncode == 130, err
    assert out == ""
    [line] = err.splitlines()
    assert "--resume" in line
    assert found(folder, "number0") == ["d0"], "the first commit is there"
    assert found(folder, "number4999") == [], "it was interrupted on the way"
    result = run(*arguments, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"] == 5_000
    assert [found(folder, f"number{i}") for i in (0, 249, 2_500, 4_999)] == [["d0"], ["d249"], ["d2500"], ["d4999"]]


def test_ctrl_c_before_anything_is_written(tmp_path: Path) -> None:
    fifo, folder = tmp_path / "corpus.jsonl", tmp_path / "index"
    os.mkfifo(fifo)
    process = start(*index(fifo, folder))
    writer = os.open(fifo, os.O_WRONLY)  # waits until the survey has opened it
    os.write(writer, GOOD.encode())
    out, err = interrupted(process)
    os.close(writer)
    assert (process.returncode, out, len(err.splitlines())) == (130, "", 1), err
    assert not folder.exists()
