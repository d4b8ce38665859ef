"""Queries in a language that the encoder does not read, and queries whose language is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix

from retriever import IndexingConfig, Pipeline, Query, Retriever, build_index
from retriever.cli.main import cli
from retriever.search.query_language import language_code, without_views
from retriever.testing import SeededEncoder
from retriever.types import Document, Encoded, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

GERMAN = "Warum geht das Brot im warmen Ofen so langsam auf?"
ENGLISH = "why does bread rise in a warm oven"


class EnglishEncoder(SeededEncoder):
    """Gives every text both views, and says that it was made for English."""

    languages = frozenset({"en"})


@pytest.fixture(scope="module")
def english(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    folder = tmp_path_factory.mktemp("foreign") / "index"
    build_index(tiny_corpus, folder, encoder=EnglishEncoder())
    with Retriever.open(folder, EnglishEncoder()) as retriever:
        yield retriever


def legs(retriever: Retriever, query: str, mode: str = "hybrid", language: str | None = None) -> set[str]:
    return {leg for hit in retriever.search(query, mode=mode, language=language) for leg in hit.parts}


def test_only_words_find_what_a_foreign_query_asks(english: Retriever, caplog: pytest.LogCaptureFixture) -> None:
    assert legs(english, ENGLISH) == {"bm25", "sparse", "dense"}
    assert legs(english, GERMAN) <= {"bm25"}
    with caplog.at_level(logging.WARNING):
        english.search(GERMAN)
    assert "the query is in a language or script that the encoder does not read" in caplog.text
    assert not english.search(GERMAN, mode="dense") and not english.search(GERMAN, mode="sparse")


def test_names_and_short_queries_are_not_foreign(english: Retriever) -> None:
    for query in ("Louis Pasteur", "sourdough ciabatta", "Schrödinger", "bread rise Weltanschauung oven"):
        assert legs(english, query) >= {"sparse", "dense"}, query


def test_a_language_that_is_said_decides(english: Retriever) -> None:
    assert legs(english, ENGLISH, language="German") <= {"bm25"}
    assert legs(english, GERMAN, language="en") >= {"sparse", "dense"}
    assert legs(english, GERMAN, language="auto") == legs(english, GERMAN)
    with pytest.raises(UserError, match="language 'klingon' has no analyser"):
        english.search(GERMAN, language="klingon")
    assert [language_code(name) for name in (None, "english", "DE", "auto", "other")] == [
        None,
        "en",
        "de",
        None,
        "other",
    ]


def test_words_are_read_in_the_language_that_is_said(tmp_path: Path) -> None:
    """The stem of "Häuser" is "haus" in German alone; the query is too short to tell."""
    texts = {
        "haus": "In dem Haus am Fluss wohnten früher viele Familien mit ihren Kindern.",
        "casa": "En las casas antiguas junto al río vivían muchas familias con sus hijos.",
        "house": "In the old houses near the river lived many families with their children.",
    }
    documents = [Document(doc_id, text) for doc_id, text in texts.items()]
    build_index(documents, tmp_path / "index", encoder="none", config=IndexingConfig(language="auto"))
    with Retriever.open(tmp_path / "index") as retriever:
        assert [hit.doc_id for hit in retriever.search("Häuser", mode="bm25", language="de")] == ["haus"]
        assert not retriever.search("Häuser", mode="bm25", language="es")
        [hit] = retriever.search("Häuser", mode="bm25", language="German", explain=True, highlight=True)
        assert [match.term for match in hit.terms] == ["haus"]
        assert [hit.text[span.start : span.end] for span in hit.highlights] == ["Haus"]
        asked, feedback = [Query("q", "Häuser")], Pipeline.parse("bm25 > feedback(rm3)")
        for code, found in (("de", ["haus"]), ("es", [])):
            [ranked] = retriever.rank(asked, mode="bm25", language=code)
            [behind] = retriever.rank_pipeline(asked, pipeline=feedback, language=code)
            assert [hit.doc_id for hit in ranked.ranking] == found == [hit.doc_id for hit in behind.lists["bm25"]]
            (tmp_path / "queries.tsv").write_text("query_id\ttext\nq\tHäuser\n", encoding="utf-8")
            command = ["search", str(tmp_path / "index"), "--queries", str(tmp_path / "queries.tsv"), "-m", "bm25"]
            done = CliRunner().invoke(cli, [*command, "-o", str(tmp_path / "run.jsonl"), "--language", code])
            assert done.exit_code == 0, done.output
            lines = (tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["doc_id"] for line in lines] == found
        done = CliRunner().invoke(cli, ["search", str(tmp_path / "index"), "--like", "haus", "--language", "de"])
        assert done.exit_code == 2 and "documents of the index are read in their own" in done.output


def test_rows_without_views() -> None:
    dense = np.ones((3, 2), np.float32)
    sparse = csr_matrix(np.array([[1, 0], [2, 3], [0, 4]], np.float32))
    encoded = Encoded(dense, sparse, np.zeros(3, np.bool_), unread=np.array([True, False, False]))
    assert without_views(encoded, [False] * 3) is encoded
    found = without_views(encoded, [False, True, False])
    assert found.dense is not None and found.sparse is not None and found.unread is not None
    assert found.dense.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert found.sparse.toarray().tolist() == [[1, 0], [0, 0], [0, 4]]
    assert found.unread.tolist() == [True, True, False]
    assert dense.all() and sparse.nnz == 4
