"""Held-out evaluation sets: what is asked, what is relevant, what lies between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.corpus.corpus import open_corpus
from retriever.eval.data.datasets import load_dataset
from retriever.train.data.holdout import HoldoutReport, write_holdout
from retriever.train.data.pairs import held_out
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

PASSAGES = [f"Passage number {i}." for i in range(200)]
HELD = [text for text in PASSAGES if held_out(text)]
TRAINED = [text for text in PASSAGES if not held_out(text)]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, str]:
    documents = [record.document for record in open_corpus(folder)]
    return {document.doc_id: document.text for document in documents if document is not None}


def relevant(folder: Path) -> dict[str, set[str]]:
    """Return the texts that the judgements give to each question's text."""
    data, texts = load_dataset(folder), contents(folder)
    return {query.text: {texts[doc_id] for doc_id in data.qrels[query.query_id]} for query in data.queries}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", [{"query": f"Ask {text}", "positive": text} for text in PASSAGES])


def test_every_held_out_question_finds_its_passage_among_distractors(pairs: Path, tmp_path: Path) -> None:
    report = write_holdout(pairs, tmp_path / "out", distractors=20)
    assert report == HoldoutReport(len(HELD), len(HELD), 20, 0)
    assert relevant(tmp_path / "out") == {f"Ask {text}": {text} for text in HELD}
    others = set(contents(tmp_path / "out").values()) - set(HELD)
    assert len(others) == 20 and others <= set(TRAINED)


def test_more_distractors_than_there_are(pairs: Path, tmp_path: Path) -> None:
    assert write_holdout(pairs, tmp_path / "out", distractors=1000).distractors == len(TRAINED)
    assert set(contents(tmp_path / "out").values()) == set(PASSAGES)


def test_the_same_files_give_the_same_folder(pairs: Path, tmp_path: Path) -> None:
    for name in "ab":
        write_holdout(pairs, tmp_path / name, distractors=20)
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_question_asked_twice_has_all_its_passages(tmp_path: Path) -> None:
    records = [{"query": q, "positive": p} for q, p in (("Same?", HELD[0]), ("same? ", HELD[1]), ("Else?", HELD[0]))]
    report = write_holdout(write(tmp_path / "pairs.jsonl", records), tmp_path / "out")
    assert report == HoldoutReport(2, 2, 0, 0)
    assert relevant(tmp_path / "out") == {"Same?": {HELD[0], HELD[1]}, "Else?": {HELD[0]}}


def test_a_question_that_training_asks_too_is_left_out(tmp_path: Path) -> None:
    records = [
        {"query": "Seen?", "positive": HELD[0]},
        {"query": "seen?", "positive": TRAINED[0]},
        {"query": "New?", "positive": HELD[1]},
    ]
    report = write_holdout(write(tmp_path / "pairs.jsonl", records), tmp_path / "out")
    assert report == HoldoutReport(1, 2, 1, 1)
    assert relevant(tmp_path / "out") == {"New?": {HELD[1]}}
    assert set(contents(tmp_path / "out").values()) == {HELD[0], HELD[1], TRAINED[0]}


def test_distractors_of_other_files_are_no_copies(pairs: Path, tmp_path: Path, tiny_corpus: Path) -> None:
    more = write(tmp_path / "more.jsonl", [{"query": "q", "positive": text.upper()} for text in [*HELD, "New one."]])
    report = write_holdout(pairs, tmp_path / "out", distractors=500, corpora=[more, tiny_corpus])
    texts = list(contents(tmp_path / "out").values())
    tiny = sum(record.document is not None and bool(record.document.contents) for record in open_corpus(tiny_corpus))
    assert report.distractors == len(TRAINED) + 1 + tiny
    assert len(texts) == len({text.casefold() for text in texts}) == len(PASSAGES) + 1 + tiny


def test_what_cannot_be_made_is_refused(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="not empty"):
        write_holdout(pairs, tmp_path / "full")
    trained = write(tmp_path / "trained.jsonl", [{"query": "q", "positive": TRAINED[0]}])
    with pytest.raises(UserError, match="no question is held out"):
        write_holdout(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    bad = write(tmp_path / "bad.jsonl", [{"_id": "d"}])
    with pytest.raises(UserError, match=r"bad\.jsonl:1: no text"):
        write_holdout(pairs, tmp_path / "out", corpora=[bad])


def test_the_command_says_what_it_wrote(pairs: Path, tmp_path: Path) -> None:
    arguments = ["holdout", str(pairs), "-o", str(tmp_path / "out"), "--percent", "50", "--distractors", "3"]
    result = CliRunner().invoke(cli, arguments)
    half = sum(held_out(text, 50) for text in PASSAGES)
    assert result.exit_code == 0
    assert result.stdout == f"{half} questions, {half} answers and 3 distractors in {tmp_path / 'out'}\n"
