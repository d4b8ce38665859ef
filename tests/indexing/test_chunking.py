"""Splitting texts: sentences by hand, and what holds for every text, budget and overlap."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever.bench.encoding.chunking import SHAPES, bench_chunking, shaped_text
from retriever.corpus.sentences import sentence_ends, sentences
from retriever.encoder.base import word_starts
from retriever.encoder.load import NoEncoder, load_encoder
from retriever.index.chunks import Chunking
from retriever.indexing.chunking import Chunker, chunking_for, split
from retriever.types import Document, Span, UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained. ", "It stopped! ", "Why? ", "Nobody knows…  ", "The end"],
        ["Dr. A. Smith (Univ. of Oslo) took 3.5 mg, i.e. half, at 5 p.m. on Mon. ", "He slept."],
        ["See Fig. 2 and refs. 4, 5 in Miller et al. 2001. ", "Cf. Sec. 3. ", "Done."],
        ['"Stop!" ', "she said. ", "(He did not.) ", "Then [see above.] ", "Yes."],
        ["今日は雨です。", "明日は。", "晴れ。"],
        ["यह वाक्य है। ", "दूसरा।"],
        ["A heading without a stop\n\n", "Its text, on\ntwo lines. ", "More."],
        ["one line\r\n\r\n", "another"],
        ["Version 1.2.3 of e.g. numpy and 10.5 of www.example.org is out. ", "Good."],
        ["I saw J. R. R. Tolkien. ", "He wrote."],
        ["What?! ", "No... ", "Really."],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    text = "".join(sentences)
    ends = sentence_ends(text)
    found = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if sentences[1] == "she said. ":  # a quotation may go on in small letters: one sentence or two, but no more
        sentences = ["".join(sentences[:2]), *sentences[2:]]
    assert found == sentences


TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["one", "Two", "three.", "Four!", "e.g.", "a" * 40, "\n\n", " ", "。", "水", "x-y", "é́", "Dr."]
        ),
        max_size=80,
    ).map(" ".join),
    st.lists(st.sampled_from(["水", "金。", "a", ". ", "B"]), max_size=120).map("".join),
)


@settings(deadline=None)
@given(text=TEXTS)
def test_sentences_hold_the_whole_text(text: str) -> None:
    ends = sentence_ends(text)
    assert ends == sorted(set(ends)) and (not text or ends[-1] == len(text))
    assert text or not ends


def words(text: str) -> list[int]:
    return [found.start() for found in re.finditer(r"\w{1,4}|[^\w\s]", text)]


@settings(deadline=None)
@given(text=TEXTS, room=st.integers(1, 30), share=st.floats(0, 1))
def test_what_holds_for_all_spans(text: str, room: int, share: float) -> None:
    overlap = int(share * room)
    starts = words(text)
    spans = split(text, starts, room, overlap)

    def count(start: int, end: int) -> int:
        return sum(start <= at < end for at in starts)

    assert spans and all(0 <= start <= end <= len(text) for start, end in spans)
    covered = {at for start, end in spans for at in range(start, end)}
    assert all(character.isspace() for at, character in enumerate(text) if at not in covered)
    for start, end in spans:
        assert text[start:end] == text[start:end].strip() and (start < end or spans == [Span(0, 0)])
        assert count(start, end) <= room
    for before, after in itertools.pairwise(spans):
        assert before.start < after.start and before.end < after.end
        assert count(after.start, before.end) <= overlap
        assert count(before.start, after.end) > room, "one span would have been enough"
    if len(starts) <= room:
        assert len(spans) == 1


@settings(deadline=None)
@given(text=st.text("😀a. ", max_size=30), room=st.integers(1, 6))
def test_signs_of_several_tokens(text: str, room: int) -> None:
    """A tokeniser of bytes gives one character several tokens: more than there is room for, at worst."""
    starts = [at for at, character in enumerate(text) for _ in range(4 if character == "😀" else 1)]
    spans = split(text, starts, room, 0)
    assert "".join(text[start:end] for start, end in spans).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("shape", SHAPES)
def test_texts_without_sentences(shape: str) -> None:
    """The chunks hold the text in order within the limit, and the text is given to the tokeniser once, whole."""
    given: list[int] = []

    class Counting(NoEncoder):
        def token_starts(self, text: str) -> list[int]:
            given.append(len(text))
            return word_starts(text)

    text = shaped_text(shape, 100_000)  # runs that are matched anew from each place would take minutes
    chunks = Chunker(Counting(), Chunking(20, 0))(Document("d", text))
    assert given == [0, len(text)]
    assert "".join("".join(text[start:end].split()) for start, end in chunks) == "".join(text.split())
    starts = word_starts(text)
    assert all(bisect_left(starts, end) - bisect_left(starts, start) <= 20 for start, end in chunks)


def test_the_benchmark_of_shapes() -> None:
    assert all(1997 <= len(shaped_text(shape, 2000).encode()) <= 2000 for shape in SHAPES)
    found = bench_chunking(NoEncoder(), 2000, rounds=1)
    assert [one.shape for one in found] == list(SHAPES) and found[0].ratio == 1
    assert {one.shape: one.tokens for one in found}["dots"] == 2000
    assert [one.chunks for one in found] == [
        len(Chunker(NoEncoder(), Chunking(200, 40))(Document("d", shaped_text(shape, 2000)))) for shape in SHAPES
    ]


def test_overlap_repeats_whole_sentences() -> None:
    text = " ".join(f"This is sentence {number}." for number in range(9))
    spans = split(text, words(text), room=18, overlap=6)
    parts = [text[start:end] for start, end in spans]
    assert parts[0].endswith("sentence 2.") and parts[1].startswith("This is sentence 2.")


def test_long_sentences_are_split_at_words_and_overlap() -> None:
    text = " ".join(f"w{number}" for number in range(100))
    parts = [text[start:end].split() for start, end in split(text, words(text), room=30, overlap=10)]
    assert [len(part) for part in parts] == [30, 30, 30, 30, 20] and all("w" in word for part in parts for word in part)
    assert [part[:10] for part in parts[1:]] == [part[-10:] for part in parts[:-1]]


def test_without_chunking_a_document_is_whole() -> None:
    document = Document("d", "  One. Two.  ")
    assert Chunker(NoEncoder(), None)(document) == [Span(0, len(document.text))]


def test_words_count_where_the_encoder_has_no_tokeniser() -> None:
    chunker = Chunker(NoEncoder(), Chunking(tokens=8, overlap=0))
    document = Document("d", "One two three. Four five six. Seven!")
    assert [document.text[start:end] for start, end in chunker(document)] == ["One two three. Four five six.", "Seven!"]
    assert chunker(document._replace(title="a title")) == [Span(0, 14), Span(15, 36)], "the title takes 2 of 8"
    assert len(chunker(document._replace(title="a " * 50))) == 3, "but never more than half"
    assert chunker(Document("d", " \n", "only a title")) == [Span(0, 0)]


def test_the_tokens_of_our_own_encoder(tiny_encoder_folder: Path, tiny_texts: list[str]) -> None:
    encoder = load_encoder(str(tiny_encoder_folder))
    chunker = Chunker(encoder, Chunking(tokens=30, overlap=8))
    document = Document("d", " ".join(tiny_texts), title="The title")
    spans = chunker(document)
    assert len(spans) > 10
    parts = [document._replace(text=document.text[start:end]).contents for start, end in spans]
    assert not encoder.encode_documents(parts).truncated.any()
    lengths = [len(ids) for ids in encoder.lexicon.token_ids(parts)]  # type: ignore[attr-defined]
    assert max(lengths) <= 30 and sum(lengths) / len(lengths) > 15
    assert chunking_for(encoder) == Chunking(62, 12) and chunking_for(encoder, 30, 0) == Chunking(30, 0)
    with pytest.raises(UserError, match=r"^chunks of 63 tokens are longer than the encoder reads; need at most 62; "):
        chunking_for(encoder, 63)


def test_sizes() -> None:
    assert chunking_for(NoEncoder()) == Chunking(200, 40) and chunking_for(NoEncoder(), 1000) == Chunking(1000, 200)
    with pytest.raises(UserError, match=r"^chunks of 0 tokens are out of range; need 1 or more"):
        chunking_for(NoEncoder(), 0)
    with pytest.raises(UserError, match=r"^an overlap of 10 tokens is out of range for chunks of 10; need 0 or more"):
        chunking_for(NoEncoder(), 10, 10)


def test_a_text_without_capitals_has_sentences() -> None:
    text = "the flow is laminar . it is fast, cf. fig. 2. why? nobody knows."
    assert [text[start:end].strip() for start, end in sentences(text)] == [
        "the flow is laminar .",
        "it is fast, cf. fig. 2.",
        "why?",
        "nobody knows.",
    ]
    assert len(sentences("The flow. it is fast.")) == 1
