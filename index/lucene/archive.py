"""An archive of Java's loaded classes, which halves the time that Java and the first search take in a fresh process.

It is a cache: made in the background after the first use, checked by Java when it is mapped, and never needed. Java's
own documentation calls it class data sharing (CDS).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from retriever.files import cache_root
from retriever.index.lucene.start import java_environment

__all__ = ["archive_options", "archive_path", "make_archive", "make_archive_in_background", "remove_older"]

SWITCH = "RETRIEVER_CLASS_ARCHIVE"
"""An environment variable: "no" neither reads nor makes an archive."""
CLASS_LIST = "RETRIEVER_CLASS_LIST"
"""An environment variable of the process that finds out which classes a search loads: the file to write them to."""
COLLECTOR = "-XX:+UseSerialGC"
"""The archive holds objects as this garbage collector lays them out."""
RETRY = 86_400
"""Seconds until an archive that could not be made is tried again."""
KEPT = 30 * 86_400
"""Seconds for which archives of other versions are kept."""
SEARCH = """
import sys, numpy as np
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.types import Document, Encoded, EncoderIdentity
with FolderWriter.create(sys.argv[1], IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
    writer.add([Document("d1", "some words", metadata={"year": 1})], Encoded(None, None, np.zeros(1, bool)))
    writer.commit()
with FolderReader.open(sys.argv[1]) as reader:
    reader.bm25("words", 5, reader.select("year >= 1"))
    list(reader.stored(["d1"]))
"""


def archive_path(java_home: Path, jar: str) -> Path:
    """Return where the archive for this Java and this jar is, or would be."""
    library = java_home / "lib" / "server" / "libjvm.so"
    found = [
        f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in (library, Path(jar)) if path.exists()
    ]
    return cache_root() / "java" / f"{hashlib.sha256(' '.join(found).encode()).hexdigest()[:16]}.jsa"


def archive_options(java_home: Path, jar: str) -> list[str]:
    """Return the options of Java that use the archive; none where there is none.

    Java compares the archive's checksums and, where anything is wrong with it, starts without.
    """
    if listed := os.environ.get(CLASS_LIST):
        return ["-Xshare:off", f"-XX:DumpLoadedClassList={listed}"]
    if os.environ.get(SWITCH) == "no":
        return []
    with suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        path = archive_path(java_home, jar)
        if os.access(path, os.R_OK):
            return [f"-XX:SharedArchiveFile={path}", "-XX:+VerifySharedSpaces"]
    return []


def make_archive(java_home: Path, jar: str) -> Path:
    """Make the archive of the classes that a small index and a search in it load; a few seconds.

    Raises:
        OSError: the cache cannot be written.
        subprocess.SubprocessError: Java could not make it.
    """
    path = archive_path(java_home, jar)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
        classes, made = Path(folder) / "classes", Path(folder) / "archive"
        environment = os.environ | {CLASS_LIST: str(classes)}
        run = [sys.executable, "-c", SEARCH, str(Path(folder) / "index")]
        subprocess.run(run, env=environment, capture_output=True, check=True, timeout=300)
        java = [str(java_home / "bin" / "java"), "-Xshare:dump", COLLECTOR, "-Xlog:disable", "-cp", jar]
        dump = [*java, f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={made}"]
        subprocess.run(dump, env=java_environment(), capture_output=True, check=True, timeout=300)
        made.replace(path)
    remove_older(path)
    return path


def remove_older(path: Path) -> None:
    """Remove old archives of other versions of Java or of the jar; what still uses one makes it anew."""
    for other in path.parent.glob("*.jsa*"):
        if not other.name.startswith(path.name) and time.time() - other.stat().st_mtime > KEPT:
            other.unlink(missing_ok=True)


def _failed_lately(path: Path) -> bool:
    """Return whether a process began to make the archive within the last day: it still does, or could not."""
    lock = path.with_name(f"{path.name}.lock")
    return lock.exists() and time.time() - lock.stat().st_mtime < RETRY


def make_archive_in_background(java_home: Path, jar: str) -> bool:
    """Let a process of low priority make the archive, if there is none yet; return whether one was started.

    The process outlives this one; at most one at a time works on it.
    """
    if os.environ.get(SWITCH) == "no" or CLASS_LIST in os.environ:
        return False
    with suppress(OSError, RuntimeError, subprocess.SubprocessError):
        path = archive_path(java_home, jar)
        if path.exists() or _failed_lately(path):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        program = (
            "import fcntl, os, sys; from pathlib import Path; os.nice(15); "
            "lock = open(sys.argv[1] + '.lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB); "
            "from retriever.index.lucene.archive import make_archive; make_archive(Path(sys.argv[2]), sys.argv[3])"
        )
        # By way of a shell that ends at once: nobody has to wait for the process.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", sys.executable, "-c", program, str(path), str(java_home), jar],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            check=True,
        )
        return True
    return False
