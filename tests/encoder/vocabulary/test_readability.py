"""Texts that an encoder cannot read get no views, are counted, and leave BM25 alone to answer."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers

from retriever.cli.main import cli
from retriever.encoder.load import default_encoder_path, load_encoder
from retriever.encoder.views import joined, picked
from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.encoder.vocabulary.readability import WORDS, Readability
from retriever.index.info import describe
from retriever.search.retriever import Retriever

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.types import Encoder

READ = [
    "",
    "   ",
    "12,345.67 %",
    "Trees make wood.",
    "Größe, façade, Tiếng Việt, ğüneş, Łódź",
    "TNF-α and NF-κB in αvβ3 integrin",  # noqa: RUF001
    "β",
    "CH3-(CH2)16-COOH + C6H12O6 → CO2",
    "https://example.org/päth?q=%E4%B8%AD#x",
    "def f(x): return {'a': [1, 2, λ]}",
    "😀🎉",
    "ABBA toured Japan (日本) with great success",
]
UNREADABLE = [
    "รถไฟฟ้าใต้ดิน",
    "今天天气很好",
    "Какая сегодня погода",
    "ما هو الطقس اليوم",
    "आज मौसम कैसा है",
    "Τι καιρό κάνει σήμερα",  # noqa: RUF001
    "오늘 날씨는 어떻습니까",
    "การแข่งขัน NFL ปีนี้",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("default")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unread")
    lines = [{"_id": f"r{i}", "text": text} for i, text in enumerate(READ[3:])]
    lines += [{"_id": f"u{i}", "text": text} for i, text in enumerate(UNREADABLE)]
    (folder / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(cli, ["index", str(folder / "c.jsonl"), "--index", str(folder / "i"), "-q"])
    assert done.exit_code == 0
    assert f"{len(UNREADABLE)} texts are in a language that the encoder does not read" in done.stderr
    return folder / "i"


def test_scripts_that_the_vocabulary_lacks_are_unread_and_others_never(encoder: Encoder) -> None:
    for encode in (encoder.encode_documents, encoder.encode_queries):
        found = encode(READ + UNREADABLE)
        assert found.unread is not None and found.dense is not None and found.sparse is not None
        assert found.unread.tolist() == [False] * len(READ) + [True] * len(UNREADABLE)
        silent = found.unread | np.array([not text.strip() for text in READ + UNREADABLE])
        assert (found.dense.any(axis=1) == ~silent).all()
        assert found.sparse[np.flatnonzero(silent)].nnz == 0
        assert picked(joined([found, found]), np.array([len(READ), 3])).unread.tolist() == [True, False]  # type: ignore[union-attr]
    lexical = encoder.with_query_mode("lexical").encode_queries([UNREADABLE[0], READ[3]], dense=False)
    assert lexical.sparse is not None and lexical.unread is not None
    assert lexical.sparse.getnnz(axis=1).astype(bool).tolist() == [False, True] == (~lexical.unread).tolist()


def test_readable_texts_are_encoded_as_if_alone(encoder: Encoder) -> None:
    alone, among = encoder.encode_documents(READ[3:5]), encoder.encode_documents([*UNREADABLE, *READ[3:5]])
    assert alone.dense is not None and among.dense is not None
    np.testing.assert_allclose(among.dense[-2:], alone.dense, atol=1e-6)


def test_a_vocabulary_with_words_of_a_script_reads_its_single_letters() -> None:
    letters = [chr(number) for number in range(0x4E00, 0x4E00 + WORDS)]
    few = {token: number for number, token in enumerate(["[UNK]", *letters])}
    many = few | {letter + letters[0]: len(few) + place for place, letter in enumerate(letters)}
    for vocabulary, unread in ((few, True), (many, False)):
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=""))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        assert Readability(tokenizer).unread([letters[3] + letters[5] + letters[7]]).tolist() == [unread]
        assert Readability(tokenizer).unread(["\u9fa0\u9fa1"]).tolist() == [True]  # unknown to both


def test_documents_are_counted_and_bm25_alone_answers(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert describe(index).unread == len(UNREADABLE)
    assert f"{len(UNREADABLE)} of" in CliRunner().invoke(cli, ["info", str(index)]).stdout
    with Retriever.open(index) as retriever, caplog.at_level(logging.WARNING, "retriever"):
        [hit, *_] = retriever.search(UNREADABLE[2])
        assert hit.doc_id == "u2" and set(hit.parts) == {"bm25"}
        assert "the query is in a language or script that the encoder does not read" in caplog.text
        alone = [found.doc_id for found in retriever.search(UNREADABLE[2], mode="bm25")]
        assert [found.doc_id for found in retriever.search(UNREADABLE[2])] == alone
        assert retriever.search(UNREADABLE[2], mode="dense") == retriever.search(UNREADABLE[2], mode="sparse") == []
        caplog.clear()
        found = {hit.doc_id for hit in retriever.search("trees and wood", 100, mode="dense")}
        assert found == {f"r{i}" for i in range(len(READ) - 3)}
        assert not caplog.text


def test_the_default_vocabulary_has_words_of_latin_alone() -> None:
    tokenizer = Tokenizer.from_file(str(default_encoder_path() / "tokenizer.json"))
    assert Readability(tokenizer)._scripts == {"LATIN"}


def test_a_text_in_another_language_keeps_its_words_alone(encoder: Encoder) -> None:
    german = "In den alten Häusern am Fluss wohnten früher viele Familien mit ihren Kindern."
    english = "Many families used to live in the old houses by the river with their children."
    encoded = encoder.encode_documents([german, english])
    assert encoded.unread is not None and encoded.dense is not None and encoded.sparse is not None
    assert encoded.unread.tolist() == [True, False]
    assert not encoded.dense[0].any() and encoded.dense[1].any()
    lexicon = Lexicon(default_encoder_path())
    words = lexicon.counts(lexicon.token_ids([german]))
    assert set(encoded.sparse[0].indices) == {term for term in words.indices if lexicon.fraction[term] <= 0.3}
    assert encoder.encode_queries([german]).dense is not None
    alone = encoder.encode_documents([english])
    assert alone.dense is not None and np.array_equal(alone.dense[0], encoded.dense[1])
