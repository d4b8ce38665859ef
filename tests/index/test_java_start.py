"""Java in Python's process, whatever stands in the environment: it starts as ever, or an error says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.lucene.jvm import damage_named, java
from retriever.types import Document, EncoderIdentity, UserError

SETTINGS = IndexSettings(EncoderIdentity("none", "", 0, 0))
SEARCH = """
import json, locale, os, sys
from retriever.index import FolderReader
from retriever.types import UserError
before = dict(os.environ), locale.setlocale(locale.LC_ALL)
try:
    with FolderReader.open(sys.argv[1]) as reader:
        hits = [hit.doc_id for hit in reader.bm25("rain", 3)]
except UserError as error:
    hits = str(error)
print(json.dumps({"hits": hits, "same": before == (dict(os.environ), locale.setlocale(locale.LC_ALL))}))
"""
HOSTILE = {
    "JAVA_TOOL_OPTIONS": "-XX:+UseG1GC",
    "_JAVA_OPTIONS": "-Xmx2m -XX:+UseParallelGC",
    "JDK_JAVA_OPTIONS": "-XX:NoSuchOption",
    "CLASSPATH": "/nowhere.jar",
    "JAVA_HOME": "/nowhere",
    "JVMPATH": "/nowhere/libjvm.so",
    "LOG4J_CONFIGURATION_FILE": "/nowhere.xml",
    "LC_ALL": "C",
    "TMPDIR": "/nowhere",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "Régen 雨"
    write(path)
    return path


def write(path: Path) -> None:
    with FolderWriter.create(path, SETTINGS) as writer:
        writer.add([Document("wet", "rain falls"), Document("dry", "sand")], None)
        writer.commit()


def run(folder: Path, cwd: Path, limit: str = "true", **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", "-c", f'{limit} && exec "$0" "$@"', sys.executable, "-c", SEARCH, str(folder)]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, capture_output=True, encoding="utf-8", timeout=100
    )


def test_the_environment_changes_nothing_and_is_not_changed(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path, **HOSTILE)
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == {"hits": ["wet"], "same": True}


def test_a_working_folder_that_was_removed_does_not_matter(folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(folder, gone, limit="rmdir ../gone")
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == {"hits": ["wet"], "same": True}


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        ("ulimit -v 1300000", ["wet"]),
        ("ulimit -v 650000", "KiB of memory): Could not reserve enough space"),
        ("ulimit -n 8", "open files)"),
    ],
)
def test_limits_of_the_process(folder: Path, tmp_path: Path, limit: str, found: list[str] | str) -> None:
    """Java takes less where it must, or is not started: it would end the process, and leave a report in the folder."""
    done = run(folder, tmp_path, limit, OPENBLAS_NUM_THREADS="1")
    assert (done.stderr, done.returncode) == ("", 0)
    hits = json.loads(done.stdout)["hits"]
    assert hits == found if isinstance(found, list) else found in hits and "damaged" not in hits
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_any_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/R\xe9gen"))  # Latin-1: no UTF-8
    write(path)
    with FolderReader.open(path) as reader:
        assert [hit.doc_id for hit in reader.bm25("rain", 3)] == ["wet"]


@pytest.mark.parametrize(
    ("kind", "reason", "says"),
    [
        ("java.nio.file.FileSystemException", "Too many open files", "raise the limit (ulimit -n)"),
        ("java.nio.file.FileSystemException", "Read-only file system", "the file system takes no writes"),
        ("java.nio.file.FileSystemException", "Input/output error", "look at the device"),
        ("java.nio.file.FileSystemException", "Stale file handle", "the network drive"),
        ("java.io.IOException", "Map failed: /i/_0.cfs", "Java ran out of memory"),
        ("java.lang.OutOfMemoryError", "unable to create native thread", "Java ran out of memory"),
        ("java.nio.file.InvalidPathException", "unmappable characters", "set LC_ALL=C.UTF-8"),
        ("org.apache.lucene.store.LockObtainFailedException", "Lock held", "another writer has it open"),
    ],
)
def test_what_is_no_damage_is_not_called_so(folder: Path, kind: str, reason: str, says: str) -> None:
    """Played: the errors are Java's own, thrown as Lucene's would be."""
    made = java(kind)
    filesystem = kind.endswith("FileSystemException")
    error = made("/i", None, reason) if filesystem else made("/i", reason) if "Path" in kind else made(reason)
    with pytest.raises(UserError) as caught, damage_named(folder):
        java("java.util.concurrent.CompletableFuture").failedFuture(error).get()
    assert says in str(caught.value) and ": damaged (" not in str(caught.value) and "\n" not in str(caught.value)
