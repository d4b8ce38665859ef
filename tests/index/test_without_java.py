"""What is read without Java, beside Lucene: the terms of English queries, stored documents, and damage to them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retriever import Document, IndexingConfig, IndexWriter, build_index
from retriever.index.lucene.analysis import analysis_of
from retriever.index.lucene.english import english_terms
from retriever.index.lucene.jvm import start_jvm
from retriever.index.reader import FolderReader
from retriever.languages import ENGLISH

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = ["", "s", "es", "ed", "ing", "ational", "izer", "'s", "'", "ies", "eed", "fulness", "iviti", "ll", "_", ".x"]
words = st.builds(str.__add__, st.text("abceilnorstuvyz'._0129", max_size=9), st.sampled_from(ENDINGS))
texts = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=60),
    st.lists(words, max_size=6).map(" ".join),
)


@pytest.fixture(scope="module", autouse=True)
def _java() -> None:
    start_jvm()
    analysis_of(ENGLISH).terms("")


@given(texts)
@example("The U.S.A.'s running dogs' tails, 3,5 km/h; __a_1__ x.y:z a" + "b" * 300)
def test_english_terms_are_those_of_lucene(text: str) -> None:
    found = english_terms(text)
    if found is None:
        assert max(map(len, text.split())) > 255
    else:
        assert found == analysis_of(ENGLISH).terms(text)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one of several commits, with short and long documents, chunks, and ids that came and went."""
    folder = tmp_path_factory.mktemp("stored") / "index"
    draw = random.Random(5)

    def document(number: int) -> Document:
        length = draw.choice([0, 3, 40, 400, 30_000])
        text = " ".join(draw.choice(["yeast", "ångström", "東京", "moon.", "tide."]) for _ in range(length))
        return Document(f"d{number}", text, f"title {number}", {"year": number})

    config = IndexingConfig(chunk_tokens=60)
    build_index([document(number) for number in range(30)], folder, encoder="none", config=config)
    for first in (30, 60):
        with IndexWriter.open(folder) as writer:
            writer.delete([f"d{number}" for number in range(first - 20, first - 10)])
            writer.add([document(number) for number in range(first - 15, first + 30)])
            writer.commit()
    return folder


def test_stored_documents_are_those_of_lucene(index: Path) -> None:
    """Byte by byte, known ids and unknown ones."""
    ids = [f"d{number}" for number in range(-1, 95)]
    with FolderReader.open(index) as reader:
        assert reader._stored_fields is not None
        found = reader.raws(ids)
        expected = {doc_id: raw for doc_id, raw in zip(ids, reader._lucene.stored(ids), strict=True) if raw is not None}
    assert found == expected and len(found) > 60
