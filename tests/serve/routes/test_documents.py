"""Documents over HTTP: what was answered is in the index, for every reader; what was refused changed nothing."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from retriever.cli.main import cli
from retriever.index.lock import LockedError
from retriever.index.verify import verify_folder
from retriever.indexing.build import build_index
from retriever.indexing.writer import IndexWriter, add_corpus
from retriever.search.retriever import Retriever
from retriever.serve.app import create_app
from retriever.serve.indexes.work import Work
from retriever.serve.problems import ProblemError
from retriever.serve.settings import Limits, ServeSettings
from retriever.types import Document, UserError
from retriever.wire import document_from_wire, document_to_wire
from tests.helpers.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

URL = "/indexes/tiny/documents"
LINES, JSON = {"content-type": "application/x-ndjson"}, {"content-type": "application/json"}


def ids(folder: Path, mode: str, query: str, **how: Any) -> set[str]:
    with Retriever.open(folder) as retriever:
        return {hit.doc_id for hit in retriever.search(query, 50, mode=mode, **how)}


def test_reading(client: TestClient, tiny_corpus: Path) -> None:
    records = [json.loads(line) for line in tiny_corpus.read_text("utf-8").splitlines()]
    first = records[0]
    found = client.get(f"{URL}/{first['_id']}").json()
    assert (found["id"], found["title"], found["text"]) == (first["_id"], first["title"], first["text"])
    some = [record["_id"] for record in records[3:0:-1]]
    for answer in (
        client.post(f"{URL}/get", json={"ids": [*some, "nobody"]}),
        client.get(URL, params={"id": [*some, "nobody"]}),
    ):
        assert [document["id"] for document in answer.json()["documents"]] == some
        assert answer.json()["unknown"] == ["nobody"]
    missing = client.get(f"{URL}/nobody")
    assert missing.status_code == 404
    assert missing.json()["detail"] == "tiny: has no document 'nobody'; give the id of one"


def test_adding_replacing_and_deleting(writable: TestClient, folder: Path) -> None:
    documents = [
        Document("a/b c?d", "Glaciers carve valleys.", "Ice", {"year": 1999, "tags": ["cold", "slow"]}),
        Document("..", "Glaciers melt in summer."),
    ]
    body = {"documents": [document_to_wire(document) for document in documents]}
    done = writable.post(URL, json=body)
    assert done.status_code == 200, done.text
    assert (done.json()["added"], done.json()["updated"], done.json()["documents"]) == (2, 0, 22)
    for document in documents:
        answer = writable.get(URL, params={"id": document.doc_id}).json()
        assert [document_from_wire(values) for values in answer["documents"]] == [document]
    hits = writable.get("/indexes/tiny/search", params={"query": "glaciers", "mode": "bm25"}).json()["hits"]
    assert (
        {hit["doc_id"] for hit in hits}
        == {document.doc_id for document in documents}
        == ids(folder, "bm25", "glaciers")
    )
    put = writable.put(f"{URL}/a%2Fb%20c%3Fd", json={"text": "Volcanoes erupt.", "metadata": {"year": 2001}})
    assert (put.json()["added"], put.json()["updated"]) == (0, 1)
    assert ids(folder, "bm25", "volcanoes", filter="year = 2001") == {"a/b c?d"}
    assert writable.get("/indexes/tiny").json()["documents"] == 22
    assert writable.delete(f"{URL}/a%2Fb%20c%3Fd").json() == {"deleted": 1, "unknown": 0, "documents": 21}
    assert writable.delete(f"{URL}/a%2Fb%20c%3Fd").status_code == 404
    done = writable.post(f"{URL}/delete", json={"ids": ["..", "nobody"]})
    assert done.json() == {"deleted": 1, "unknown": 1, "documents": 20}
    assert ids(folder, "bm25", "glaciers volcanoes") == set()
    assert not verify_folder(folder).damages


def test_a_stream_of_lines_is_one_commit(writable: TestClient, folder: Path) -> None:
    before = writable.get("/indexes/tiny").json()["commit"]
    lines = "\n".join(json.dumps({"_id": f"s{i}", "contents": f"Marble {i}", "colour": "white"}) for i in range(300))
    done = writable.post(URL, content=lines, headers=LINES)
    assert (done.json()["added"], done.json()["documents"]) == (300, 320)
    assert writable.get("/indexes/tiny").json()["commit"] == before + 1
    writable.post(f"{URL}/delete", json={"ids": [f"s{i}" for i in range(300)]})
    assert writable.get("/indexes/tiny").json()["documents"] == 20


@pytest.mark.parametrize(
    "records",
    [
        [{"id": "x", "text": "fine"}, {"id": 1.5, "text": "no"}],
        [{"id": "x", "text": "fine"}, {"text": "no id"}],
        [{"id": "x", "text": "fine"}, {"id": "x", "text": "again"}],
        [{"id": "x", "text": ["no"]}],
        [],
    ],
    ids=["id", "no-id", "twice", "text", "empty"],
)
def test_bad_documents_change_nothing_and_say_why(
    writable: TestClient, folder: Path, tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    corpus = tmp_path / "documents"
    corpus.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, records)), "utf-8")
    with pytest.raises(UserError) as error:
        add_corpus(folder, corpus.with_suffix(".jsonl"))
    said = str(error.value).replace(str(corpus.with_suffix(".jsonl")), "documents")
    said = said.replace("--on-bad skip", "on_bad=skip").replace("--on-duplicate skip", "on_duplicate=skip")
    lines = corpus.with_suffix(".jsonl").read_bytes()
    for answer in (writable.post(URL, json={"documents": records}), writable.post(URL, content=lines, headers=LINES)):
        assert answer.status_code == 400
        assert answer.json()["detail"] == said
    assert writable.get("/indexes/tiny").json()["documents"] == 20


def test_policies(writable: TestClient) -> None:
    records = [{"id": "p", "text": "first"}, {"id": 2.5, "text": "bad"}, {"id": "p", "text": "second"}]
    done = writable.post(URL, json={"documents": records}, params={"on_duplicate": "replace", "on_bad": "skip"}).json()
    assert (done["added"], done["bad"], done["duplicates"]) == (1, 1, 1)
    assert done["first_bad"].startswith("documents:2: ")
    assert writable.get(f"{URL}/p").json()["text"] == "second"
    writable.delete(f"{URL}/p")


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"content": b"{", "headers": JSON}, 400),
        ({"json": {"documents": 3}}, 400),
        ({"json": []}, 400),
        ({"content": b'{"documents": [{"id": "x", "text": "", "n": NaN}]}', "headers": JSON}, 400),
        ({"content": b'{"documents": [{"id": "x", "text": "\\ud800"}]}', "headers": JSON}, 400),
        ({"content": b"id,text\n", "headers": {"content-type": "text/csv"}}, 415),
        ({"content": b"", "headers": {}}, 415),
        ({"content": b" " * 300_000, "headers": LINES}, 413),
        ({"content": iter([b" " * 100_000] * 3), "headers": LINES}, 413),
    ],
)  # fmt: skip
def test_bodies_that_are_none(writable: TestClient, how: dict[str, Any], status: int) -> None:
    answer = writable.post(URL, **how)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert writable.get("/indexes/tiny").json()["documents"] == 20


def test_while_another_writer_has_the_index(
    writable: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriever.serve.indexes.writing.LOCK_SECONDS", 0.2)
    with IndexWriter.open(folder):
        refused = writable.post(URL, json={"documents": [{"id": "x", "text": "late"}]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert refused.json()["detail"] == "tiny: another process writes to it; try again later"


def test_two_servers_write_in_turn(writable: TestClient, folder: Path) -> None:
    """Each waits for the other; what was answered is in the index of both, and of a third writer in between."""

    def add(client: TestClient, name: str) -> list[int]:
        bodies = ([{"id": f"{name}-{n}", "text": f"{name} number {n}"}] for n in range(3))
        return [client.post(URL, json={"documents": body}).status_code for body in bodies]

    settings = ServeSettings({"tiny": folder}, write=True)
    with (
        TestClient(create_app(settings), base_url="http://127.0.0.1") as second,
        ThreadPoolExecutor(2) as pool,
    ):
        answers = list(pool.map(add, (writable, second), ("one", "two")))
        assert answers == [[200] * 3] * 2
        with IndexWriter.open(folder) as writer:
            assert len(writer) == 26
        assert writable.post(f"{URL}/delete", json={"ids": [f"two-{n}" for n in range(3)]}).json()["deleted"] == 3
        assert second.post(f"{URL}/delete", json={"ids": [f"one-{n}" for n in range(3)]}).json()["documents"] == 20
    assert not verify_folder(folder).damages


@pytest.mark.parametrize("held", [False, True])
def test_a_bulk_writer_lets_others_have_their_turn(writable: TestClient, folder: Path, held: bool) -> None:
    """One that commits without a pause, opening the index anew each time, or once for all commits."""
    commits, done = [0], Event()
    waited: list[bool] = []  # at each commit: whether somebody stood in line

    def opened() -> IndexWriter:
        while True:
            try:
                return IndexWriter.open(folder)
            except LockedError:  # the server has its turn just now
                time.sleep(0.001)

    def bulk() -> None:
        while not done.is_set():
            with opened() as writer:
                while not done.is_set():
                    writer.add([Document(f"bulk-{commits[0] % 5}", "Yeast again.")])
                    waited.append(writer.folder.wanted)
                    writer.commit()
                    commits[0] += 1
                    if not held:
                        break

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(bulk)
        try:
            for number in range(2):
                before = commits[0]
                while commits[0] == before:
                    assert not writing.done()
                    time.sleep(0.001)
                others = len(waited)
                answer = writable.put(f"{URL}/own-{number}", json={"text": "Between two of them."})
                assert answer.status_code == 200, answer.text
                assert sum(waited[others:]) <= 4, "one commit, which was begun, for each time that it stands in line"
        finally:
            done.set()
        writing.result()
    expected = {f"own-{number}" for number in range(2)} | {f"bulk-{n}" for n in range(min(commits[0], 5))}
    wait_until(lambda: all(writable.get(f"{URL}/{doc_id}").status_code == 200 for doc_id in expected))
    deleted = writable.post(f"{URL}/delete", json={"ids": sorted(expected)}).json()
    assert (deleted["deleted"], deleted["documents"]) == (len(expected), 20)
    assert not verify_folder(folder).damages


def test_commits_of_others_are_seen(writable: TestClient, folder: Path) -> None:
    with IndexWriter.open(folder) as writer:
        writer.add([Document("other", "Basalt columns")])
        writer.commit()
    wait_until(lambda: writable.get(f"{URL}/other").status_code == 200)
    writable.delete(f"{URL}/other")


def test_without_write_nothing_changes(client: TestClient, served_folder: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in served_folder.rglob("*"))
    for answer in (
        client.post(URL, json={"documents": [{"id": "x", "text": "y"}]}),
        client.put(f"{URL}/d01", json={"text": "y"}),
        client.delete(f"{URL}/d01"),
        client.post(f"{URL}/delete", json={"ids": ["d01"]}),
    ):
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:retriever:problem:read-only"
    assert sorted((path, path.stat().st_mtime_ns) for path in served_folder.rglob("*")) == before


def test_an_index_that_another_takes_the_place_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def seen(words: str) -> set[str]:
        answer = client.get("/indexes/x/search", params={"query": words})
        assert answer.status_code == 200, answer.text
        return {hit["doc_id"] for hit in answer.json()["hits"]}

    folders = {name: tmp_path / name for name in ("old", "new", "served")}
    for name in ("old", "new"):
        build_index([Document(name, f"A {name} stone")], folders[name], encoder="none")
    folders["old"].rename(folders["served"])
    settings = ServeSettings({"x": folders["served"]}, write=True)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert seen("stone") == {"old"}
        folders["served"].rename(tmp_path / "away")
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert seen("stone") == {"old"}  # from the files that are open
        assert client.get("/indexes/x").json()["documents"] == 1  # its fields need Lucene, which starts now
        refused = client.post("/indexes/x/documents/delete", json={"ids": ["old"]})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:retriever:problem:missing-index")
        assert not folders["served"].exists()
        folders["new"].rename(folders["served"])
        wait_until(lambda: seen("stone") == {"new"})
        wait_until(lambda: client.get("/readyz").status_code == 200)
    assert len([record for record in caplog.records if "cannot be opened" in record.message]) == 1


def test_a_list_is_read_as_a_whole_and_so_has_to_be_short(served_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(served_folder, tmp_path / "tiny")
    settings = ServeSettings({"tiny": folder}, write=True, limits=Limits(listed=500))
    records = [{"id": f"w{number}", "text": "Marble is hard."} for number in range(20)]
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        answer = client.post(URL, json={"documents": records})
        assert answer.status_code == 413
        assert "send application/x-ndjson, one document a line" in answer.json()["detail"]
        lines = "\n".join(map(json.dumps, records))
        assert client.post(URL, content=lines, headers=LINES).json()["added"] == 20


async def test_only_so_many_uploads_are_on_their_way() -> None:
    work = Work(1, 2, 10.0)
    with work.arriving(), work.arriving():
        with pytest.raises(ProblemError) as error, work.arriving():
            pass
        assert error.value.status_code == 429
        with pytest.raises(ProblemError):
            await work.run(lambda: 1)
    assert await work.run(lambda: 1) == 1
    assert work.at_work == work.on_the_way == 0
    work.close()


async def test_who_is_alone_is_answered_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever.serve.indexes.work.SOON", math.inf)
    one, other = ("127.0.0.1", 1), ("127.0.0.1", 2)
    work = Work(1, 2, 10.0)
    assert not work.alone(one)
    assert await work.run(threading.get_ident) != threading.get_ident()
    assert work.alone(one)
    assert await work.run(threading.get_ident, quick=True) == threading.get_ident()
    assert not work.alone(other) and not work.alone(one) and work.alone(one)
    assert not work.alone(None) and not work.alone(None)
    assert not work.alone(one)
    with work.arriving():
        assert not work.alone(one)
    monkeypatch.setattr("retriever.serve.indexes.work.SOON", -1.0)
    assert not work.alone(one), "the last one took too long"
    work.close()


def test_an_index_of_several_shards_is_served_and_changed(tiny_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    command = ["index", str(tiny_corpus), "--index", str(folder), "--shards", "2", "--encoder", "none"]
    assert CliRunner().invoke(cli, command, catch_exceptions=False).exit_code == 0
    with TestClient(create_app(ServeSettings({"tiny": folder}, write=True)), base_url="http://127.0.0.1") as client:
        assert client.get("/indexes/tiny").json()["documents"] == 20
        assert client.post(URL, json={"documents": [{"id": "m", "text": "Marble."}]}).json()["documents"] == 21
        with IndexWriter.open(folder) as writer:
            writer.add([Document("n", "Marble, too.")])
            writer.commit()
        wait_until(lambda: found(client, "marble") == {"m", "n"})


def found(client: TestClient, query: str) -> set[str]:
    """Return the ids of the hits."""
    return {hit["doc_id"] for hit in client.get("/indexes/tiny/search", params={"query": query}).json()["hits"]}
