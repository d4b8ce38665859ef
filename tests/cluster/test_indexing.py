"""Shards built on a Ray cluster, whose workers and whose driver are killed at random moments.

RETRIEVER_KILLS=30 kills as many as the guarantees were shown with; each takes some seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from retriever import Retriever, UserError, build_index
from retriever.cluster.indexing import build_sharded_index
from retriever.indexing.build import IndexingConfig
from retriever.indexing.shards import build_shards
from retriever.search.modes import MODES
from retriever.testing import SeededEncoder
from retriever.types import Encoded, Query
from tests.cluster import driver

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
MARK = "RETRIEVER_TEST_RUN"


def processes(mark: str, title: str = "") -> list[int]:
    """Return the processes that were started for this test, of those whose name begins so."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            environment = (entry / "environ").read_bytes()
            if f"{MARK}={mark}".encode() in environment and (entry / "cmdline").read_text().startswith(title):
                found.append(int(entry.name))
    return found


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def started(folder: Path, log: Path, mark: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, driver.__file__, str(folder), str(log), str(seconds)],
        env={**os.environ, MARK: mark, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kills_lose_nothing_and_nothing_committed_is_encoded_again(tmp_path: Path) -> None:
    random, mark = np.random.default_rng(11), f"kills-{os.getpid()}"
    folder, log = tmp_path / "index", tmp_path / "encoded"
    log.touch()
    program = started(folder, log, mark, 0.3)
    workers = drivers = 0
    try:
        while workers + drivers < driver.KILLS:
            before = log.stat().st_size
            until = time.monotonic() + 120
            while before == log.stat().st_size < driver.HELD and program.poll() is None and time.monotonic() < until:
                time.sleep(0.05)  # it goes on
            time.sleep(float(random.random()) * 2)
            if program.poll() is not None:
                break
            if random.random() < 0.3:
                program.kill()
                program.communicate()
                drivers += 1
                program = started(folder, log, mark, 0.3)
            else:
                building = processes(mark, "ray::_build")
                workers += bool(building) and kill(int(random.choice(building)))
        (tmp_path / "finish").touch()
        output, errors = program.communicate(timeout=1800)
    finally:
        for pid in processes(mark):
            kill(pid)
    assert program.returncode == 0 and output.split() == [str(driver.DOCUMENTS)], errors[-3000:]
    encoded = Counter(log.read_text(encoding="utf-8").split())
    assert len(encoded) == driver.DOCUMENTS
    again = encoded.total() - driver.DOCUMENTS
    # What one worker had not committed; a driver that dies takes both workers with it.
    said = f"{workers} workers and {drivers} drivers killed, {again} of {driver.DOCUMENTS} documents encoded again"
    sys.stderr.write(f"{said}\n")
    assert again <= (workers + 2 * drivers) * (driver.COMMIT + driver.BATCH)
    assert workers + drivers >= min(driver.KILLS, 3)
    build_index(driver.corpus(), tmp_path / "one", encoder=SeededEncoder(), config=IndexingConfig(dense_type="flat"))
    queries = [Query(text, text) for text in ("river", "river stone", "bread candle 7")]
    with (
        Retriever.open(folder, SeededEncoder()) as several,
        Retriever.open(tmp_path / "one", SeededEncoder()) as one,
    ):
        wanted = list(one.rank_modes(queries, 2000, modes=MODES))
        assert list(several.rank_modes(queries, 2000, modes=MODES)) == wanted


def test_a_full_disk_of_a_worker_is_one_line_and_the_rest_can_be_resumed(tmp_path: Path) -> None:
    """A limit on the size of files, which a worker sets for itself, is what a full disk is to it."""

    class OnAFullDisk(SeededEncoder):
        def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return super().encode_documents(texts, dense=dense, sparse=sparse)

    documents = driver.corpus()[:400]
    config = IndexingConfig(dense_type="flat", batch=16)
    with pytest.raises(UserError, match=r"shard-0000\d: no space left on device") as raised:
        build_sharded_index(documents, tmp_path / "i", shards=2, cluster="local", encoder=OnAFullDisk(), config=config)
    assert "\n" not in str(raised.value)
    report = build_shards(documents, tmp_path / "i", shards=2, encoder=SeededEncoder(), config=config, resume=True)
    assert report.documents == 400
