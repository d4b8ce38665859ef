"""A real server: clients that are slow, silent, rude or many, new commits under load, and a stop that loses nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from retriever.indexing.build import build_index
from retriever.indexing.writer import IndexWriter
from retriever.types import Document
from tests.helpers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

START = """
import sys
from pathlib import Path
from retriever.serve.run import serve
from retriever.serve.settings import Limits, ServeSettings

headers, body = (1.0, 1.5) if sys.argv[3] == "impatient" else (30.0, 60.0)
limits = Limits(header_seconds=headers, body_seconds=body, body=100_000, connections=200)
settings = ServeSettings({"tiny": Path(sys.argv[1])}, port=0, workers=int(sys.argv[2]), limits=limits)
serve(settings, announce=lambda address: print(address, flush=True))
"""
SECONDS = 60
"""No answer may take longer, on a busy machine either."""
SEARCH = "/indexes/tiny/search?query=bread&mode=bm25"


class Server(NamedTuple):
    """A server process, where it listens, and where its log is."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def said(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def running(folder: Path, log: Path, workers: int = 1, kind: str = "patient") -> Iterator[Server]:
    command = [sys.executable, "-c", START, str(folder), str(workers), kind]
    with log.open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().decode().strip()
            assert address, log.read_text()
            server = Server(process, int(address.rpartition(":")[2]), log)
            wait_until(lambda: answers(server, "/readyz"))
            yield server
        finally:
            process.terminate()
            process.wait(SECONDS)


def answers(server: Server, path: str) -> bool:
    """Say whether a server answers: it may be starting still, or have too many connections for a while."""
    assert server.process.poll() is None, server.log.read_text()
    try:
        return server.get(path)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture(scope="module")
def folder(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "tiny"
    build_index(tiny_corpus, folder, encoder="none")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(folder, tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def impatient(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that waits for a second: not for tests that a pause of that length must not disturb."""
    with running(folder, tmp_path_factory.mktemp("log") / "log", kind="impatient") as server:
        yield server


def send(connection: socket.socket, data: bytes) -> None:
    """Send what the server still takes: it may have refused and closed meanwhile."""
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)


def everything(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    found = b""
    with suppress(ConnectionResetError):  # what was sent to it meanwhile is not read any more
        while part := connection.recv(65536):
            found += part
    return found


def problem(answer: bytes) -> tuple[int, str]:
    """Return status and kind of the problem document that an answer is."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head.lower(), answer
    values = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % values["status"])
    return values["status"], values["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 20_000 + b"\r\nConnection: close\r\n\r\n", 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET http://evil.org/indexes HTTP/1.1\r\nHost: evil.org\r\nConnection: close\r\n\r\n", 421),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /indexes/..%2f..%2fetc/search?query=a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /indexes/tiny/documents/..%2Fpasswd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 404),
        (b"TRACE /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 405),
        (b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n{", 413),
        (b"POST /indexes/tiny/documents HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n", 403),
    ],
    ids=lambda value: ascii(value)[2:60],
)  # fmt: skip
def test_rude_requests(server: Server, sent: bytes, status: int) -> None:
    with server.connect() as connection:
        send(connection, sent)
        assert problem(everything(connection))[0] == status
    assert server.get("/healthz")[0] == 200


def test_length_and_chunks_together_smuggle_nothing(server: Server) -> None:
    hidden = b"GET /indexes/hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with server.connect() as connection:
        send(
            connection,
            b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            % (len(hidden) + 5)
            + hidden,
        )
        assert everything(connection).count(b"HTTP/1.1 ") == 1
    assert not [line for line in server.said() if "hidden" in str(line.get("path"))]


def test_a_body_that_is_too_long_is_refused_while_it_is_sent(server: Server) -> None:
    with server.connect() as connection:
        send(
            connection,
            b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        for _ in range(20):
            send(connection, b"2710\r\n" + b" " * 10_000 + b"\r\n")
        send(connection, b"0\r\n\r\n")
        assert problem(everything(connection)) == (413, "too-large")


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_headers_that_do_not_come(impatient: Server, begun: bytes) -> None:
    started = time.monotonic()
    with impatient.connect() as connection:
        send(connection, begun)
        for _ in range(5 if begun else 0):  # a byte now and then does not help
            time.sleep(0.1)
            send(connection, b"a")
        assert problem(everything(connection)) == (408, "too-slow")
    assert time.monotonic() - started > 0.9


def test_a_body_that_does_not_come(impatient: Server) -> None:
    with impatient.connect() as connection:
        send(
            connection,
            b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 500\r\n\r\n{",
        )
        assert problem(everything(connection)) == (408, "too-slow")


def test_the_second_request_of_a_connection_has_its_time_too(impatient: Server) -> None:
    def waits_for_a_request() -> bool:
        """Ask twice, with a pause that is longer than headers may take; false where this process was paused, too."""
        with closing(http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=SECONDS)) as connection:
            for _ in range(2):
                try:
                    connection.request("GET", "/healthz")
                    if connection.getresponse().read() != b'{"status":"ok"}':
                        return False
                except (OSError, http.client.HTTPException):
                    return False
                time.sleep(1.2)  # nothing was begun
            send(connection.sock, b"GET /heal")
            return problem(everything(connection.sock)) == (408, "too-slow")

    wait_until(waits_for_a_request)


def counts(server: Server) -> tuple[int, int, int]:
    """Return the open files, the threads and the resident memory of the server, in KiB."""
    process = Path("/proc") / str(server.process.pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return len(os.listdir(process / "fd")), int(status["Threads"]), int(status["VmRSS"].split()[0])  # noqa: PTH208


def rude(server: Server, number: int) -> None:
    """Open a connection and drop it, at one of several moments."""
    with server.connect() as connection:
        moments = (
            b"",
            b"GET /hea",
            b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            f"GET {SEARCH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
            b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{",
        )
        send(connection, moments[number % len(moments)])
        if number % 2:  # reset, instead of closed
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def settled(server: Server) -> tuple[int, int, int]:
    """Return the counts when the server is at rest: two looks half a second apart see the same."""
    wait_until(lambda: answers(server, SEARCH))
    found = counts(server)
    for _ in range(2 * SECONDS):
        time.sleep(0.5)
        before, found = found, counts(server)
        if found[:2] == before[:2]:
            break
    return found


def test_a_thousand_dropped_connections_leave_nothing(server: Server) -> None:
    """Some files, threads and memory come with the load; of a thousand connections there would be far more."""
    for number in range(200):
        rude(server, number)
    files, threads, memory = settled(server)
    for number in range(1000):
        rude(server, number)
    wait_until(lambda: counts(server)[0] <= files + 10)
    after = counts(server)
    assert after[1] <= threads + 50
    assert after[2] < memory + 60_000
    wait_until(lambda: answers(server, SEARCH))


def test_only_so_many_connections(server: Server) -> None:
    def refused() -> bool:
        """Open as many as are allowed and one more; those before it are closed after a second, as they say nothing."""
        with ExitStack() as held:
            connections = [held.enter_context(server.connect()) for _ in range(201)]
            return problem(everything(connections[-1])) == (503, "busy")

    wait_until(refused)
    wait_until(lambda: answers(server, "/healthz"))


def test_searches_go_on_while_another_process_writes(server: Server, folder: Path) -> None:
    failed: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)) as connection:
            while not stop.is_set():
                connection.request("GET", SEARCH)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or "d01" not in [hit["doc_id"] for hit in json.loads(body)["hits"]]:
                    failed.append(body)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for number in range(10):
        with IndexWriter.open(folder, "none") as writer:
            writer.add([Document(f"n{number}-{i}", f"Snow falls {i}.") for i in range(1000)])
            writer.delete([f"n{number - 1}-{i}" for i in range(1000)])
            writer.commit()
    stop.set()
    for asker in askers:
        asker.join()
    assert not failed
    wait_until(lambda: json.loads(server.get("/indexes/tiny")[1])["documents"] == 1020)


def test_several_workers(folder: Path, tmp_path: Path) -> None:
    with running(folder, tmp_path / "log", workers=2) as server:
        until = time.monotonic() + 2 * SECONDS
        seen: set[object] = set()
        while len(seen) < 2:
            assert time.monotonic() < until
            assert server.get(SEARCH)[0] == 200
            seen = {line["process"] for line in server.said() if line["event"] == "request"}
        wait_until(lambda: searches_counted(server) == len([line for line in server.said() if line.get("mode")]))
    assert server.process.returncode == 0


def searches_counted(server: Server) -> float:
    """Return what the metrics say; a process counts a request, and logs it, when it has answered."""
    lines = server.get("/metrics")[1].decode().splitlines()
    found = [line for line in lines if line.startswith("retriever_requests_total") and "search" in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_stop_answers_what_has_begun(server: Server) -> None:
    """The last test of this server."""
    with server.connect() as connection:
        body = json.dumps({"query": "bread", "mode": "bm25"}).encode()
        connection.sendall(
            b"POST /indexes/tiny/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 "), "the server waits for the body"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(server))
        connection.sendall(body)
        assert b'"doc_id":"d01"' in everything(connection)
    server.process.wait(SECONDS)
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert [line["event"] for line in server.said()][-1] == "stopped"


def refuses(server: Server) -> bool:
    """Say whether nobody listens any more."""
    try:
        server.connect().close()
    except OSError:
        return True
    return False
