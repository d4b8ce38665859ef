"""Load on a server is counted as it is; and the bench measures real servers, beside the library."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar

import pytest
from click.testing import CliRunner

from retriever.bench.serving.load import drive
from retriever.bench.serving.serving import BenchServeConfig
from retriever.cli.main import cli
from retriever.indexing.build import build_index
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = 0.02


class Slow(BaseHTTPRequestHandler):
    """Answers after WAIT seconds, with 503 where it is asked to, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []
    at_once: ClassVar[set[int]] = set()
    most = 0

    def do_GET(self) -> None:
        Slow.asked.append(self.path)
        Slow.at_once.add(id(self))
        Slow.most = max(Slow.most, len(Slow.at_once))
        time.sleep(WAIT)
        Slow.at_once.discard(id(self))
        body = b"x" * 300_000
        self.send_response(503 if "bad" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    Slow.asked.clear()
    Slow.most = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@pytest.mark.parametrize("connections", [1, 3])
def test_every_answer_is_timed_and_counted(port: int, connections: int) -> None:
    for seconds in (0.4, 4.0, 40.0):  # longer where the machine is so busy that hardly anything was asked
        Slow.asked.clear()
        load = drive(port, cycle([ask("/a"), ask("/bad"), ask("/b")]), connections, seconds)
        assert load.elapsed >= seconds
        if len(Slow.asked) > 2:
            break
    assert len(load.seconds) == len(Slow.asked) > 2
    assert load.failed == Slow.asked.count("/bad") > 0
    assert min(load.seconds) >= WAIT
    assert sum(load.seconds) <= load.elapsed * connections + 0.01
    assert 1 <= Slow.most <= connections


def test_a_server_that_goes_away_is_no_answer(port: int) -> None:
    with pytest.raises(OSError, match="refused"):
        drive(1, cycle([ask("/")]), 1, 0.1)


def test_the_bench_measures_the_library_and_the_server(tiny_corpus: Path, tmp_path: Path) -> None:
    build_index(tiny_corpus, tmp_path / "index", encoder="none")
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"_id": "1", "text": "why bread rises"}\n{"_id": "2", "text": "vaccines"}\n')
    options = ["--modes", "bm25", "--connections", "1,2", "--seconds", "0.2", "--rounds", "1", "--without-pyserini"]
    command = ["bench", "serve", str(tmp_path / "index"), "--queries", str(queries), *options]
    done = CliRunner().invoke(cli, [*command, "--output", str(tmp_path / "out.json")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["system"], row["connections"]) for row in found] == [
        ("library", 0),
        ("retriever", 1),
        ("retriever", 2),
    ]
    for row in found:
        assert row["failed"] == 0 < row["requests"]
        assert 0 < row["p50"] <= row["p95"] <= row["p99"]
    assert len(done.stdout.splitlines()) == 4


def test_what_cannot_be_measured_is_said_before_a_server_starts(tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to measure"):
        BenchServeConfig(connections=(0,))
    build_index(tiny_corpus, tmp_path / "index", encoder="none")
    queries = tmp_path / "queries.tsv"
    queries.write_text("1\tbread\n")
    command = ["bench", "serve", str(tmp_path / "index"), "--queries", str(queries), "--modes", "dense"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1 and "has no dense leg" in done.stderr
