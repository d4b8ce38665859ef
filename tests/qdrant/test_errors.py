"""What is said where a collection cannot be searched, pushed to or changed: one line each, and never the key."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from retriever import Document, IndexWriter, Retriever, UserError, build_index
from retriever.qdrant import client
from retriever.qdrant.address import parse_address
from retriever.qdrant.engine import Point
from retriever.qdrant.place import open_engine
from retriever.qdrant.push import push
from retriever.testing import SeededEncoder
from tests.qdrant.conftest import Place

pytestmark = pytest.mark.lucene
SECRET = "a-secret-for-the-tests-alone"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Serve one answer to every request; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"qdrant://127.0.0.1:{server.server_port}/papers"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    build_index([Document("a", "the sea"), Document("b", "the land")], folder, encoder=SeededEncoder())
    return folder


def refused(place: str) -> str:
    """Return what opening a place says."""
    with pytest.raises(UserError) as caught:
        Retriever.open(place)
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
    return str(caught.value)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    monkeypatch.setenv(client.KEY, SECRET)
    assert "no server answers there" in refused("qdrant://127.0.0.1:1/papers")


def test_a_missing_key_and_one_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(401, b"Must provide an API key or an Authorization bearer token") as address:
        monkeypatch.delenv(client.KEY, raising=False)
        assert "wants a key (status 401); set QDRANT_API_KEY" in refused(address)
        monkeypatch.setenv(client.KEY, SECRET)
        assert "refuses the key (status 401)" in refused(address)
        monkeypatch.setenv(client.KEY, "a\nb")
        assert refused(address).startswith("QDRANT_API_KEY holds characters that no key has")


def test_other_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    said = json.dumps({"status": {"error": "Not found: Collection `papers` doesn't exist!"}, "time": 0}).encode()
    with answering(404, said) as address:
        assert "no such collection; make one with `retriever push" in refused(address)
    with answering(500, b"<html>\n\noops") as address:
        assert "status 500 (<html> oops)" in refused(address)
    with answering(200, b"{}") as address:
        assert "is not Qdrant" in refused(address)


def test_keys_are_no_part_of_addresses_and_logs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert "set QDRANT_API_KEY" in refused(f"qdrant://{SECRET}@127.0.0.1/papers")
    monkeypatch.setattr(client, "TRIES", 1)
    monkeypatch.setenv(client.KEY, SECRET)
    with caplog.at_level("DEBUG"):
        refused("qdrant://no-such-host.invalid/papers")
    assert "unencrypted" in caplog.text and SECRET not in caplog.text


@pytest.mark.parametrize(
    "address", ["qdrant://", "qdrants://host", "qdrant://host:0/x", "qdrant://host/a/b", "qdrant-edge:"]
)
def test_addresses_that_are_none(address: str) -> None:
    for place in (address, str(Path(address))):  # as the command line gives them
        assert refused(place).startswith(f"'{address}': not the address of a collection; write qdrant://host[:port]/")


def test_addresses() -> None:
    assert str(parse_address(str(Path("qdrants://h:7000/papers")))) == "qdrants://h:7000/papers"
    assert parse_address("qdrants://h/papers").url == "https://h:6333"
    assert parse_address("qdrant-edge:a/b").folder == Path("a/b")


def test_collections_that_are_not_there_or_not_ours(place: Place, index: Path) -> None:
    missing = place()
    assert f"{missing}: no such collection" in refused(missing)
    foreign = place()
    name, engine = open_engine(foreign)
    engine.create(3, ())
    engine.upsert([Point("00000000-0000-0000-0000-000000000001", {"a": 1}, {})])
    assert "not a collection of `retriever push`" in refused(foreign)
    with pytest.raises(UserError, match="not a collection of `retriever push`"):
        push(index, foreign)
    engine.close()
    assert name == foreign


def test_another_encoder_and_another_index(place: Place, index: Path, tmp_path: Path) -> None:
    pushed, other = place(), tmp_path / "other"
    push(index, pushed)
    with (
        Retriever.open(pushed, SeededEncoder(sha256="6" * 64)) as retriever,
        pytest.raises(UserError, match="built with the encoder"),
    ):
        retriever.search("sea")
    build_index([Document("a", "the sea")], other, encoder="none")
    with pytest.raises(UserError, match=f"{pushed}: holds another index"):
        push(other, pushed)
    with IndexWriter.open(index, SeededEncoder()) as writer:
        writer.delete(["a"])
        writer.commit()
    with pytest.raises(UserError, match="holds another state of this index"):
        push(index, pushed)


def test_a_changed_collection_is_no_copy(place: Place, index: Path) -> None:
    pushed = place()
    push(index, pushed)
    with IndexWriter.open(pushed) as writer:
        writer.delete(["a"])
        writer.commit()
    with pytest.raises(UserError, match="or was changed since"):
        push(index, pushed)


def test_another_format(place: Place, index: Path) -> None:
    pushed = place()
    push(index, pushed)
    _, engine = open_engine(pushed)
    from retriever.qdrant.statistics import HEAD

    head = engine.get([HEAD], None)[HEAD]
    engine.upsert([Point(HEAD, {**head.payload, "version": 99}, {})])
    assert "found format version 99, this program reads 1" in refused(pushed)
    engine.close()


def test_pushing_goes_on_where_it_was(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pushed = tmp_path / "index", place()
    build_index([Document(f"d{n}", f"text {n}") for n in range(700)], folder, encoder="none")
    from retriever.qdrant.writer import CollectionWriter

    sent, send = list[int](), CollectionWriter.send

    def failing(self: CollectionWriter, chunks: list[object], **how: object) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        sent.append(len(chunks))
        send(self, chunks, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(CollectionWriter, "send", failing)
        with pytest.raises(KeyboardInterrupt):
            push(folder, pushed, commit_every=256)
    with pytest.raises(UserError, match="its push was interrupted; finish it"):
        IndexWriter.open(pushed)
    report = push(folder, pushed, commit_every=256)
    assert (report.documents, report.sent) == (700, 700 - 512)
    with Retriever.open(folder) as one, Retriever.open(pushed) as other:
        assert [hit.doc_id for hit in one.search("text 7", 20)] == [hit.doc_id for hit in other.search("text 7", 20)]
    assert push(folder, pushed).sent == 0


def test_damage_is_found(place: Place, index: Path) -> None:
    pushed = place()
    push(index, pushed)
    from retriever.qdrant.points import chunk_id

    _, engine = open_engine(pushed)
    own = chunk_id("a", 0)
    point = engine.get([own], None, ["bm25", "dense", "sparse"])[own]
    engine.upsert([Point(own, {**point.payload, "raw": point.payload["raw"].replace("sea", "see")}, point.vectors)])
    with pytest.raises(UserError, match=r"damaged .*chunk 0 of document 'a': wrong checksum"):
        Retriever.open(pushed, verify=True)
    engine.close()


def test_an_edge_collection_is_one_process_s(index: Path, tmp_path: Path) -> None:
    pushed = f"qdrant-edge:{tmp_path}/edge"
    push(index, pushed)
    program = f"from retriever import Retriever; Retriever.open({pushed!r})"
    with Retriever.open(pushed), Retriever.open(pushed):
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "another process has it open" in ended.stderr
    with Retriever.open(pushed) as retriever:
        assert retriever.reader.num_documents == 2
