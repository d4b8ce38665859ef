"""Two nodes of a cluster: an index is built and searched there, and goes on when a node is lost."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from retriever import Document, Retriever
from retriever.cluster.indexing import build_sharded_index
from retriever.cluster.replicas import SearchCluster

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CORPUS = [Document(f"d{n}", f"text {n} of the {'river' if n % 3 else 'stone'}") for n in range(60)]


@pytest.fixture
def nodes() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give the address of a cluster of two nodes, and the process that ends the second one for a line."""
    program = Path(__file__).with_name("nodes.py")
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(program), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.stdin.close()
            process.wait(timeout=120)
            process.stdout.close()


def places(shard: list[object]) -> list[str]:
    """Return on which node each actor is."""
    asked = [actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in shard]  # type: ignore[attr-defined]
    found: list[str] = ray.get(asked, timeout=120)
    return found


def test_an_index_survives_the_loss_of_a_node(
    nodes: tuple[str, subprocess.Popen[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, process = nodes
    build_sharded_index(CORPUS, tmp_path / "i", shards=3, cluster=address, encoder="none")
    with Retriever.open(tmp_path / "i") as here:
        expected = here.search("river", 60)
    how = SearchCluster(address, replicas=2, patience=120)
    with Retriever.open(tmp_path / "i", cluster=how) as retriever, caplog.at_level(logging.WARNING):
        shards = retriever.reader._session.shards  # type: ignore[attr-defined]
        for shard in shards:
            assert len(set(places(shard.actors))) == 2  # each node has a replica of each shard
        assert retriever.search("river", 60) == expected
        assert process.stdin is not None
        process.stdin.write("end the second node\n")
        process.stdin.flush()
        until = time.monotonic() + 120
        while len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) > 1:
            assert time.monotonic() < until
            assert retriever.search("river", 60) == expected
            time.sleep(0.5)
        assert retriever.search("river", 60) == expected
        [left] = {place for shard in shards for place in places(_restarted(shard.actors))}
        assert left in {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    assert "Ray: The node with node id" in caplog.text
    assert capfd.readouterr().out == ""


def _restarted(actors: list[object]) -> list[object]:
    """Return the actors when all of them run."""
    until = time.monotonic() + 120
    while True:
        try:
            places(actors)
        except (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError):
            assert time.monotonic() < until
            time.sleep(0.5)
        else:
            return actors
