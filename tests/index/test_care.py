"""Compacting and verifying an index: same answers in less room, and every damaged byte found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.lucene.jvm import damage_named, java
from retriever.index.verify import Damage, verify_folder
from retriever.types import Document, Encoded, EncoderIdentity, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
DIM, VOCAB = 8, 50
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB))


def encode(texts: Sequence[str]) -> Encoded:
    random = [np.random.default_rng(list(text.encode())) for text in texts]
    dense = np.array([r.standard_normal(DIM) for r in random], np.float32).reshape(len(texts), DIM)
    sparse = np.array([r.random(VOCAB) + 0.1 for r in random], np.float32).reshape(len(texts), VOCAB)
    return Encoded(dense, csr_matrix(sparse), np.zeros(len(texts), bool))


def add(writer: FolderWriter, documents: Sequence[Document]) -> None:
    writer.add(documents, encode([document.contents for document in documents]))


def numbered(start: int, stop: int, word: str = "river") -> list[Document]:
    return [Document(f"é{n}", f"{word} number{n}", "T", {"n": n}) for n in range(start, stop)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make an index of three segments, with dead rows and HNSW over some of the others."""
    with FolderWriter.create(tmp_path / "index", SETTINGS) as writer:
        for start in (0, 100, 200):
            add(writer, numbered(start, start + 100))
            writer.commit({"place": "here"}, dense_type="hnsw" if start == 100 else None)
        writer.delete(f"é{n}" for n in range(50, 120))
        add(writer, numbered(150, 180, "stone"))
        writer.commit({"place": "here"})
    return tmp_path / "index"


def answers(folder: Path) -> object:
    query = encode(["what"])
    assert query.dense is not None and query.sparse is not None
    with FolderReader.open(folder) as reader:
        selection = reader.select("n >= 30 and n < 250")
        bm25 = reader.bm25("stone river", 1_000)
        return (
            {hit.doc_id for hit in bm25},
            reader.dense(query.dense, 1_000),
            reader.sparse(query.sparse, 1_000),
            reader.dense(query.dense, 20, selection),
            {hit.doc_id for hit in reader.bm25("number200 number30 river", 1_000, selection)},
            reader.documents(hit.doc_id for hit in bm25),
        )


@pytest.mark.parametrize("kind", [None, "flat", "hnsw", "ivf"])
def test_compacting_changes_no_answer(folder: Path, kind: str | None) -> None:
    before = answers(folder)
    size = sum(file.stat().st_size for file in folder.glob("rows*/*"))
    with FolderReader.open(folder) as old:
        with FolderWriter.open(folder) as writer:
            assert writer.compact(kind) == 100
            record = writer.committed
            assert (record.mark.rows, record.documents, record.dense_type) == (230, 230, kind or "hnsw")
            assert record.dense_rows == (0 if kind == "flat" else 230) and record.note == {"place": "here"}
        assert old.num_documents == 230 and len(old.dense(np.ones((1, DIM), np.float32), 1_000)[0]) == 230
    assert answers(folder) == before
    assert sum(file.stat().st_size for file in folder.glob("rows*/*")) < size
    assert verify_folder(folder).damages == ()
    with FolderWriter.open(folder) as writer:
        assert writer.compact() == 0
        add(writer, numbered(0, 10, "bread"))
        writer.commit()
        assert writer.compact() == 10
    assert len(list(folder.glob("rows*"))) == 1
    with FolderReader.open(folder) as reader:
        assert {hit.doc_id for hit in reader.bm25("bread", 100)} == {f"é{n}" for n in range(10)}
        assert {hit.doc_id for hit in reader.dense(np.ones((1, DIM), "f4"), 99, reader.select("n < 9"))[0]} == {
            f"é{n}" for n in range(9)
        }


def test_compacting_while_lucene_merges(folder: Path) -> None:
    """What is deleted after a merge has begun is in the merged segment, with the row that it had."""
    for commits in (9, 12, 10, 12):
        with FolderWriter.open(folder) as writer:
            for start in range(0, 40 * commits, 40):
                add(writer, numbered(start, start + 60))
                writer.commit()
            writer.delete(f"é{n}" for n in range(0, 400, 7))
            writer.compact()
            live = set(writer.doc_ids)
        with FolderReader.open(folder) as reader:
            found = reader.dense(np.ones((1, DIM), np.float32), 1_000, reader.select("n < 200"))[0]
        assert {hit.doc_id for hit in found} == {doc_id for doc_id in live if int(doc_id[1:]) < 200}


def test_compacting_takes_uncommitted_changes_along_and_an_empty_index(folder: Path) -> None:
    with FolderWriter.open(folder) as writer:
        add(writer, numbered(900, 901))
        writer.compact()
    with FolderWriter.open(folder) as writer:
        assert "é900" in writer and writer.delete(list(writer.doc_ids)) == 231
        assert writer.compact("ivf") == 231
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 0 and reader.bm25("river", 5) == []
        assert reader.dense(np.ones((1, DIM), np.float32), 5) == [[]]
    assert verify_folder(folder).damages == ()


def test_an_unknown_type_changes_nothing(folder: Path) -> None:
    before = answers(folder)
    with FolderWriter.open(folder) as writer:
        with pytest.raises(UserError, match="allowed: auto, flat, hnsw, ivf"):
            writer.compact("annoy")
        assert writer.compact() == 100
    assert answers(folder) == before


def test_an_index_without_encoder(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "i", IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        writer.add(numbered(0, 20), None)
        writer.add(numbered(0, 10), None)
        writer.commit()
        assert writer.compact("hnsw") == 10
    assert verify_folder(tmp_path / "i").damages == ()
    with FolderReader.open(tmp_path / "i") as reader:
        assert len(reader.bm25("river", 100)) == 20


def test_every_flipped_byte_is_found(folder: Path, tmp_path: Path) -> None:
    """Three bytes of each file, its first and last among them, and its end cut off, and the file gone."""
    whole = verify_folder(folder)
    assert whole.damages == () and whole.commit == 4
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    files = [name for name in files if not name.endswith("write.lock")]
    assert whole.files == len(files) and whole.bytes == sum((folder / name).stat().st_size for name in files)
    random = np.random.default_rng(0)
    for name in files:
        path, content = folder / name, (folder / name).read_bytes()
        for position in (0, int(random.integers(len(content))), len(content) - 1):
            changed = bytearray(content)
            changed[position] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            assert name in damaged(folder), (name, position)
        path.write_bytes(content[:-1])
        assert name in damaged(folder), name
        path.unlink()
        # Lucene takes the newest commit that it finds: without one there is none to name.
        assert name in damaged(folder) or name.startswith("lucene/segments_"), name
        path.write_bytes(content)
    assert verify_folder(folder) == whole
    with (folder / "rows" / "vectors.f32").open("ab") as file:
        file.write(b"never committed")
    assert verify_folder(folder).damages == ()


def damaged(folder: Path) -> str:
    """Return what verify says; exactly one file is at fault."""
    try:
        found = verify_folder(folder).damages
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    assert len(found) == 1
    return found[0].file


def test_only_its_own_folders_are_removed(folder: Path) -> None:
    for name in ("rows-backup", "rows2", "rows-7"):
        shutil.copytree(folder / "rows", folder / name)
    with FolderWriter.open(folder) as writer:
        writer.compact()
    assert sorted(path.name for path in folder.glob("rows*")) == ["rows-5", "rows-backup", "rows2"]
    assert list((folder / "rows-backup").glob("live-*.bin"))


def test_what_lucene_says_is_made_plain(folder: Path) -> None:
    [segments] = (folder / "lucene").glob("segments_*")
    segments.unlink()
    with pytest.raises(UserError, match=r"IndexNotFoundException: no segments\* file found: files: \[_") as caught:
        FolderReader.open(folder)
    assert "lockFactory" not in str(caught.value)
    denied = java("java.nio.file.AccessDeniedException")(str(segments))  # played: the superuser may read everything
    future = java("java.util.concurrent.CompletableFuture").failedFuture(denied)
    with pytest.raises(UserError) as caught, damage_named(folder):
        future.get()
    assert str(caught.value) == f"{segments}: permission denied; give yourself access to the files of the index"


def test_faiss_is_made_again_from_the_rows(folder: Path) -> None:
    before = answers(folder)
    [file] = (folder / "dense").iterdir()
    file.write_bytes(b"nonsense")
    assert verify_folder(folder).damages == (Damage(f"dense/{file.name}", "wrong checksum"),)
    with pytest.raises(UserError, match="retriever compact"):
        FolderReader.open(folder)
    with FolderWriter.open(folder) as writer:
        writer.compact()
    assert answers(folder) == before
    shutil.rmtree(folder / "dense")
    (folder / "dense").mkdir()
    with FolderWriter.open(folder) as writer:
        writer.compact()
    assert answers(folder) == before and verify_folder(folder).damages == ()
