"""The postings beside Lucene's: what a file holds, and the same rankings after every kind of change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from retriever.index import FolderReader, FolderWriter, IndexSettings
from retriever.index.postings import sparse, words
from retriever.index.postings.blocks import BlockWriter, open_block
from retriever.index.postings.frequencies import frequencies
from retriever.index.postings.inverted import Source, inverted, merged
from retriever.index.postings.row_impacts import row_impacts
from retriever.index.postings.sparse import Postings
from retriever.index.verify import verify_folder
from retriever.search.legs.bm25_postings import StoredWords
from retriever.search.legs.sparse_postings import StoredPostings
from retriever.types import Document, Encoded, EncoderIdentity, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retriever.index.contract import Selection
    from retriever.index.postings.blocks import Block

VOCAB = 40
WORDS = ["apple", "bear", "cat", "dog", "zebra", "\u00e9l\u00e8ve", "\U0001d54f"]
SETTINGS = IndexSettings(EncoderIdentity("stub", "0" * 64, 0, VOCAB), impact_scale=100)
Rows = st.lists(st.dictionaries(st.integers(0, VOCAB - 1), st.integers(1, 65_535), max_size=8), min_size=1, max_size=30)


def matrix(rows: list[dict[int, int]]) -> csr_matrix:
    dense = np.zeros((len(rows), VOCAB), np.int32)
    for row, terms in enumerate(rows):
        for term, impact in terms.items():
            dense[row, term] = impact
    return csr_matrix(dense)


def content(block: Block) -> NDArray[np.int64]:
    """Add up what a block holds, posting by posting."""
    found = np.zeros((block.rows, VOCAB), np.int64)
    for place in range(len(block.terms)):
        postings = block.postings(place)
        assert (np.diff(postings.rows.astype(int)) >= 0).all()
        for row, impact in zip(postings.rows.tolist(), postings.impacts.tolist(), strict=True):
            found[row, postings.term] += impact
        assert found[:, postings.term].max() <= postings.largest
    return found


def write(path: Path, impacts: csr_matrix) -> Block:
    with BlockWriter(path, impacts.shape[0]) as writer:
        for postings in inverted(impacts):
            writer.add(postings)
        writer.finish()
    return open_block(path, impacts.shape[0])


@settings(max_examples=40, deadline=None)
@given(rows=Rows)
def test_a_file_holds_what_was_written(rows: list[dict[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    impacts = matrix(rows)
    block = write(tmp_path_factory.mktemp("block") / "a.postings", impacts)
    np.testing.assert_array_equal(content(block), impacts.toarray())
    postings, dense = Postings([block], [0]), impacts.toarray()
    np.testing.assert_array_equal([row_impacts(postings, row, VOCAB).toarray()[0] for row in range(len(rows))], dense)
    some = sorted({0, VOCAB - 1, *range(1, VOCAB, 3)})
    of_some = [row_impacts(postings, row, VOCAB, some[::-1]).toarray()[0] for row in range(len(rows))]
    np.testing.assert_array_equal(of_some, np.where(np.isin(np.arange(VOCAB), some), dense, 0))
    for alive in (np.ones(len(rows), bool), np.arange(len(rows)) % 3 > 0):
        assert frequencies(postings, [*some, 1], alive) == np.count_nonzero(dense[alive], axis=0)[[*some, 1]].tolist()


@settings(max_examples=40, deadline=None)
@given(first=Rows, second=Rows, seed=st.integers(0, 99))
def test_merged_blocks_hold_the_rows_that_are_taken(
    first: list[dict[int, int]], second: list[dict[int, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    random = np.random.default_rng(seed)
    sources, kept, start = [], [], 0
    for number, impacts in enumerate(map(matrix, (first, second))):
        block = write(folder / f"{number}.postings", impacts)
        taken = random.random(block.rows) < random.choice([0.5, 1])
        target = np.where(taken, start + np.cumsum(taken) - 1, -1)
        start += int(taken.sum())
        sources.append(Source(block, target))
        kept.append(impacts.toarray()[taken])
    with BlockWriter(folder / "merged.postings", start) as writer:
        for postings in merged(sources):
            writer.add(postings)
        writer.finish()
    np.testing.assert_array_equal(content(open_block(folder / "merged.postings", start)), np.concatenate(kept))


def documents(numbers: list[int], seed: int, high: float = 3) -> tuple[list[Document], Encoded]:
    random = np.random.default_rng(seed)
    drawn = random_array((len(numbers), VOCAB), density=0.2, rng=random, dtype=np.float32).toarray()
    weights = np.round(drawn * np.float32(high), 1)  # so that there are ties
    texts = (" ".join(random.choice(WORDS, number % 40 + 1)) + " often" * (number % 7 * 90) for number in numbers)
    made = [Document(f"d{number}", text, metadata={"n": number}) for number, text in zip(numbers, texts, strict=True)]
    return made, Encoded(None, csr_matrix(weights), np.zeros(len(numbers), np.bool_))


def queries() -> list[csr_matrix]:
    random = np.random.default_rng(77)
    drawn = [random_array((1, VOCAB), density=d, rng=random, dtype=np.float32) for d in (0.03, 0.1, 0.4, 1.0)]
    return [csr_matrix(query) * np.float32(scale) for query in drawn for scale in (1, 0.003, 7)]


def compare(folder: Path) -> None:
    """Compare with Lucene: the same ids, the same scores to the last bit."""
    assert verify_folder(folder).damages == ()
    with FolderReader.open(folder) as reader:
        assert reader.postings is not None
        backend = StoredPostings(reader)
        selections = [None, *map(reader.select, ("n < 3", "n >= 10", "n > 10000", "not id = d5"))]
        for query in queries():
            for selection in selections:
                for top_k in (1, 7, 500):
                    assert backend.search(query, top_k, selection) == reader.sparse(query, top_k, selection)
        compare_words(reader, selections)


def compare_words(reader: FolderReader, selections: list[Selection | None]) -> None:
    """Do so for words. Where something is deleted, what corrects Lucene's scores is off in their last digits."""
    assert reader.word_postings is not None
    words = StoredWords(reader, reader.word_postings)
    assert reader.collection.frequencies([*WORDS, "none"]) == reader.bm25_frequencies([*WORDS, "none"])
    assert reader.collection.length == reader._lucene.length()
    for query in ({"often": 1.0}, {"zebra": 2.0, "often": 0.5, "none": 1.0}, dict.fromkeys(WORDS, 1.0), {"none": 1.0}):
        for selection in selections:
            for top_k in (1, 7, 500):
                found, wanted = words.search(query, top_k, selection), reader.bm25_words(query, top_k, selection)
                if reader._lucene.live.deleted:
                    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], rel=1e-6)
                else:
                    assert found == wanted


@pytest.mark.parametrize("high", [3, 60])
def test_every_ranking_is_lucenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, high: float) -> None:
    """After adding, replacing, deleting, merging of blocks, compaction; with impacts above 255, too."""
    monkeypatch.setattr(sparse, "BUFFERED_ROWS", 32)
    monkeypatch.setattr(sparse, "BLOCK_ROWS", 150)
    monkeypatch.setattr(words, "BLOCK_ROWS", 150)
    folder = tmp_path / "index"
    with FolderWriter.create(folder, SETTINGS) as writer:
        for start in range(0, 300, 60):
            writer.add(*documents([*range(start, start + 60)], start, high))
            writer.commit()
    compare(folder)
    blocks = len(list((folder / "sparse").iterdir()))
    assert blocks < 5
    with FolderWriter.open(folder) as writer:
        writer.delete([f"d{number}" for number in range(0, 90, 3)])
        writer.add(*documents([5, 150, 151, 299, 301], 8, high))
        writer.commit()
    compare(folder)
    with FolderWriter.open(folder) as writer:
        writer.delete(["d7"])
        writer.add(*documents([8, 400], 9, high))
        writer.compact()
    compare(folder)
    with FolderReader.open(folder) as reader:
        assert reader.postings is not None
        assert [block.rows for block in reader.postings.blocks] == [150, 121]


def test_an_index_without_postings_is_searched_by_lucene_until_it_is_changed(tmp_path: Path) -> None:
    """As it was made before there were any: its commit says nothing of them."""
    folder = tmp_path / "index"
    with FolderWriter.create(folder, SETTINGS) as writer:
        writer.add(*documents([*range(50)], 1))
        writer.commit()
    kept = FolderReader.open(folder)
    with FolderWriter.open(folder) as writer:
        record = json.loads(writer.committed.user_data()["retriever"])
        del record["sparse_files"], record["bm25_files"]
        writer._lucene.commit({"retriever": json.dumps(record)})
    for file in [*(folder / "sparse").iterdir(), *(folder / "bm25").iterdir()]:
        file.unlink()
    with FolderReader.open(folder) as reader:
        assert reader.postings is None and reader.word_postings is None
        assert StoredPostings(reader).search(queries()[3], 10) == kept.sparse(queries()[3], 10)
    kept.close()
    with FolderWriter.open(folder) as writer:
        writer.delete(["d3"])
        writer.add(*documents([4, 60], 2))
        writer.commit()
    compare(folder)


@pytest.mark.parametrize("damage", ["gone", "changed", "cut", "end"])
def test_compaction_makes_damaged_postings_again(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "index"
    with FolderWriter.create(folder, SETTINGS) as writer:
        writer.add(*documents([*range(50)], 1))
        writer.commit()
    [file] = (folder / "sparse").iterdir()
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        changed = {"changed": b"\xff" + whole[1:], "cut": whole[:-1], "end": whole[:-1] + b"\xff"}
        file.write_bytes(changed[damage])
    [named] = verify_folder(folder).damages
    assert named.file == f"sparse/{file.name}"
    if damage != "changed":
        with pytest.raises(UserError, match="damaged"):
            FolderReader.open(folder)
    with FolderWriter.open(folder) as writer:
        writer.delete(["d1"])
        writer.compact()
    compare(folder)


def test_a_damaged_block_is_not_merged(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with FolderWriter.create(folder, SETTINGS) as writer:
        writer.add(*documents([*range(50)], 1))
        writer.commit()
    [file] = (folder / "sparse").iterdir()
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    with FolderWriter.open(folder) as writer:
        writer.add(*documents([*range(50, 100)], 2))
        with pytest.raises(UserError, match=r"wrong checksum.*`retriever compact` makes it again"):
            writer.commit()
    with FolderWriter.open(folder) as writer:
        writer.compact()
    compare(folder)


def test_the_folder_of_the_postings_is_durable_before_the_commit_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []

    def sync(path: Path) -> None:
        assert (path / "sparse").is_dir()
        synced.append(path)

    monkeypatch.setattr(sparse, "sync_path", sync)
    writer = sparse.SparseWriter(tmp_path, [], 0, 1)
    writer.add(matrix([{1: 2}]))
    [block] = writer.finish(1)
    assert synced == [tmp_path] and (tmp_path / block.file).is_file()
