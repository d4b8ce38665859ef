"""What is read without Java, beside Lucene: the terms of English queries, stored documents, and damage to them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retriever import Document, IndexingConfig, IndexWriter, build_index
from retriever.index.lucene.analysis import analysis_of
from retriever.index.lucene.english import READ, english_terms
from retriever.index.lucene.held import HeldCommit
from retriever.index.lucene.jvm import start_jvm
from retriever.index.lucene.segments import ForeignError
from retriever.index.lucene.stored_fields import KERNELS, StoredFields
from retriever.index.reader import FolderReader
from retriever.languages import ENGLISH
from retriever.machine_code import load_kernels
from retriever.search.legs.bm25_postings import StoredWords
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDINGS = ["", "s", "es", "ed", "ing", "ational", "izer", "'s", "'", "ies", "eed", "fulness", "iviti", "ll", "_", ".x"]
SIGNS = "abceilnorstuvyz'._0129éÉßøŁ\u017fµ\u2018\u2019"
words = st.builds(str.__add__, st.text(SIGNS, max_size=9), st.sampled_from([*ENDINGS, "\u2019s"]))
texts = st.one_of(
    st.text(st.characters(max_codepoint=127), max_size=60),
    st.text(st.characters(max_codepoint=0x24F) | st.characters(min_codepoint=0x2010, max_codepoint=0x20AC), max_size=9),
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
        assert max(map(len, text.split())) > 255 or READ.fullmatch(text) is None
    else:
        assert found == analysis_of(ENGLISH).terms(text)


def test_every_sign_that_is_read_is_read_as_by_lucene() -> None:
    signs = [sign for sign in map(chr, range(0x2100)) if READ.fullmatch(sign)]
    assert len(signs) > 560
    for sign in signs:
        text = f"a{sign}b {sign} {sign}{sign}1{sign}2 x{sign} don{sign}t c{sign}s {sign}ING wing{sign}s"
        assert english_terms(text) == analysis_of(ENGLISH).terms(text), (sign, hex(ord(sign)))


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


def chunk(*numbers: int, packed: bytes = b"") -> NDArray[np.uint8]:
    """Return a chunk of stored documents: numbers of seven bits a byte, and what is packed."""
    content = bytearray()
    for number in numbers:
        while number > 127:
            content.append(number & 127 | 128)
            number >>= 7
        content.append(number)
    return np.frombuffer(bytes(content) + packed, np.uint8)


HUGE = 2**63 - 1
FIFTY = bytes([15 << 4, 35]) + b"x" * 50
"""Fifty bytes, packed."""


@pytest.mark.parametrize(
    "data",
    [
        # first document, 4 * documents, fields and bytes of the one, its dictionary, bytes of a block, packed bytes
        chunk(0, 4, 1, 60, 50, HUGE, 0, packed=FIFTY),  # the sum of the two is below 0: 50 bytes would go into 20
        chunk(0, 4, 1, 60, 0, 15, HUGE, packed=bytes(40)),
        chunk(0, 4, 1, HUGE, 0, 15, 0, packed=bytes(40)),
        chunk(0, 4, 1, 2**39, 0, 15, 0, packed=bytes(40)),  # half a terabyte
        chunk(0, HUGE, 1, 60, 0, 15, 0, packed=bytes(40)),
        chunk(0, 8, packed=bytes([0, 1, 64, *b"\xff" * 16, 0, 1])),  # two documents of 8 bytes' numbers
        chunk(0, 8, packed=bytes([0, 1, 32, 0, 0, 0, 0, *b"\xff" * 4, 0, 1])),  # one of 4 GB in blocks of one byte
    ],
)
def test_numbers_beyond_all_bounds_are_damage(index: Path, data: NDArray[np.uint8]) -> None:
    around = np.full((2, 1000), 7, np.uint8)
    read = load_kernels(KERNELS, ("documents",))["documents"]
    wanted, results = np.array([[0, len(data), 0]]), np.zeros((1, 2), np.int64)
    found = read(data, wanted, 0, 10, around[0, :20], around[1, :60], results)
    assert found < 0 or (found == 0 and results[0, 0] > 60)
    assert (around[0, 20:] == 7).all() and (around[1, 60:] == 7).all()
    with FolderReader.open(index) as reader:
        assert reader._stored_fields is not None
        segment: Any = reader._stored_fields._segments[0]
        segment._data, segment._first, segment._places = data, np.array([0]), np.array([0, len(data)])
        with pytest.raises(ForeignError):
            segment.raws(np.array([0]))


def damaged(data: NDArray[np.uint8], draw: random.Random) -> NDArray[np.uint8]:
    """Return bytes with a few changed, and now and then with pieces exchanged or the highest numbers written over."""
    found = data.copy()
    for _ in range(draw.choice([1, 3, 30])):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    size = draw.randrange(1, 20)
    if len(found) > 2 * size:
        one, other = (draw.randrange(len(found) - size) for _ in range(2))
        kind = draw.randrange(3)
        if kind == 1:
            found[one : one + size] = data[other : other + size]
        elif kind == 2:
            found[one : one + size] = 255
    return found


def test_nothing_leads_out_of_damaged_documents(index: Path) -> None:
    """Each is bytes, or refused; where memory is written beyond an array the process ends, at the latest at its end."""
    draw = random.Random(3)
    with FolderReader.open(index) as reader:
        rows = len(reader.alive)
    held = HeldCommit(index / "lucene")
    outcomes = {bytes: 0, ForeignError: 0}
    try:
        stored = StoredFields(held, rows)
        segments: list[Any] = stored._segments
        for _ in range(300):
            segment = draw.choice(segments)
            whole = {name: getattr(segment, name) for name in ("_data", "_first", "_places", "_slice")}
            name = draw.choice(["_data", "_data", "_first", "_places", "_slice"])
            if name == "_slice":
                segment._slice = draw.choice([1, 2, 100, 5000])
            else:
                setattr(segment, name, damaged(whole[name].view(np.uint8), draw).view(whole[name].dtype))
            for number in range(len(segment.rows)):
                try:
                    outcomes[type(segment.raws(np.array([number]))[0])] += 1
                except ForeignError:
                    outcomes[ForeignError] += 1
            vars(segment).update(whole)
    finally:
        held.close()
    assert min(outcomes.values()) > 300, outcomes


def test_nothing_leads_out_of_damaged_postings(index: Path) -> None:
    draw = random.Random(4)
    paths = sorted((index / "bm25").iterdir())
    contents = {path: path.read_bytes() for path in paths}
    opened = 0
    for _ in range(60):
        path = draw.choice(paths)
        path.write_bytes(damaged(np.frombuffer(contents[path], np.uint8), draw).tobytes())
        try:
            with FolderReader.open(index) as reader:
                words = reader.word_postings
                assert words is not None
                for query in ({"yeast": 1.0}, {"moon": 2.0, "tide": 1.0, "東": 0.5, "none": 1.0}):
                    assert len(StoredWords(reader, words).search(query, 20)) <= 20
                    assert len(words.frequencies(list(query))) == len(query)
            opened += 1
        except UserError as error:
            assert len(str(error).splitlines()) == 1
        finally:
            path.write_bytes(contents[path])
    assert opened > 30
