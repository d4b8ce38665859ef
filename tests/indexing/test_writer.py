"""Changing an index: what readers see and when, the encoder, interruption, when FAISS is built again."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import IndexWriter
from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.vectors import dense, faiss_types
from retriever.index.verify import verify_folder
from retriever.index.writing import dense_file
from retriever.indexing.build import IndexingConfig, build_index
from retriever.indexing.writer import add_corpus, read_ids
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
DIM, VOCAB = 4, 20
Stub = partial(SeededEncoder, DIM, VOCAB, VOCAB, sha256="a" * 64)


def numbered(start: int, stop: int, word: str = "river") -> list[Document]:
    return [Document(f"d{n}", f"{word} number{n}", metadata={"n": n}) for n in range(start, stop)]


def write(path: Path, documents: Sequence[Document]) -> Path:
    lines = [json.dumps({"_id": d.doc_id, "text": d.text, **d.metadata}) for d in documents]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with FolderWriter.create(tmp_path / "index", IndexSettings(Stub().identity)):
        pass
    with IndexWriter.open(tmp_path / "index", Stub()) as writer:
        writer.add(numbered(0, 40))
        writer.commit()
    return tmp_path / "index"


class Latin(SeededEncoder):
    """Reads no text with a letter beyond ASCII."""

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        unread = np.array([not text.isascii() for text in texts])
        known = ["" if skip else text for text, skip in zip(texts, unread, strict=True)]
        return super().encode_documents(known, dense=dense, sparse=sparse)._replace(unread=unread)


def test_unread_texts_are_counted_among_those_that_were_added(tmp_path: Path) -> None:
    encoder = Latin(DIM, VOCAB, VOCAB, sha256="a" * 64)
    report = build_index([Document("a", "река"), Document("b", "river")], tmp_path / "index", encoder=encoder)
    assert report.unread == 1
    for documents, expected in (
        ([Document("c", "stone"), Document("d", " ")], 0),
        ([Document("a", "камень"), Document("e", "река"), Document("f", "bread")], 2),
        ([Document("a", "stone")], 0),
    ):
        assert add_corpus(tmp_path / "index", documents, encoder=encoder).unread == expected
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.commit_data.unread == 1, "of the whole index"


def ids(retriever: Retriever, mode: str) -> set[str]:
    return {hit.doc_id for hit in retriever.search("river", 1_000, mode=mode)}


def test_changes_are_seen_together_after_commit_and_reopen(folder: Path) -> None:
    stub = Stub()
    before = {f"d{n}" for n in range(40)}
    after = before - {"d3"} | {"new"}
    with Retriever.open(folder, stub) as retriever, Retriever.open(folder, Stub()) as old:
        assert not retriever.reopen()
        with IndexWriter.open(folder, Stub()) as writer:
            assert writer.add([Document("new", "river"), Document("d7", "river of stone")]) == 2
            assert writer.delete(["d3", "unknown"]) == 1
            assert len(writer) == 40 and "new" in writer and "d3" not in writer
            assert not retriever.reopen()
            assert all(ids(retriever, mode) == before for mode in MODES)
            writer.commit()
        assert all(ids(retriever, mode) == before for mode in MODES), "a reader keeps its view"
        reader = retriever.reader
        assert retriever.reopen() and not retriever.reopen()
        assert retriever.encoder is stub and retriever.reader is not reader
        for mode in MODES:
            assert ids(retriever, mode) == after
            assert ids(old, mode) == before
        assert retriever.reader.documents(["d7"])["d7"].text == "river of stone"
        assert old.reader.documents(["d7"])["d7"].text == "river number7"


def test_what_is_not_committed_is_forgotten(folder: Path) -> None:
    with IndexWriter.open(folder, Stub()) as writer:
        writer.add(numbered(40, 50))
        writer.delete(["d1"])
    with pytest.raises(RuntimeError, match="stopped"), IndexWriter.open(folder, Stub(limit=0)) as writer:
        writer.add(numbered(40, 50))
    with IndexWriter.open(folder) as writer:
        assert len(writer) == 40 and "d1" in writer and "d40" not in writer
        with pytest.raises(TypeError, match="list of ids"):
            writer.delete("d1")
        with pytest.raises(UserError, match="another writer has it open"):
            IndexWriter.open(folder)


def test_a_long_stream_and_an_id_that_comes_twice(folder: Path) -> None:
    with IndexWriter.open(folder, Stub()) as writer:
        assert writer.add(document for document in [*numbered(100, 700), Document("d100", "stone")]) == 601
        assert len(writer) == 640
        writer.commit()
    with FolderReader.open(folder) as reader:
        assert reader.documents(["d100"])["d100"].text == "stone"
        assert len(reader.bm25("river", 1_000)) == 639


def test_the_encoder_is_the_indexs_own_and_deleting_needs_none(folder: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(50, 51))
    with (
        IndexWriter.open(folder, Stub(sha256="b" * 64)) as writer,
        pytest.raises(UserError, match=r"seeded .*aaaa.*seeded .*bbbb.*--encoder"),
    ):
        writer.add(numbered(50, 51))
    with pytest.raises(UserError, match=r"seeded .*aaaa.*seeded .*bbbb.*--encoder"):
        add_corpus(folder, corpus, encoder=Stub(sha256="b" * 64))
    with IndexWriter.open(folder, "no such folder") as writer:
        assert writer.delete(["d0"]) == 1
        writer.commit()
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 39


def test_adding_a_corpus(folder: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", [*numbered(30, 50, "stone"), *numbered(49, 50, "bread")])
    with pytest.raises(UserError, match="'d49' stands already"):
        add_corpus(folder, corpus, encoder=Stub())
    report = add_corpus(folder, corpus, encoder=Stub(), config=IndexingConfig(on_duplicate="replace"))
    assert (report.added, report.updated, report.duplicates, report.documents) == (10, 10, 1, 50)
    with FolderReader.open(folder) as reader:
        found = reader.documents(f"d{n}" for n in range(50))
        words = [found[f"d{n}"].text.split()[0] for n in range(50)]
    assert words == ["river"] * 30 + ["stone"] * 19 + ["bread"]


def test_bad_input_changes_nothing(folder: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(30, 50, "stone"))
    corpus.write_text(corpus.read_text() + "{\n")
    stub = Stub()
    with pytest.raises(UserError, match=f"{corpus}:21"):
        add_corpus(folder, corpus, encoder=stub)
    assert stub.seen == []
    report = add_corpus(folder, corpus, encoder=stub, config=IndexingConfig(on_bad="skip"))
    assert (report.bad, report.documents) == (1, 50) and report.first_bad.startswith(f"{corpus}:21")


def test_adding_goes_on_after_an_interruption(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(20, 120, "stone"))
    small = IndexingConfig(batch=10, commit_every_documents=20)
    with pytest.raises(RuntimeError, match="stopped"):
        add_corpus(folder, corpus, encoder=Stub(limit=50), config=small)
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 60, "two commits of 20, the first of which are updates"
    stub = Stub()
    report = add_corpus(folder, corpus, encoder=stub, config=small, progress=True)
    assert stub.seen[0] == "stone number60" and len(stub.seen) == 60 and report.documents == 120
    shown = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if line.startswith(("add", "commit"))]
    assert "| 40/100 " in shown[0] and "| 100/100 " in shown[-1]
    again = Stub()
    report = add_corpus(folder, corpus, encoder=again, config=small)
    assert (len(again.seen), report.added, report.updated) == (100, 0, 100), "a finished one starts anew"
    with pytest.raises(RuntimeError, match="stopped"):
        add_corpus(folder, corpus, encoder=Stub(limit=50), config=small)
    with IndexWriter.open(folder) as writer:
        writer.delete(["d20"])
        writer.commit()
    report = add_corpus(folder, corpus, encoder=stub, config=small)
    assert (report.added, report.updated) == (1, 99), "what was deleted in between is there again"


def test_indexing_goes_on_after_other_changes(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c.jsonl", numbered(0, 100))
    small = IndexingConfig(batch=10, commit_every_documents=20)
    with pytest.raises(RuntimeError, match="stopped"):
        build_index(corpus, tmp_path / "index", encoder=Stub(limit=50), config=small)
    add_corpus(tmp_path / "index", write(tmp_path / "d.jsonl", numbered(500, 510)), encoder=Stub())
    stub = Stub()
    report = build_index(corpus, tmp_path / "index", encoder=stub, config=small, resume=True)
    assert report.documents == 110 and stub.seen[0] == "river number40"


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_faiss_is_built_again_when_too_many_rows_are_newer(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FolderWriter.open(folder) as writer:
        writer.commit(dense_type=kind)
    covered = []
    with IndexWriter.open(folder, Stub()) as writer:
        for n in range(40, 54, 2):
            writer.add(numbered(n, n + 2))
            writer.commit()
            covered.append(writer.folder.committed.dense_rows)
        assert covered == [40, 40, 40, 40, 50, 50, 50], "built again above a fifth"
        monkeypatch.setattr(dense_file, "NEWER_ROWS", 4)
        writer.add(numbered(54, 55))
        writer.commit()
        record = writer.folder.committed
        assert (record.dense_rows, record.dense_type, record.dense_choice) == (55, kind, kind)
        writer.delete(["d0"])
        writer.commit()
        assert writer.folder.committed.dense_file == record.dense_file
    with FolderReader.open(folder) as reader:
        assert len(reader.dense(np.ones((1, DIM), np.float32), 100)[0]) == 54


@pytest.mark.parametrize("compacted", [False, True])
def test_others_write_while_faiss_is_built(folder: Path, compacted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was added is seen before; a graph of rows that have moved meanwhile is thrown away."""
    with FolderWriter.open(folder) as first:
        first.commit(dense_type="hnsw")
    build = dense.build
    seen: list[int] = []

    def beside_another_writer(*what: Any) -> int:
        crc = build(*what)
        if not seen:
            with FolderReader.open(folder) as reader:
                seen.extend([reader.num_documents, reader.commit_data.dense_rows])
            with IndexWriter.open(folder, Stub()) as other:
                other.delete(["d0"])
                other.add(numbered(100, 102))
                other.commit()
                if compacted:
                    other.compact("flat")
        return crc

    monkeypatch.setattr(dense, "build", beside_another_writer)
    with IndexWriter.open(folder, Stub()) as writer:
        writer.add(numbered(40, 60))
        writer.commit()
        assert seen == [60, 40]
        assert writer.folder.committed.dense_rows == (0 if compacted else 60)
        writer.add(numbered(200, 201))
        writer.commit()
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 62 and not reader.missing(["d59", "d101", "d200"])
        found = {hit.doc_id for hit in reader.dense(np.ones((1, DIM), np.float32), 100)[0]}
        assert found == {f"d{n}" for n in (*range(1, 60), 100, 101, 200)}
    assert not verify_folder(folder).damages


def test_auto_follows_the_size_and_flat_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FolderWriter.open(folder) as writer:
        writer.commit(dense_type="flat")
    monkeypatch.setattr(faiss_types, "AUTO", ((50, "flat"), (500, "hnsw")))
    for choice, wanted in (("flat", "flat"), ("auto", "hnsw")):
        with FolderWriter.open(folder) as writer:
            writer.commit(dense_type=choice)
        with IndexWriter.open(folder, Stub()) as writer:
            writer.add(numbered(100, 130))
            writer.commit()
            assert writer.folder.committed.dense_type == wanted


def test_searching_while_another_thread_reopens(folder: Path) -> None:
    """Each search sees one commit: the batches of ten come as a whole in every leg and in the texts."""
    done = threading.Event()
    with Retriever.open(folder, Stub()) as retriever, IndexWriter.open(folder, Stub()) as writer:

        def search(mode: str) -> int:
            count = 0
            while not (count and done.is_set()):  # once at least: the writer may be the first to end
                hits = retriever.search("river", 1_000, mode=mode)
                assert len(hits) % 10 == 0 and all(hit.text for hit in hits)
                count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            searches = [pool.submit(search, mode) for mode in MODES]
            try:
                for n in range(40, 140, 10):
                    writer.add(numbered(n, n + 10))
                    writer.commit()
                    assert retriever.reopen()
            finally:
                done.set()
            assert all(one.result() > 0 for one in searches)
        stream = retriever.rank([], 10)
        assert list(stream) == []
        assert len(retriever.search("river", 1_000, mode="dense")) == 140


def test_reopening_a_folder_that_changed_its_nature(folder: Path, tmp_path: Path) -> None:
    with Retriever.open(folder, Stub()) as retriever:
        folder.rename(tmp_path / "moved")
        with pytest.raises(UserError, match="no such index folder"):
            retriever.reopen()
        with FolderWriter.create(folder, IndexSettings(Stub(sha256="b" * 64).identity)):
            pass
        with pytest.raises(UserError, match="built again with other settings"):
            retriever.reopen()
        assert len(retriever.search("river", 100)) == 40


def test_reading_ids(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes("a\r\n\n é \n😀".encode())
    assert read_ids(path) == ["a", " é ", "😀"]
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(UserError, match=r"ids\.txt:2: byte 0xff"):
        read_ids(path)
