"""Full disks and folders that cannot be written: one clear error, and the last commit as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.info import describe
from retriever.index.verify import verify_folder
from retriever.indexing.build import IndexingConfig, build_index
from retriever.indexing.writer import IndexWriter, add_corpus
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
ENCODER = SeededEncoder(32, 100, 100)
DISK = 8 << 20
MORTAL = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
"""Runs a program as the superuser without the right to write what is read-only."""


def numbered(start: int, stop: int, word: str = "river") -> list[Document]:
    return [Document(f"d{n}", f"{word} number{n}", metadata={"n": n}) for n in range(start, stop)]


def create(folder: Path) -> None:
    FolderWriter.create(folder, IndexSettings(ENCODER.identity)).close()
    with IndexWriter.open(folder, ENCODER) as writer:
        writer.add(numbered(0, 300))
        writer.compact("hnsw")
        writer.add(numbered(0, 50, "stone"))
        writer.commit()


def corpus(path: Path) -> Path:
    path.write_text("".join(f'{{"_id": "c{n}", "text": "bread number{n}"}}\n' for n in range(300)))
    return path


def answers(folder: Path) -> list[object]:
    """Return what the index holds and finds, whole."""
    assert verify_folder(folder).damages == ()
    with Retriever.open(folder, ENCODER) as retriever:
        found = [retriever.search("river stone number7", 1_000, mode=mode, filter="n < 290") for mode in MODES]
        return [retriever.reader.num_documents, {hit.doc_id: hit.text for hit in found[0]}, found[2:]]


def add(folder: Path) -> None:
    with IndexWriter.open(folder, ENCODER) as writer:
        writer.add(numbered(250, 600, "bread"))
        writer.commit()


def delete(folder: Path) -> None:
    with IndexWriter.open(folder, ENCODER) as writer:
        writer.delete(f"d{n}" for n in range(100))
        writer.commit()


def compact(folder: Path) -> None:
    with IndexWriter.open(folder, ENCODER) as writer:
        writer.compact("ivf")


def grow(folder: Path) -> None:
    add_corpus(folder, corpus(Path(tempfile.mkdtemp()) / "c.jsonl"), encoder=ENCODER, config=IndexingConfig(batch=50))


CHANGES = [add, delete, compact, grow]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an empty file system of 8 MiB, or skip."""
    path = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk but for `free` bytes."""
    (disk / "ballast").unlink(missing_ok=True)
    left = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(left.f_bavail * left.f_frsize - free))


@pytest.mark.parametrize("change", CHANGES)
def test_disk_full(small_disk: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The disk is full at several moments of each change: after it the old commit counts, or the new one."""
    base = tmp_path / "base"
    create(base)
    before = answers(base)
    change(base2 := shutil.copytree(base, tmp_path / "changed"))
    after = answers(base2)
    outcomes = []
    for free in (0, 12, 32, 64, 120, 250, 2_000):
        folder = shutil.copytree(base, small_disk / "index")
        leave(small_disk, free << 10)
        try:
            change(folder)
            outcomes.append("done")
        except UserError as error:
            assert "no space left on device" in str(error) and "\n" not in str(error)
            outcomes.append("full")
        assert answers(folder) == (after if outcomes[-1] == "done" else before), (free, "while it is full")
        (small_disk / "ballast").unlink()
        change(folder)
        assert answers(folder) == after, (free, "after making room")
        shutil.rmtree(folder)
    assert outcomes[0] == "full" and outcomes[-1] == "done"


def test_disk_full_while_indexing(small_disk: Path, tmp_path: Path) -> None:
    """What is there of a new index, if anything, is whole and can be finished."""
    source, folder, small = corpus(tmp_path / "c.jsonl"), small_disk / "index", IndexingConfig(batch=10)
    every = IndexingConfig(batch=10, commit_every_documents=20)
    outcomes = []
    for free in (0, 12, 32, 64, 120, 250, 2_000):
        leave(small_disk, free << 10)
        try:
            build_index(source, folder, encoder=ENCODER, config=every)
            outcomes.append("done")
        except UserError as error:
            assert "no space left on device" in str(error) and "\n" not in str(error)
            outcomes.append("full")
        (small_disk / "ballast").unlink()
        if folder.exists():
            assert verify_folder(folder).damages == ()
            with FolderReader.open(folder) as reader:
                assert reader.num_documents % 20 == 0
        assert build_index(source, folder, encoder=ENCODER, config=small, resume=True).documents == 300
        shutil.rmtree(folder)
    assert outcomes[0] == "full" and outcomes[-1] == "done"


@contextmanager
def mounted(outer: Path) -> Iterator[list[str]]:
    mount = f"mount --bind {outer} {outer} && mount -o remount,ro,bind {outer}"
    if os.getuid() or subprocess.run(["sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a folder read-only")
    yield []
    subprocess.run(["umount", "--lazy", outer], check=True)


@contextmanager
def forbidden(outer: Path) -> Iterator[list[str]]:
    if not os.getuid() and shutil.which(MORTAL[0]) is None:
        pytest.skip(f"nothing is forbidden to the superuser, and {MORTAL[0]} is not installed")
    paths = list(outer.rglob("*"))
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield [] if os.getuid() else MORTAL
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("read_only", [mounted, forbidden])
def test_read_only(tmp_path: Path, read_only: Callable[[Path], AbstractContextManager[list[str]]]) -> None:
    """Searching, info and verify work; each change is refused in one line."""
    outer = tmp_path / "outer"
    (outer / "empty").mkdir(parents=True)
    create(outer / "index")
    with read_only(outer) as prefix:
        command = [*prefix, sys.executable, __file__, str(outer / "index")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    refused = [f"{name}: refused" for name in ("add", "delete", "compact", "grow", "index")]
    assert ended.stdout.splitlines() == ["300 documents, 300 hits, whole", *refused]


def main(folder: Path) -> None:
    assert verify_folder(folder).damages == ()
    with Retriever.open(folder, ENCODER, verify=True) as retriever:
        hits = {len(retriever.search("river stone", 1_000, mode=mode)) for mode in MODES}
        assert not retriever.reopen()
    sys.stdout.write(f"{describe(folder).documents} documents, {', '.join(map(str, hits))} hits, whole\n")
    source = corpus(Path(tempfile.mkdtemp()) / "c.jsonl")

    def index(folder: Path) -> None:
        build_index(source, folder.with_name("empty"), encoder=ENCODER)

    for change in (*CHANGES, index):
        said = "done"
        try:
            change(folder)
        except UserError as error:
            clear = "cannot write there" in str(error) and "\n" not in str(error)
            said = "refused" if clear else str(error)
        sys.stdout.write(f"{change.__name__}: {said}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(UserError, match=r"cannot be made there.*give another folder"):
        FolderWriter.create(Path("/proc/no-process/index"), IndexSettings(ENCODER.identity))
