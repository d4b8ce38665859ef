"""What is given from Python and is of another kind than needed: one line, as for any other fault of a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retriever import Document, Retriever, UserError, build_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    folder: Path = tmp_path_factory.mktemp("arguments") / "index"
    build_index([Document("d1", "bread rises"), Document("d2", "the river froze")], folder, encoder="none")
    with Retriever.open(folder) as retriever:
        yield retriever


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (None, {}, "the query is None; need a text"),
        (b"bread", {}, "the query is b'bread'"),
        ("bread", {"top_k": 2.0}, r"top_k is 2\.0; need a whole number"),
        ("bread", {"mode": None}, "mode None is unknown"),
        ("bread", {"mode": ["bm25"]}, "mode .* is unknown"),
        ("bread", {"min_score": "1"}, "min_score is not a number"),
    ],
)
def test_another_kind_is_named(words: Retriever, query: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        words.search(query, **{"mode": "bm25", **options})


def test_numbers_and_texts_of_numpy_are_as_good(words: Retriever) -> None:
    one: Any = np.int64(1)
    assert words.search(np.str_("bread"), mode="bm25", top_k=one)[0].doc_id == "d1"


@pytest.mark.parametrize("ids", ["d1", [1], [None]])
def test_ids_that_are_none(words: Retriever, ids: Any) -> None:
    with pytest.raises(UserError, match="give a list of texts"):
        words.documents(ids)
    assert list(words.documents(["d2", "none", "d1"])) == ["d2", "d1"]


def test_an_index_that_was_closed_says_so(tmp_path: Path) -> None:
    build_index([Document("d1", "bread")], tmp_path / "index", encoder="none")
    with Retriever.open(tmp_path / "index") as retriever:
        retriever.search("bread", mode="bm25")
    for use in (lambda: retriever.search("bread", mode="bm25"), lambda: retriever.documents(["d1"]), retriever.reopen):
        with pytest.raises(UserError, match="is closed; open it again"):
            use()
    retriever.close()
