"""A sharded index searched on a Ray cluster of two nodes answers as in one process, and goes on when actors die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever import Document, IndexWriter, Retriever, UserError, build_index
from retriever.cli.main import cli
from retriever.cluster.replicas import SearchCluster
from retriever.indexing.build import IndexingConfig
from retriever.indexing.shards import build_shards
from retriever.search.modes import MODES
from retriever.testing import SeededEncoder
from retriever.types import PartialHits, Query
from tests.cluster.test_signals import handlers

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter", "island", "candle"]
QUERIES = [Query(text, text) for text in ("river", "river stone winter", "bread bread candle", "island", "none")]
CONFIG = IndexingConfig(dense_type="flat")


def document(number: int) -> Document:
    random = np.random.default_rng(number)
    return Document(f"d{number}", " ".join(random.choice(WORDS, random.integers(1, 6))), metadata={"n": number})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "index"
    build_index([document(n) for n in range(200)], folder, encoder=SeededEncoder(), config=CONFIG)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "index"
    build_shards([document(n) for n in range(200)], folder, shards=2, encoder=SeededEncoder(), config=CONFIG)
    return folder


@pytest.fixture(scope="module")
def words_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sharded index that the command line can search: its encoder is none."""
    folder = tmp_path_factory.mktemp("words") / "index"
    build_shards([document(n) for n in range(200)], folder, shards=2, encoder="none")
    return folder


def listening() -> set[str]:
    """Return on which addresses the processes listen that this one has started."""
    psutil = pytest.importorskip("psutil")
    processes = psutil.Process().children(recursive=True)
    found = [one for process in processes for one in process.net_connections("inet") if one.status == "LISTEN"]
    assert found
    return {one.laddr.ip for one in found}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Keep a local cluster for all tests of the module."""
    from retriever.cluster.connect import LOCAL, joined

    before = handlers()
    with joined(LOCAL):
        assert handlers() == before  # Java's compiled code needs its own
        assert listening() <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}  # though Ray was imported before
        yield LOCAL
    assert handlers() == before


def patient(address: str, **how: Any) -> SearchCluster:
    """Return how to search where no shard counts as lost because the machine is busy."""
    return SearchCluster(address, patience=120, **how)


def lose(shard: Any, how: SearchCluster) -> None:
    """Kill the only actor of a shard for good; this shard alone is not waited for long from now on."""
    shard._how = replace(how, patience=3)
    ray.kill(shard.actors[0])


def test_every_answer_is_that_of_one_index(whole: Path, sharded: Path, cluster: str) -> None:
    with (
        Retriever.open(whole, SeededEncoder()) as one,
        Retriever.open(sharded, SeededEncoder(), cluster=patient(cluster)) as remote,
    ):
        for where in (None, "n < 50"):
            expected = list(one.rank_modes(QUERIES, 300, modes=MODES, filter=where))
            assert list(remote.rank_modes(QUERIES, 300, modes=MODES, filter=where)) == expected
        for query in QUERIES:
            mine = one.search(query.text, 20, explain=True, highlight=True, filter="n < 150")
            assert remote.search(query.text, 20, explain=True, highlight=True, filter="n < 150") == mine
        assert remote.fields() == one.fields()
        assert remote.facets("n", top_k=200) == one.facets("n", top_k=200)
        assert remote.facets("n", top_k=20, filter="n < 9") == one.facets("n", top_k=20, filter="n < 9")
        assert remote.more_like_this("d7", 5) == one.more_like_this("d7", 5)
        assert remote.documents(["d7", "unknown"]) == one.documents(["d7", "unknown"])
        with pytest.raises(UserError, match="the index has no field 'm'"):
            remote.search("river", filter="m = 1")


def replaced(actor: object, killed: int) -> bool:
    """Say whether an actor runs again, in another process than the killed one."""
    try:
        return bool(ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=100) != killed)  # type: ignore[attr-defined]
    except ray.exceptions.RayActorError:
        return False


def test_a_dead_replica_is_replaced(sharded: Path, cluster: str) -> None:
    how = patient(cluster, replicas=2)
    with Retriever.open(sharded, SeededEncoder(), cluster=how) as retriever:
        expected = list(retriever.rank_modes(QUERIES, 50, modes=MODES))
        session = retriever.reader._session  # type: ignore[attr-defined]
        for shard in session.shards:
            pids = [ray.get(actor.__ray_call__.remote(lambda _: os.getpid())) for actor in shard.actors]
            os.kill(pids[0], signal.SIGKILL)
            for _ in range(4):
                assert list(retriever.rank_modes(QUERIES, 50, modes=MODES)) == expected
            until = time.monotonic() + 120
            while not replaced(shard.actors[0], pids[0]):
                assert time.monotonic() < until
                time.sleep(0.2)
        assert list(retriever.rank_modes(QUERIES, 50, modes=MODES)) == expected


def test_a_lost_shard_is_an_error_or_a_partial_answer_that_says_so(
    sharded: Path, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    for partial in (False, True):
        how = patient(cluster, partial=partial)
        with Retriever.open(sharded, SeededEncoder(), cluster=how) as retriever:
            whole_answer = retriever.search("river", 200, mode="bm25")
            session = retriever.reader._session  # type: ignore[attr-defined]
            lose(session.shards[0], how)
            if not partial:
                with pytest.raises(UserError, match=r"shard-00000: no replica of this shard answers within 3 s; look"):
                    retriever.search("river")
                continue
            hits = retriever.search("river", 200, mode="bm25")
            assert isinstance(hits, PartialHits) and hits.lost == ("shard-00000",)
            with Retriever.open(sharded / "shard-00001") as alone:
                own = set(alone.reader.selected_ids(None))
            assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in whole_answer if hit.doc_id in own]
            scores = {hit.doc_id: hit.score for hit in whole_answer}
            assert [hit.score for hit in hits] == [scores[hit.doc_id] for hit in hits]
            assert "the answer is partial: shard-00000: no replica" in caplog.text


def test_a_shard_that_is_missing_at_opening_is_named_or_left_out(
    sharded: Path, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Retriever.open(sharded, SeededEncoder()) as whole, Retriever.open(sharded / "shard-00001") as alone:
        answer = [hit.doc_id for hit in whole.search("river", 200, mode="bm25")]
        own = set(alone.reader.selected_ids(None))
    gone = sharded / "shard-00000"
    moved = gone.rename(sharded / "moved")
    try:
        with pytest.raises(UserError, match=f"^{sharded}: its shard-00000 is missing; restore it from a copy"):
            Retriever.open(sharded, SeededEncoder(), cluster=cluster)
        how = patient(cluster, partial=True)
        with Retriever.open(sharded, SeededEncoder(), cluster=how) as retriever:
            hits = retriever.search("river", 200, mode="bm25")
            assert isinstance(hits, PartialHits) and hits.lost == ("shard-00000",)
            assert hits and {hit.doc_id for hit in hits} == set(answer) & own
            assert caplog.text.count("the answer is partial") == 1 and "its shard-00000 is missing" in caplog.text
            assert not retriever.reopen()
            moved.rename(gone)
            assert retriever.reopen()
            hits = retriever.search("river", 200, mode="bm25")
            assert [hit.doc_id for hit in hits] == answer and not isinstance(hits, PartialHits)
        for shard in (gone, sharded / "shard-00001"):
            shard.rename(sharded / f"no-{shard.name}")
        with pytest.raises(UserError, match="its shard-00000 is missing"):  # nothing is left to answer
            Retriever.open(sharded, SeededEncoder(), cluster=how)
    finally:
        for name in ("moved", "no-shard-00000", "no-shard-00001"):
            if (sharded / name).exists():
                (sharded / name).rename(sharded / f"shard-{'00001' if name.endswith('1') else '00000'}")


@pytest.mark.parametrize("partial", [False, True])
def test_a_server_says_which_shard_is_lost(words_alone: Path, cluster: str, partial: bool) -> None:
    from starlette.testclient import TestClient

    from retriever.ranking import Showing
    from retriever.remote.calls import more_like_this
    from retriever.serve.app import create_app
    from retriever.serve.settings import Limits, ServeSettings

    how = patient(cluster, partial=partial)
    settings = ServeSettings({"it": words_alone}, cluster=how, limits=Limits(seconds=120))
    with TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        whole_answer = client.get("/indexes/it/search", params={"query": "river"})
        assert "lost" not in whole_answer.json() and len(whole_answer.json()["hits"]) == 10
        served = client.app.state.server.indexes["it"]  # type: ignore[attr-defined]
        lose(served._retriever.reader._session.shards[0], how)
        answer = client.get("/indexes/it/search", params={"query": "river", "top_k": 200})
        if partial:
            hits = more_like_this("any", Showing(200), "bm25", None).read(answer.json())  # as a client reads them
            assert isinstance(hits, PartialHits) and hits.lost == ("shard-00000",) and hits
        else:
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:retriever:problem:shard-lost")
            assert answer.json()["detail"].startswith("shard-00000: no replica of this shard answers within 3 s")


def test_the_command_line_searches_on_a_cluster(whole: Path, words_alone: Path, cluster: str) -> None:
    question = ["river stone", "--json"]
    here = CliRunner().invoke(cli, ["search", str(words_alone), *question])
    there = CliRunner().invoke(cli, ["search", str(words_alone), *question, "--cluster", cluster, "--partial"])
    assert (here.exit_code, there.exit_code) == (0, 0) and here.stdout == there.stdout
    for folder, options, status, said in (
        (words_alone, ["--replicas", "2"], 2, "--replicas is for a search on a --cluster"),
        (words_alone, ["--cluster", cluster, "--hedge", "0.1"], 1, "hedged requests need a second replica"),
        (whole, ["--cluster", cluster], 1, "not a sharded index"),
    ):
        result = CliRunner().invoke(cli, ["search", str(folder), *question, *options])
        assert result.exit_code == status and said in result.stderr.splitlines()[-1]


def test_new_commits_are_seen_after_reopen(sharded: Path, cluster: str) -> None:
    with Retriever.open(sharded, SeededEncoder(), cluster=patient(cluster)) as retriever:
        assert not retriever.reopen()
        with IndexWriter.open(sharded, SeededEncoder()) as writer:
            writer.add([Document("new", "an owl")])
            writer.commit()
        assert retriever.search("owl", mode="bm25") == []
        assert retriever.reopen()
        assert [hit.doc_id for hit in retriever.search("owl", mode="bm25")] == ["new"]
        with IndexWriter.open(sharded, SeededEncoder()) as writer:
            writer.delete(["new"])
            writer.commit()


def test_what_is_no_cluster_is_said_in_one_line(whole: Path, sharded: Path) -> None:
    with pytest.raises(UserError, match="not a sharded index"):
        Retriever.open(whole, SeededEncoder(), cluster="local")
    with pytest.raises(UserError, match="hedged requests need a second replica"):
        SearchCluster(hedge=0.1)
