"""Killed writers, full disks and second writers: the last commit stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.search.legs.bm25_postings import StoredWords
from retriever.search.legs.sparse_postings import StoredPostings
from retriever.types import Document, Encoded, EncoderIdentity, UserError
from tests.helpers.waiting import interrupted

ROOT = Path(__file__).parents[2]
DIM, VOCAB, BATCH = 8, 20, 50
SETTINGS = IndexSettings(EncoderIdentity("stub", "", DIM, VOCAB))

SCRIPT = """
import sys, resource, signal
import numpy as np
from scipy.sparse import csr_matrix
from retriever.index import FolderWriter
from retriever.types import Document, Encoded
path, limit = sys.argv[1], int(sys.argv[2])
dim, vocab = 8, 20
with FolderWriter.open(path) as writer:
    print("open", flush=True)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    batch = int(writer.committed.note.get("batch", 0))
    while True:
        random = np.random.default_rng(batch)
        texts = ["text " + " ".join(map(str, random.integers(0, 10**6, 60))) for _ in range(50)]
        documents = [Document(f"{batch}-{i}", text) for i, text in enumerate(texts)]
        views = random.random((50, dim), np.float32), csr_matrix(random.random((50, vocab), np.float32))
        writer.add(documents, Encoded(*views, np.zeros(50, bool)))
        if batch % 4 == 0:
            writer.delete([f"{batch}-0"])
        batch += 1
        if batch % 3 == 0:
            writer.commit({"batch": str(batch)}, "hnsw" if batch % 2 else None)
            print("committed", batch, flush=True)
"""


def start(path: Path, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(limit)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check(path: Path) -> int:
    """Compare the folder with what its last commit must hold; return how many batches that is."""
    with FolderWriter.open(path) as writer:
        batches = int(writer.committed.note.get("batch", 0))
        wanted = {f"{b}-{i}" for b in range(batches) for i in range(BATCH) if i or b % 4}
        assert set(writer.doc_ids) == wanted
    with FolderReader.open(path) as reader:
        assert reader.num_documents == len(wanted)
        assert set(reader.documents(wanted)) == wanted
        every = len(wanted) + 10
        assert {hit.doc_id for hit in reader.dense(np.ones((1, DIM), np.float32), every)[0]} == wanted
        query = csr_matrix(np.ones((1, VOCAB), np.float32))
        assert {hit.doc_id for hit in reader.sparse(query, every)} == wanted
        assert StoredPostings(reader).search(query, every) == reader.sparse(query, every)
        assert reader.word_postings is not None
        assert {hit.doc_id for hit in StoredWords(reader, reader.word_postings).search({"text": 1.0}, every)} == wanted
    return batches


def test_interrupted_while_adding(tmp_path: Path) -> None:
    FolderWriter.create(tmp_path / "i", SETTINGS).close()
    with start(tmp_path / "i") as process:
        assert process.stdout is not None and process.stderr is not None
        while not process.stdout.readline().startswith("committed"):
            pass
        time.sleep(0.2)
        _, errors = interrupted(process)
    assert "KeyboardInterrupt" in errors, errors
    assert check(tmp_path / "i") > 0


@pytest.mark.parametrize("limit", [20_000, 200_000])
def test_disk_full(tmp_path: Path, limit: int) -> None:
    """No file may grow beyond `limit`: whichever write comes first to it fails, be it Python's, FAISS's or Lucene's."""
    FolderWriter.create(tmp_path / "i", SETTINGS).close()
    with start(tmp_path / "i", limit) as process:
        _, errors = process.communicate(timeout=300)
    assert "UserError" in errors.splitlines()[-1] and "no space left on device" in errors.splitlines()[-1], errors
    check(tmp_path / "i")


def test_disk_full_in_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    batch = (
        [Document("a", "x")],
        Encoded(np.ones((1, DIM), np.float32), csr_matrix(np.eye(1, VOCAB)), np.zeros(1, bool)),
    )
    with FolderWriter.create(tmp_path / "i", SETTINGS) as writer:
        writer.add(*batch)
        writer.commit({"batch": "0"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(UserError, match="no space left on device"):
                writer.add([Document("b", "y")], batch[1])
            with pytest.raises(UserError, match="no space left on device"):
                FolderWriter.create(tmp_path / "j", SETTINGS)
        assert not (tmp_path / "j").exists()
        with pytest.raises(RuntimeError, match="earlier change failed"):
            writer.commit()
    with FolderWriter.open(tmp_path / "i") as writer:
        assert set(writer.doc_ids) == {"a"}
        writer.add([Document("b", "y")], batch[1])
        writer.commit()
    with FolderReader.open(tmp_path / "i") as reader:
        assert [hit.doc_id for hit in reader.dense(np.ones((1, DIM), np.float32), 5)[0]] == ["a", "b"]


def test_one_writer(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", SETTINGS):
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            FolderWriter.open(tmp_path / "i")
        with start(tmp_path / "i") as process:
            _, errors = process.communicate(timeout=300)
        assert f"another writer has it open (process {os.getpid()})" in errors
        with FolderReader.open(tmp_path / "i") as reader:
            assert reader.num_documents == 0
    FolderWriter.open(tmp_path / "i").close()


def test_the_lock_of_a_dead_writer(tmp_path: Path) -> None:
    FolderWriter.create(tmp_path / "i", SETTINGS).close()
    with start(tmp_path / "i") as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        with pytest.raises(UserError, match=rf"another writer has it open \(process {process.pid}\); wait"):
            FolderWriter.open(tmp_path / "i")
        process.kill()
    assert (tmp_path / "i" / "write.lock").read_text() == f"{process.pid}\n", "it left its lock behind"
    with FolderWriter.open(tmp_path / "i"):
        assert (tmp_path / "i" / "write.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(UserError, match=f"process {os.getpid()}"):
            FolderWriter.open(tmp_path / "i")


def test_foreign_folders(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for path, words in (("full", "not empty.*mine.txt"), ("file", "a file")):
        with pytest.raises(UserError, match=words):
            FolderWriter.create(tmp_path / path, SETTINGS)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]
    for function in (FolderReader.open, FolderWriter.open):
        with pytest.raises(UserError, match="no such index folder"):
            function(tmp_path / "absent")
        with pytest.raises(UserError, match="not an index folder"):
            function(tmp_path / "full")


@pytest.mark.parametrize("damage", ["lucene", "rows/vectors.f32", "rows/live-1.bin", "segments", "dense"])
def test_missing_parts(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "i"
    with FolderWriter.create(path, SETTINGS) as writer:
        view = np.random.default_rng(0).random((50, DIM), np.float32)
        encoded = Encoded(view, csr_matrix(np.ones((50, VOCAB), np.float32)), np.zeros(50, bool))
        writer.add([Document(f"d{i}", "x") for i in range(50)], encoded)
        writer.commit(dense_type="hnsw")
    if damage == "lucene":
        for file in (path / "lucene").iterdir():
            file.unlink()
    elif damage == "segments":
        next((path / "lucene").glob("segments_*")).write_bytes(b"nonsense")
    elif damage == "dense":
        next((path / "dense").iterdir()).unlink()
    else:
        (path / damage).unlink()
    with pytest.raises(UserError, match="damaged") as caught:
        FolderReader.open(path)
    assert "\n" not in str(caught.value)
    if damage != "dense":
        with pytest.raises(UserError, match="damaged"):
            FolderWriter.open(path)
    FolderWriter.create(tmp_path / "k", SETTINGS).close()  # the process and the lock are fine
