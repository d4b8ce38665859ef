"""A snapshot is an index of its own, whatever writers do meanwhile and afterwards, to either of the two."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retriever.index.reader import FolderReader
from retriever.index.snapshot import take_snapshot
from retriever.index.verify import verify_folder
from retriever.indexing.build import build_index
from retriever.indexing.writer import IndexWriter
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, UserError

WRITER = """
import itertools, sys, threading
from retriever.indexing.writer import IndexWriter
from retriever.testing import SeededEncoder
from retriever.types import Document

print("begun", flush=True)
ended = threading.Event()
threading.Thread(target=lambda: ended.set() if not sys.stdin.read() else None, daemon=True).start()
for number in itertools.count():
    if ended.is_set():
        break
    with IndexWriter.open(sys.argv[1], SeededEncoder()) as writer:
        writer.add([Document(f"new-{number}-{i}", f"snow {number} {i}") for i in range(20)])
        writer.delete([f"new-{number - 1}-{i}" for i in range(20)])
        writer.commit()
"""
"""Adds and deletes until its input ends: every commit removes the files of the one before."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents = [Document(f"d{i}", f"rain and wind {i}", metadata={"n": i}) for i in range(30)]
    build_index(documents, tmp_path / "index", encoder=SeededEncoder())
    return tmp_path / "index"


def shown(folder: Path) -> list[tuple[str, float]]:
    with Retriever.open(folder, SeededEncoder()) as retriever:
        return [(hit.doc_id, hit.score) for hit in retriever.search("rain 7", 30)]


def test_it_answers_as_the_index_and_shares_its_files(folder: Path, tmp_path: Path) -> None:
    taken = take_snapshot(folder, tmp_path / "backup" / "monday")
    out = tmp_path / "backup" / "monday"
    assert (taken.commit, taken.documents) == (1, 30)
    assert shown(out) == shown(folder)
    assert not verify_folder(out).damages
    shared = [file for file in out.rglob("*") if file.is_file() and file.stat().st_nlink > 1]
    assert len(shared) == taken.links > 0
    assert {file.parent.name for file in shared} <= {"lucene", "sparse", "bm25", "dense", "rows"}
    assert not [file for file in shared if file.name.startswith(("ids.", "vectors."))]
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["monday"]


def test_changing_one_does_not_change_the_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    take_snapshot(folder, out)
    before = shown(out)
    for changed in (folder, out):
        other = out if changed is folder else folder
        expected = shown(other)
        with IndexWriter.open(changed, SeededEncoder()) as writer:
            writer.add([Document(f"x{i}", "rain 7 rain 7") for i in range(5)])
            writer.delete(["d3"])
            writer.commit()
            writer.compact()
        assert shown(other) == expected
        assert not verify_folder(folder).damages
        assert not verify_folder(out).damages
    assert shown(out) != before
    shutil.rmtree(folder)
    assert not verify_folder(out).damages


def test_one_of_an_index_that_another_process_writes_to(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen: set[int] = set()
        number = 0
        while len(seen) < 8:
            assert process.poll() is None
            taken = take_snapshot(folder, tmp_path / f"s{number}")
            seen.add(taken.commit)
            number += 1
        process.communicate(timeout=120)
        assert process.returncode == 0
    for i in range(number):
        assert not verify_folder(tmp_path / f"s{i}").damages
        with FolderReader.open(tmp_path / f"s{i}") as reader:
            assert reader.num_documents in (30, 50)


def test_another_file_system_gets_copies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm") / f"retriever-snapshot-{os.getpid()}"
    if not other.parent.is_dir() or other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    try:
        taken = take_snapshot(folder, other)
        assert taken.links == 0
        assert not verify_folder(other).damages
        assert shown(other) == shown(folder)
    finally:
        shutil.rmtree(other, ignore_errors=True)


def test_what_it_refuses(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already, need a new folder"):
        take_snapshot(folder, folder)
    with pytest.raises(UserError, match="no index"):
        take_snapshot(tmp_path, tmp_path / "out")
    vectors = next((folder / "rows").glob("vectors.*"))
    data = bytearray(vectors.read_bytes())
    data[5] ^= 1
    vectors.write_bytes(data)
    with pytest.raises(UserError, match="wrong checksum"):
        take_snapshot(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
