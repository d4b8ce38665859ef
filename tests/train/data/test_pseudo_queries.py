"""Queries made from the text itself."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.corpus.corpus import open_corpus
from retriever.train.data.examples import SourceConfig, stream
from retriever.train.data.pairs import read_pairs
from retriever.train.data.pseudo_queries import (
    FEWEST_WORDS,
    WORD,
    PseudoPair,
    PseudoQueryConfig,
    pseudo_queries,
    salient_phrases,
)
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

MANUAL = """Read this before the first start of your new machine.

# Cleaning the filter
Take the filter out and rinse it under warm water. Let it dry for a day.

## Empty ##
Nothing here.

Safety
------
Never open the lid while the drum is turning inside.
"""


def make(tmp_path: Path, documents: list[dict[str, Any]], config: PseudoQueryConfig | None = None) -> list[PseudoPair]:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return list(pseudo_queries(open_corpus(path), config))


def of_kind(pairs: list[PseudoPair], kind: str) -> list[tuple[str, str]]:
    return [(pair.query, pair.positive) for pair in pairs if pair.kind == kind]


def test_titles_and_headings_ask_for_what_stands_below_them(tmp_path: Path) -> None:
    found = make(tmp_path, [{"_id": "m", "title": "Washing\n machine", "text": MANUAL}])
    assert of_kind(found, "title") == [("Washing machine", MANUAL)]
    assert of_kind(found, "heading") == [
        (
            "Washing machine Cleaning the filter",
            "Take the filter out and rinse it under warm water. Let it dry for a day.",
        ),
        ("Washing machine Safety", "Never open the lid while the drum is turning inside."),
    ]
    assert {pair.document for pair in found} == {"m"}


def test_a_heading_that_is_the_title_is_not_said_twice(tmp_path: Path) -> None:
    text = "# Oak trees\nThe oak is a tree with lobed leaves."
    assert of_kind(make(tmp_path, [{"_id": "a", "title": "Oak trees", "text": text}]), "heading")[0][0] == "Oak trees"
    assert of_kind(make(tmp_path, [{"_id": "a", "text": text}]), "heading")[0][0] == "Oak trees"


def test_a_sentence_is_asked_of_the_rest(tmp_path: Path) -> None:
    sentences = [f"This is the sentence with number {i} of the text." for i in range(8)]
    documents = [{"_id": f"d{i}", "text": " ".join(sentences)} for i in range(30)]
    found = of_kind(make(tmp_path, documents, PseudoQueryConfig(keep_sentence=0)), "sentence")
    assert len(found) == 30
    for query, positive in found:
        assert query in sentences
        assert positive.split() == " ".join(sentence for sentence in sentences if sentence != query).split()
    assert len({query for query, _ in found}) > 3
    whole = of_kind(make(tmp_path, documents, PseudoQueryConfig(keep_sentence=1)), "sentence")
    assert whole == [(query, " ".join(sentences)) for query, _ in found]
    some = of_kind(make(tmp_path, documents, PseudoQueryConfig(keep_sentence=0.5)), "sentence")
    assert 5 < sum(query in positive for query, positive in some) < 25


@pytest.mark.parametrize("text", ["Only one sentence stands in this text.", "Short. Very short. No.", "   "])
def test_no_sentence_where_nothing_would_be_left(tmp_path: Path, text: str) -> None:
    documents = [{"_id": "a", "text": text}, {"_id": "b", "text": "Some text."}]
    assert of_kind(make(tmp_path, documents, PseudoQueryConfig(keep_sentence=0)), "sentence") == []


def test_salient_phrases_by_hand() -> None:
    weights = {"": 3.0, "tree": 0.5, "grows": 0.1}
    text = "The old oak tree grows. A tree and the old oak, near Lake Como; and lichen in the fog."
    # old, oak and tree come twice: (old oak tree grows) = 6 + 6 + 1 + 0.1, (near lake como) = 9, lichen and fog = 3.
    assert salient_phrases(text, weights) == ["old oak tree grows", "near lake como", "fog"]
    assert salient_phrases("of the and", weights) == []


def test_rare_words_of_the_corpus_make_the_phrases(tmp_path: Path) -> None:
    filler = "common, words, stand, in, every, text"
    documents = [{"_id": f"d{i}", "text": f"{filler}; the zebra{i} of the quagga{i}, and gnu{i}."} for i in range(40)]
    found = make(tmp_path, documents)
    assert [query for query, _ in of_kind(found, "phrase")] == [f"zebra{i} quagga{i} gnu{i}" for i in range(40)]
    # One document of 40 is not enough to know what is common: words that it lacks all weigh the same.
    few = of_kind(make(tmp_path, documents, PseudoQueryConfig(sample=1)), "phrase")
    assert sum(query == f"zebra{i} quagga{i} gnu{i}" for i, (query, _) in enumerate(few)) == 39


def test_the_same_corpus_gives_the_same_queries_whatever_stands_around(tmp_path: Path, tiny_corpus: Path) -> None:
    corpus = open_corpus(tiny_corpus)
    found = list(pseudo_queries(corpus))
    assert list(pseudo_queries(corpus)) == found
    assert list(pseudo_queries(corpus, PseudoQueryConfig(seed=1))) != found
    sentences = [pair for pair in found if pair.kind == "sentence"]
    assert sentences
    lines = tiny_corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_text("".join(reversed(lines[:10])), encoding="utf-8")
    for pair in pseudo_queries(open_corpus(part)):
        assert pair.kind != "sentence" or pair in sentences
    for query, positive, _, kind in found:
        assert "\n" not in query and query.strip() == query != ""
        assert kind == "title" or len(WORD.findall(positive)) >= FEWEST_WORDS


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.jsonl:2: no text"):
        make(tmp_path, [{"_id": "a", "text": "Some text."}, {"_id": "b"}])
    with pytest.raises(UserError, match="need 0 to 1"):
        PseudoQueryConfig(keep_sentence=2)


def test_the_command_writes_pairs_to_train_on(tiny_corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl.gz"
    arguments = ["pseudo-queries", str(tiny_corpus), "-o", str(output), "-q"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    with gzip.open(output, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert rows == [pair._asdict() for pair in pseudo_queries(open_corpus(tiny_corpus))]
    assert result.stdout.startswith(f"{len(rows)} pairs in {output}: ")
    assert [record.example.document for record in read_pairs(output)] == [row["document"] for row in rows]
    examples = list(islice(stream([SourceConfig(str(output))]), 5))
    assert len(examples) == 5
    assert "exists" in CliRunner().invoke(cli, arguments).stderr
