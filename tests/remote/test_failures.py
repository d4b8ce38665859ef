"""What a client says when there is no server, or it refuses, or is another one; what it sends again."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import perf_counter, time
from typing import Any

import pytest

from retriever import AsyncRetriever, RemoteRetriever, UserError
from retriever.wire import VERSION, VERSION_HEADER, problem
from tests.remote.conftest import KEY

Answer = tuple[int, dict[str, str], Any]
INDEX = {"indexes": [{"name": "i", "legs": ["bm25"]}]}
OURS = {VERSION_HEADER: VERSION}


class Scripted:
    """A server whose answers are written down: each path gives its answers in turn, and the last one from then on."""

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        self.answers, self.asked = answers, list[str]()
        self.times = list[float]()
        self.connections = 0

    def next(self, path: str) -> Answer:
        self.asked.append(path)
        self.times.append(time())
        left = self.answers[path]
        return left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def scripted(search: list[Answer], indexes: Answer = (200, OURS, INDEX)) -> Iterator[tuple[str, Scripted]]:
    script = Scripted({"/indexes": [indexes], "/indexes/i/search": search})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            script.connections += 1

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = script.next(self.path)
            if status == 0:  # the connection breaks
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", script
        finally:
            server.shutdown()
            thread.join()


def by_thread(url: str, top_k: int = 10, **settings: Any) -> Any:
    with RemoteRetriever(url, **settings) as retriever:
        return retriever.search("x", top_k)


def by_asyncio(url: str, top_k: int = 10, **settings: Any) -> Any:
    async def search() -> Any:
        async with AsyncRetriever(url, **settings) as retriever:
            return await retriever.search("x", top_k)

    return asyncio.run(search())


both = pytest.mark.parametrize("search", [by_thread, by_asyncio])
Search = Callable[..., Any]
FOUND: Answer = (200, OURS, {"hits": [], "milliseconds": 1.0})
BUSY = problem(429, "Too Many Requests", "busy", "ask again")


@both
def test_no_server(search: Search) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=r"^http://127.*: no server answers there \(.*`retriever serve"):
            search(url, retries=1)


@both
@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://a/indexes/b/c", ""])
def test_no_address(search: Search, url: str) -> None:
    with pytest.raises(UserError, match="no address of a server"):
        search(url)


@both
def test_keys_and_indexes(search: Search, url: str) -> None:
    assert search(url, index="words", key=KEY) == []
    with pytest.raises(UserError, match="the request has a key that is not known"):
        search(url, index="words", key=KEY + "x")
    with pytest.raises(UserError, match="the request has no key; give key="):
        search(url, index="words")
    with pytest.raises(UserError, match="has several indexes; give index= one of tiny, words"):
        search(url, key=KEY)
    with pytest.raises(UserError, match="no index"):
        search(url, key=KEY, index="wrods")
    with pytest.raises(UserError, match="names the index tiny, and index is words"):
        search(f"{url}/indexes/tiny", index="words", key=KEY)
    with pytest.raises(UserError, match="characters that no key has"):
        search(url, key="a\nb")


@both
def test_limits_of_the_server_are_one_line(search: Search, url: str) -> None:
    with pytest.raises(UserError, match=r"this server (allows|reads) at most .*") as caught:
        search(url, index="tiny", key=KEY, top_k=10**6)
    assert "\n" not in str(caught.value)


@both
def test_busy_servers_are_asked_again_when_they_say(search: Search) -> None:
    busy: list[Answer] = [(429, {**OURS, "retry-after": "0"}, BUSY), (503, OURS, BUSY), FOUND]
    with scripted(busy) as (url, script):
        assert search(url) == []
        assert script.asked.count("/indexes/i/search") == 3 and script.connections == 1, "one connection for all"
    with scripted([(429, {**OURS, "retry-after": "1"}, BUSY), FOUND]) as (url, script):
        started = perf_counter()
        assert search(url) == [] and perf_counter() - started > 0.9
    moment = int(time()) + 2
    with scripted([(429, {**OURS, "retry-after": formatdate(moment, usegmt=True)}, BUSY), FOUND]) as (url, script):
        assert search(url) == [] and script.times[-1] > moment - 0.1
    later: list[Answer] = [(429, {**OURS, "retry-after": "3600"}, BUSY), FOUND]
    with scripted(later) as (url, _), pytest.raises(UserError, match=r"^http://.*: ask again$"):
        search(url)
    with scripted([(503, OURS, BUSY)]) as (url, script):
        with pytest.raises(UserError, match="ask again"):
            search(url, retries=2)
        assert script.asked.count("/indexes/i/search") == 3


@both
def test_broken_connections_are_made_again(search: Search) -> None:
    with scripted([(0, {}, b""), FOUND]) as (url, script):
        assert search(url) == [] and script.connections == 2
    with scripted([(0, {}, b"")]) as (url, script), pytest.raises(UserError, match="no server answers there"):
        search(url, retries=1)


@both
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"content-type": "text/html"}, b"<html>"), "is not `retriever serve` .status 200."),
        ((404, {}, b"nothing"), "is not `retriever serve` .status 404."),
        ((200, {VERSION_HEADER: "99"}, {"hits": []}), "speaks version 99 of the wire format"),
        ((200, OURS, b"\xff{"), "an answer that cannot be read"),
        ((200, OURS, {"hits": [{"rank": 1}]}), "an answer that cannot be read .KeyError"),
        ((200, OURS, []), "an answer that cannot be read"),
        ((500, OURS, problem(500, "x", "internal", "the server failed; its log says why")), "the server failed"),
        ((302, {**OURS, "location": "http://elsewhere"}, b"{}"), "gave no reason"),
    ],
)
def test_other_answers_are_one_line(search: Search, answer: Answer, message: str) -> None:
    with scripted([answer]) as (url, _), pytest.raises(UserError, match=message) as caught:
        search(url, retries=0)
    assert "\n" not in str(caught.value) and url in str(caught.value)


@both
def test_answers_that_take_too_long(search: Search) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match=r"no answer within 0.2 s"):
            search(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
