"""Whatever the history of a collection, it ranks as a folder of the same documents does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from retriever import Document, IndexingConfig, IndexWriter, Query, Retriever, UserError, build_index
from retriever.qdrant.push import push
from retriever.testing import SeededEncoder
from tests.qdrant.conftest import Place, close_to

pytestmark = pytest.mark.lucene
WORDS = [f"word{n}" for n in range(60)]
CHUNKED = IndexingConfig(chunk=True, chunk_tokens=12, chunk_overlap=0)
QUERIES = [Query(str(n), f"word{n} word{3 * n % 60} word{7 * n % 60} word1") for n in range(12)]
MODES = ("bm25", "sparse", "dense", "hybrid")


def document(number: int, chance: random.Random) -> Document:
    """Return a document of one to sixty words, the first of WORDS the more frequent ones."""
    words = [WORDS[int(len(WORDS) * chance.random() ** 2)] for _ in range(chance.choice([1, 3, 10, 60]))]
    return Document(f"d{number}", " ".join(words) if number % 17 else "", metadata={"n": chance.randrange(5)})


def changed(index: str | Path, seed: int, changes: int, numbers: int) -> None:
    """Add, replace and delete documents in some commits, always the same ones for a seed."""
    chance = random.Random(seed)
    with IndexWriter.open(index, SeededEncoder()) as writer:
        for start in range(0, changes, 100):
            for _ in range(start, start + 100, 20):
                writer.add([document(chance.randrange(numbers), chance) for _ in range(14)])
                writer.delete({f"d{chance.randrange(numbers)}" for _ in range(6)})
            writer.commit()


def same_answers(one: str | Path, other: str | Path) -> None:
    """Check that two indexes answer alike."""
    with Retriever.open(one, SeededEncoder()) as first, Retriever.open(other, SeededEncoder()) as second:
        assert first.reader.num_documents == second.reader.num_documents
        for asked in ({"filter": None}, {"filter": "n >= 2"}):
            rankings = [list(index.rank_modes(QUERIES, 20, modes=MODES, **asked)) for index in (first, second)]
            assert close_to(rankings[0], rankings[1])
        assert first.facets("n") == second.facets("n") and first.fields() == second.fields()
        explained = [index.search("word1 word5", 5, mode="bm25", explain=True) for index in (first, second)]
        assert close_to(explained[0], explained[1])


@pytest.mark.parametrize("config", [IndexingConfig(), CHUNKED], ids=["whole", "chunks"])
def test_a_thousand_changes(place: Place, tmp_path: Path, config: IndexingConfig) -> None:
    changes = 1_000 if "edge" in place() and config is not CHUNKED else 100
    folder, pushed = tmp_path / "index", place()
    chance = random.Random(1)
    build_index([document(n, chance) for n in range(150)], folder, encoder=SeededEncoder(), config=config)
    push(folder, pushed)
    for index in (folder, pushed):
        changed(index, 2, changes, 200)
    same_answers(folder, pushed)
    again = place()
    push(folder, again)  # the same documents with another history
    same_answers(pushed, again)
    with IndexWriter.open(pushed) as writer:
        writer.compact()
    same_answers(again, pushed)


def test_a_killed_writer_is_counted_anew(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, pushed = tmp_path / "index", place()
    chance = random.Random(3)
    documents = [document(n, chance) for n in range(40)]
    build_index(documents, folder, encoder=SeededEncoder(), config=CHUNKED)
    push(folder, pushed)
    new = [document(n, chance) for n in range(30, 60)] + [Document("x", "unheard words here")]
    with IndexWriter.open(pushed, SeededEncoder()) as writer:
        writer.add(new)
        writer.delete(["d1", "d2"])  # and never committed
    with IndexWriter.open(folder, SeededEncoder()) as writer:
        writer.add(new)
        writer.delete(["d1", "d2"])
        writer.commit()
    with IndexWriter.open(pushed, SeededEncoder()):
        assert "counted anew" in caplog.text
    same_answers(folder, pushed)


def test_two_writers_do_not_mix_their_counts(place: Place, tmp_path: Path) -> None:
    folder, pushed = tmp_path / "index", place()
    build_index([Document("a", "one"), Document("b", "two")], folder, encoder="none")
    push(folder, pushed)
    with IndexWriter.open(pushed) as slow:
        slow.delete(["a"])
        with IndexWriter.open(pushed) as quick:
            quick.add([Document("c", "three")])
            quick.commit()
        slow.add([Document("d", "four")])
        with pytest.raises(UserError, match="another writer changed it meanwhile"):
            slow.commit()
    with IndexWriter.open(pushed) as writer:
        writer.add([])
        writer.commit()
    with Retriever.open(pushed) as retriever:
        assert retriever.reader.num_documents == 3
