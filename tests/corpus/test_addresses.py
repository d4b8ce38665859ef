"""Corpora by pattern and in stores, through fsspec's memory and local file systems and a web server."""

from __future__ import annotations

import gzip
import http.server
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from retriever.corpus.corpus import documents, open_corpus, survey
from retriever.index.places import open_reader
from retriever.indexing.shards import build_shards
from retriever.testing import SeededEncoder
from retriever.types import Document, UserError

ROWS = [{"_id": f"d{n}", "text": f"text {n}", "title": "", "n": n} for n in range(12)]
DOCUMENTS = [Document(f"d{n}", f"text {n}", "", {"n": n}) for n in range(12)]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]], path: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Make a folder with three parts, each in a form of its own, and one deeper that `**` alone finds."""
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(jsonl(ROWS[:4]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS[4:8])))
    (folder / "c.parquet").write_bytes(parquet(ROWS[8:10], tmp_path / "made.parquet"))
    (folder / "deep" / "d.jsonl").write_bytes(jsonl(ROWS[10:]))
    (folder / "e.jsonl").mkdir()  # no file
    return folder


@pytest.fixture
def memory(parts: Path) -> Iterator[str]:
    """Put the parts into fsspec's memory."""
    store = fsspec.filesystem("memory")
    store.put(f"{parts}/", "/bucket/parts", recursive=True)
    yield "memory://bucket/parts"
    store.rm("/bucket", recursive=True)


def found(spec: str | Path) -> list[Document]:
    corpus = open_corpus(spec)
    return [one.document for one in documents(corpus, survey(corpus))]  # it is read twice


def test_patterns_and_stores_give_the_documents_of_all_files_in_order(parts: Path, memory: str) -> None:
    for place in (str(parts), f"file://{parts}", memory):
        assert found(f"{place}/*.*") == DOCUMENTS[:10]
        assert found(f"{place}/**/*.jsonl") == DOCUMENTS[:4] + DOCUMENTS[10:]
        assert found(f"{place}/[ab].jsonl*") == DOCUMENTS[:8]
    for place in (f"file://{parts}", memory):
        assert found(f"{place}/c.parquet") == DOCUMENTS[8:10]
    assert found(parts / "a.*") == DOCUMENTS[:4]
    literal = parts / "[a].jsonl"
    literal.write_bytes(jsonl(ROWS[5:6]))
    assert found(literal) == DOCUMENTS[5:6]  # a file of this name comes before the pattern


def test_a_beir_folder_a_table_and_an_archive_in_a_store(parts: Path, memory: str) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/beir/corpus.jsonl", jsonl(ROWS))
    store.pipe("/bucket/table.csv", b"id,text,\nd1,one,x\n")
    assert found("memory://bucket/beir") == DOCUMENTS
    table = open_corpus("memory://bucket/table.csv")
    assert [record.source for record in table] == ["memory:///bucket/table.csv:2"]
    assert [(kind.what, kind.number) for kind in table.left_out] == [("columns without a name", 1)]
    with zipfile.ZipFile(parts / "all.zip", "w") as archive:
        archive.write(parts / "a.jsonl", "a.jsonl")
    assert found(f"zip://*.jsonl::file://{parts}/all.zip") == DOCUMENTS[:4]


def test_shards_are_built_from_a_store(memory: str, tmp_path: Path) -> None:
    report = build_shards(f"{memory}/**/*.*", tmp_path / "i", shards=2, encoder=SeededEncoder())
    assert report.documents == 12
    with closing(open_reader(tmp_path / "i")) as reader:
        assert reader.documents([f"d{n}" for n in range(12)]) == {one.doc_id: one for one in DOCUMENTS}


@pytest.mark.filterwarnings("ignore")
def test_web_addresses(parts: Path) -> None:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(parts))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert found(f"{address}/b.jsonl.gz") == DOCUMENTS[4:8]
        with pytest.raises(UserError, match=r"none\.jsonl: no file is there; give the address of a file"):
            open_corpus(f"{address}/none.jsonl")
        server.shutdown()
    with (
        socket.socket() as silent,
        pytest.raises(UserError, match=r"none\.jsonl: (cannot be read|no such file)") as raised,
    ):
        silent.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        list(open_corpus(f"{address}/none.jsonl"))
    assert "\n" not in str(raised.value)


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """Loses its connection in the middle of a file, with an error of its own."""

    protocol = "failing"

    def isdir(self, path: str) -> bool:
        return False

    def exists(self, path: str, **how: Any) -> bool:
        return True

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        raise RuntimeError("the token\nhas expired")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("memory://bucket/none.jsonl", "no file is there; give the address of a file, or a pattern such as"),
        ("none-*.jsonl", "no file is there"),
        ("nothing://here/a.jsonl", r"cannot be read \(Protocol not known: nothing\); check the address"),
        ("s3://bucket/a.jsonl", "Install s3fs to access S3; run pip install for it"),
        ("failing://a.jsonl", r"cannot be read \(the token has expired\); check the address, the network"),
        ("memory://bucket/parts/*", "cannot tell the format from the suffix '.txt'"),
    ],
)
def test_what_is_wrong_is_one_line(memory: str, spec: str, message: str) -> None:
    fsspec.register_implementation("failing", Failing, clobber=True)
    fsspec.filesystem("memory").pipe("/bucket/parts/z.txt", b"x")
    with pytest.raises(UserError, match=message) as raised:
        list(open_corpus(spec))
    assert "\n" not in str(raised.value)
