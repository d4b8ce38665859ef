"""The same documents, the same ranking: whatever was added, replaced and deleted before, and in which order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.index import FolderWriter, IndexSettings
from retriever.indexing.writer import IndexWriter
from retriever.search.retriever import MODES, Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, Query, Ranking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
WORDS = ["river", "stone", "bread", "winter", "garden", "paper", "silver", "letter", "island", "candle"]
QUERIES = [Query(text, text) for text in ("river", "river stone winter", "bread bread candle", "island garden letter")]
Documents = dict[str, Document]
Histories = st.lists(
    st.tuples(
        st.sampled_from(["add", "delete", "commit", "compact"]),
        st.lists(st.integers(0, 40), min_size=1, max_size=25),
        st.integers(0, 3),
    ),
    max_size=8,
)


def document(number: int, version: int) -> Document:
    random = np.random.default_rng([number, version])
    text = " ".join(random.choice(WORDS, random.integers(1, 70)))
    return Document(f"d{number:02}", text if random.random() < 0.9 else " ", metadata={"n": number})


def create(folder: Path) -> None:
    FolderWriter.create(folder, IndexSettings(SeededEncoder().identity)).close()


def live(folder: Path, history: list[tuple[str, list[int], int]]) -> Documents:
    """Make an index by a history; return what is in it."""
    create(folder)
    found: Documents = {}
    with IndexWriter.open(folder, SeededEncoder()) as writer:
        for kind, numbers, version in history:
            if kind == "add":
                documents = [document(number, version) for number in numbers]
                writer.add(documents)
                found |= {document.doc_id: document for document in documents}
            elif kind == "delete":
                gone = {f"d{number:02}" for number in numbers}
                writer.delete(gone)
                found = {doc_id: document for doc_id, document in found.items() if doc_id not in gone}
            else:
                writer.commit() if kind == "commit" else writer.compact()
        writer.commit()
    return found


def answers(folder: Path) -> dict[tuple[str, str, str | None], Ranking]:
    with Retriever.open(folder, SeededEncoder()) as retriever:
        return {
            (query_id, mode, where): ranking
            for where in (None, "n < 20")
            for query_id, rankings in retriever.rank_modes(QUERIES, 100, modes=MODES, filter=where)
            for mode, ranking in rankings.items()
        }


def compare(one: Path, other: Path) -> None:
    """Compare rankings: the same scores within float32, and the same order but for scores that are as close."""
    first, second = answers(one), answers(other)
    for key, ranking in first.items():
        found = second[key]
        assert dict(found) == pytest.approx(dict(ranking), rel=2e-6, abs=2e-6), key
        for mine, theirs in zip(ranking, found, strict=True):
            assert mine.doc_id == theirs.doc_id or mine.score == pytest.approx(theirs.score, rel=1e-6), key


@settings(max_examples=15, deadline=None)
@given(history=Histories)
def test_every_history_of_the_same_documents_answers_alike(
    history: list[tuple[str, list[int], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history")
    start = ("add", list(range(30)), 1)
    documents = live(folder / "changed", [start, ("commit", [0], 0), *history])
    create(folder / "fresh")
    with IndexWriter.open(folder / "fresh", SeededEncoder()) as writer:
        writer.add(documents[doc_id] for doc_id in sorted(documents))
        writer.commit()
    compare(folder / "changed", folder / "fresh")


def test_deleted_documents_do_not_count(tmp_path: Path) -> None:
    """Of 430 documents 30 are deleted: as many terms and documents are counted as without them."""
    found = live(tmp_path / "a", [("add", [*range(430)], 1), ("commit", [0], 0), ("delete", [*range(0, 90, 3)], 0)])
    create(tmp_path / "b")
    with IndexWriter.open(tmp_path / "b", SeededEncoder()) as writer:
        writer.add(found.values())
        writer.commit()
    compare(tmp_path / "a", tmp_path / "b")
    for query in ("river stone winter", "bread candle"):
        hits = [
            [(hit.doc_id, hit.terms) for hit in retriever.search(query, 5, mode="bm25", explain=True)]
            for folder in (tmp_path / "a", tmp_path / "b")
            for retriever in [Retriever.open(folder, SeededEncoder())]
        ]
        for (mine, terms), (theirs, others) in zip(*hits, strict=True):
            assert mine == theirs and [term.term for term in terms] == [term.term for term in others]
            assert [term.contribution for term in terms] == pytest.approx([term.contribution for term in others])


def test_a_folder_that_was_built_again_is_seen_as_new(tmp_path: Path) -> None:
    """Its segments, rows and commits have the names and numbers of those before: none of them may be taken for them."""
    built = {}
    for version in (1, 2):
        folder = tmp_path / str(version)
        create(folder)
        with IndexWriter.open(folder, SeededEncoder()) as writer:
            writer.add(document(number, version) for number in range(12))
            writer.delete([f"d{version:02}", "d07"])
            writer.commit()
        built[version] = answers(folder)
    place = (tmp_path / "1").rename(tmp_path / "place")
    with Retriever.open(place, SeededEncoder()) as retriever:
        first = [hit.doc_id for hit in retriever.search("river stone winter", mode="bm25")]
        assert not retriever.reopen()
        place.rename(tmp_path / "old")
        (tmp_path / "2").rename(place)
        assert retriever.reopen()
        found = {
            (query_id, mode, None): ranking
            for query_id, rankings in retriever.rank_modes(QUERIES, 100, modes=MODES)
            for mode, ranking in rankings.items()
        }
        assert found == {key: ranking for key, ranking in built[2].items() if key[2] is None}
        assert [hit.doc_id for hit in retriever.search("river stone winter", mode="bm25")] != first
        assert not retriever.reopen()
