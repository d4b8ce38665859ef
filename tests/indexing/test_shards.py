"""Sharded indexes: built, resumed, changed, compacted, verified, merged, beside one index of the same documents."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever import Document, IndexWriter, Retriever, UserError, build_index
from retriever.index.places import describe
from retriever.index.shards.merge import merge_indexes, snapshot_index
from retriever.index.shards.verify import verify_index
from retriever.index.verify import damage_text
from retriever.indexing.build import IndexingConfig, interrupted
from retriever.indexing.shards import build_shards
from retriever.indexing.writer import add_corpus
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.fusion.stored import store_fusion
from retriever.search.modes import MODES
from retriever.testing import SeededEncoder
from retriever.types import Query

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter", "island", "candle"]
QUERIES = [Query(text, text) for text in ("river", "river stone winter", "bread bread candle", "island")]
CONFIG = IndexingConfig(dense_type="flat", batch=8, commit_every_documents=16)


def document(number: int, version: int = 0) -> Document:
    random = np.random.default_rng([number, version])
    return Document(f"d{number}", " ".join(random.choice(WORDS, random.integers(0, 8))), metadata={"n": number})


CORPUS = [document(number) for number in range(120)]


def build(folder: Path, corpus: list[Document], shards: int, encoder: SeededEncoder | None = None) -> Path:
    build_shards(corpus, folder, shards=shards, encoder=encoder or SeededEncoder(), config=CONFIG)
    return folder


def same(one: Path, other: Path, *, exact: bool = True) -> None:
    """Compare the rankings of two indexes in every mode."""
    with Retriever.open(one, SeededEncoder()) as first, Retriever.open(other, SeededEncoder()) as second:
        assert first.reader.num_documents == second.reader.num_documents
        for where in (None, "n < 60"):
            pairs = zip(
                first.rank_modes(QUERIES, 100, modes=MODES, filter=where),
                second.rank_modes(QUERIES, 100, modes=MODES, filter=where),
                strict=True,
            )
            for (_, mine), (_, theirs) in pairs:
                if exact:
                    assert mine == theirs
                for mode in MODES:
                    assert dict(mine[mode]) == pytest.approx(dict(theirs[mode]), rel=2e-6, abs=2e-6)


def test_shards_are_built_from_a_corpus(tmp_path: Path) -> None:
    build_index(CORPUS, tmp_path / "one", encoder=SeededEncoder(), config=CONFIG)
    for shards in (1, 3):
        report = build_shards(
            iter(CORPUS), tmp_path / f"{shards}", shards=shards, encoder=SeededEncoder(), config=CONFIG
        )
        assert (report.documents, report.chunks) == (120, 120)
        assert not interrupted(tmp_path / f"{shards}")
        assert [*(tmp_path / f"{shards}").glob("parts*")] == []
        same(tmp_path / "one", tmp_path / f"{shards}")
    found = describe(tmp_path / "3")
    assert dict(found.shards) == {f"shard-0000{number}": 40 for number in range(3)}
    assert (found.documents, found.rows, found.dense_type) == (120, 120, "flat")


def test_shards_are_built_from_a_streamed_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, documents in (("a", CORPUS[:70]), ("b", CORPUS[70:])):
        lines = (json.dumps({"_id": one.doc_id, "text": one.text, "n": one.metadata["n"]}) for one in documents)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    spec: dict[str, Any] = {"corpus": f"hf:{folder}", "shards": 3, "config": CONFIG}
    with pytest.raises(RuntimeError):
        build_shards(folder=tmp_path / "3", encoder=SeededEncoder(limit=50), **spec)
    assert build_shards(folder=tmp_path / "3", encoder=SeededEncoder(), resume=True, **spec).documents == 120
    build_index(CORPUS, tmp_path / "one", encoder=SeededEncoder(), config=CONFIG)
    same(tmp_path / "one", tmp_path / "3")


def test_more_shards_than_documents(tmp_path: Path) -> None:
    build(tmp_path / "i", CORPUS[:2], 4)
    with Retriever.open(tmp_path / "i", SeededEncoder()) as retriever:
        assert {hit.doc_id for hit in retriever.search(CORPUS[1].text, mode="dense")} == {"d0", "d1"}


def test_nothing_is_encoded_twice_beyond_the_last_commit(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for limit in (30, 50, 50, None):
        encoder = SeededEncoder(limit=limit)
        try:
            build_shards(CORPUS, tmp_path / "i", shards=3, encoder=encoder, config=CONFIG, resume=True)
        except RuntimeError:
            assert interrupted(tmp_path / "i")
        seen.update(encoder.seen)
    texts = Counter(document.text for document in CORPUS)
    assert set(seen) == set(texts)
    assert sum((seen - texts).values()) <= 3 * (16 + 8)  # three kills, each of what one shard had not committed
    build_index(CORPUS, tmp_path / "one", encoder=SeededEncoder(), config=CONFIG)
    same(tmp_path / "one", tmp_path / "i")
    again = SeededEncoder(limit=0)
    assert build_shards(CORPUS, tmp_path / "i", shards=3, encoder=again, config=CONFIG, resume=True).documents == 120


def test_a_run_is_continued_as_it_was_begun(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        build(tmp_path / "i", CORPUS, 3, SeededEncoder(limit=30))
    begun: dict[str, Any] = {"encoder": SeededEncoder(), "config": CONFIG, "resume": True}
    with pytest.raises(UserError, match="begun with 3 shards, cannot continue with 4; give the same number"):
        build_shards(CORPUS, tmp_path / "i", shards=4, **begun)
    with pytest.raises(UserError, match="begun with another corpus"):
        build_shards(CORPUS[1:], tmp_path / "i", shards=3, **begun)
    with pytest.raises(UserError, match="begun with the encoder seeded"):
        build_shards(CORPUS, tmp_path / "i", shards=3, **begun | {"encoder": SeededEncoder(sha256="6" * 64)})
    with pytest.raises(UserError, match="begun with rows int8, cannot continue with float32"):
        build_shards(CORPUS, tmp_path / "i", shards=3, **begun | {"config": IndexingConfig(rows="float32")})
    with pytest.raises(UserError, match="not empty"):
        build_shards(CORPUS, tmp_path / "i", shards=3, **begun | {"resume": False})


def test_changes_go_to_the_shard_that_holds_a_document(tmp_path: Path) -> None:
    build(tmp_path / "i", CORPUS, 3)
    newer = [*(document(number, 1) for number in range(0, 60, 7)), *(document(number) for number in range(120, 150))]
    report = add_corpus(tmp_path / "i", newer, encoder=SeededEncoder())
    assert (report.added, report.updated, report.documents) == (30, 9, 150)
    with IndexWriter.open(tmp_path / "i", SeededEncoder()) as writer:
        assert "d149" in writer and "d150" not in writer
        assert writer.delete([f"d{number}" for number in range(100, 130)] + ["unknown"]) == 30
        assert len(writer) == 120
        with pytest.raises(UserError, match="another writer has it open"):
            IndexWriter.open(tmp_path / "i")
        writer.commit()
    left = {doc.doc_id: doc for doc in CORPUS} | {doc.doc_id: doc for doc in newer}
    left = {doc_id: doc for doc_id, doc in left.items() if not 100 <= int(doc_id[1:]) < 130}
    build_index(list(left.values()), tmp_path / "one", encoder=SeededEncoder(), config=CONFIG)
    same(tmp_path / "one", tmp_path / "i")
    with IndexWriter.open(tmp_path / "i", SeededEncoder()) as writer:
        assert writer.compact() == 39
    same(tmp_path / "one", tmp_path / "i")
    counts = describe(tmp_path / "i").shards.values()
    assert max(counts) - min(counts) <= 12 and sum(counts) == 120


def test_a_reader_sees_new_commits_of_any_shard(tmp_path: Path) -> None:
    build(tmp_path / "i", CORPUS, 3)
    with Retriever.open(tmp_path / "i", SeededEncoder()) as retriever:
        assert not retriever.reopen()
        with IndexWriter.open(tmp_path / "i", SeededEncoder()) as writer:
            writer.add([Document("new", "an owl")])
            writer.commit()
        assert retriever.search("owl", mode="bm25") == []
        assert retriever.reopen()
        assert [hit.doc_id for hit in retriever.search("owl", mode="bm25")] == ["new"]
        store_fusion(tmp_path / "i", FusionConfig(weights={"bm25": 1.0}))
        assert retriever.reopen() and retriever.fusion.weights == {"bm25": 1.0}


def test_damage_in_a_shard_is_found_and_named(tmp_path: Path) -> None:
    build(tmp_path / "i", CORPUS, 2)
    assert not verify_index(tmp_path / "i").damages
    [rows] = (tmp_path / "i" / "shard-00001").glob("rows/vectors.*")
    data = bytearray(rows.read_bytes())
    data[40] ^= 1
    rows.write_bytes(data)
    found = verify_index(tmp_path / "i")
    assert [damage.file for damage in found.damages] == [f"shard-00001/rows/{rows.name}"]
    assert "restore from a copy" in damage_text(tmp_path / "i", found)
    with pytest.raises(UserError, match="shard-00001"):
        Retriever.open(tmp_path / "i", SeededEncoder(), verify=True)
    shutil.rmtree(tmp_path / "i" / "shard-00000")
    with pytest.raises(UserError, match="its shard-00000 is missing"):
        Retriever.open(tmp_path / "i", SeededEncoder())
    (tmp_path / "i" / "shards.json").write_text("{")
    with pytest.raises(UserError, match=r"shards.json: damaged \(not JSON\)"):
        Retriever.open(tmp_path / "i", SeededEncoder())
    (tmp_path / "i" / "shards.json").write_text(json.dumps({"format": "retriever-shards", "version": 9}))
    with pytest.raises(UserError, match="found format version 9, this program reads 1"):
        Retriever.open(tmp_path / "i", SeededEncoder())


def test_indexes_are_merged_without_encoding(tmp_path: Path) -> None:
    build_index(CORPUS[:50], tmp_path / "a", encoder=SeededEncoder(), config=CONFIG)
    build(tmp_path / "b", CORPUS[50:], 2)
    merged = merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    assert (merged.shards, merged.documents) == (3, 120) and merged.links > 0
    build_index(CORPUS, tmp_path / "one", encoder=SeededEncoder(), config=CONFIG)
    same(tmp_path / "one", tmp_path / "c")
    with IndexWriter.open(tmp_path / "c", SeededEncoder()) as writer:
        writer.delete(["d3"])
        writer.commit()
    with Retriever.open(tmp_path / "a", SeededEncoder()) as retriever:
        assert "d3" in retriever.documents(["d3"])  # what was merged stays as it is
    snapshot_index(tmp_path / "c", tmp_path / "copy")
    same(tmp_path / "c", tmp_path / "copy")


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    build_index(CORPUS[:5], tmp_path / "a", encoder=SeededEncoder(), config=CONFIG)
    build_index(CORPUS[4:9], tmp_path / "b", encoder=SeededEncoder(), config=CONFIG)
    build_index(CORPUS[9:], tmp_path / "other", encoder=SeededEncoder(sha256="6" * 64), config=CONFIG)
    build_index(CORPUS[9:], tmp_path / "rows", encoder=SeededEncoder(), config=IndexingConfig(rows="float32"))
    with pytest.raises(UserError, match=r"b: holds the document 'd4', which is in .*a, too; delete it from one"):
        merge_indexes([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    with pytest.raises(UserError, match="other: was made with encoder seeded"):
        merge_indexes([tmp_path / "a", tmp_path / "other"], tmp_path / "c")
    with pytest.raises(UserError, match=r"rows: was made with row_dtype float32, .*a with int8"):
        merge_indexes([tmp_path / "a", tmp_path / "rows"], tmp_path / "c")
    with pytest.raises(UserError, match="is there already"):
        merge_indexes([tmp_path / "a"], tmp_path / "b")
    with pytest.raises(UserError, match="a: is given twice; give each index once"):
        merge_indexes([tmp_path / "a", tmp_path / "rows" / ".." / "a"], tmp_path / "c")
    with pytest.raises(UserError, match="c: lies inside the index"):
        merge_indexes([tmp_path / "a"], tmp_path / "a" / "c")
    with pytest.raises(UserError, match="c: lies inside the index"):
        snapshot_index(tmp_path / "a", tmp_path / "a" / "c")
    assert not (tmp_path / "c").exists() and not (tmp_path / "a" / "c").exists()


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    build_index(CORPUS[:5], tmp_path / "a", encoder=SeededEncoder(), config=CONFIG)
    merge_indexes([tmp_path / "a"], tmp_path / "c")
    (tmp_path / "c" / "shard-00000").rename(tmp_path / "gone")
    openings: tuple[Callable[[Path], object], ...] = (
        lambda path: Retriever.open(path, SeededEncoder()),
        IndexWriter.open,
        verify_index,
        lambda path: merge_indexes([path], tmp_path / "d"),
        lambda path: snapshot_index(path, tmp_path / "d"),
    )
    for opening in openings:
        with pytest.raises(UserError, match="c: its shard-00000 is missing; restore it from a copy"):
            opening(tmp_path / "c")
    assert not (tmp_path / "d").exists()
