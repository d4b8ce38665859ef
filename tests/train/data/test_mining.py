"""Hard negatives: what is never one, what a teacher drops, and that a run can be interrupted."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.base import EncoderBase
from retriever.encoder.load import NoEncoder
from retriever.indexing.build import build_index
from retriever.search.retriever import Retriever
from retriever.train.data.mining import MiningConfig, mine_pairs, too_close
from retriever.train.data.pairs import held_out
from retriever.train.data.passages import index_passages
from retriever.train.data.resumable import Rewriting
from retriever.types import Encoded, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss

TREES = [f"A tree and its wood, part {i}: {'leaf ' * i}" for i in range(60)]
KEPT = [text for text in TREES if not held_out(text)]
BM25 = MiningConfig(mode="bm25", first_rank=1, depth=100, negatives=100)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Return a pair for each tree; the first two trees answer one question, and four documents hold 15 trees each."""
    questions = ["tree wood", " Tree  wood", *(f"tree leaf {i}" for i in range(2, len(TREES)))]
    return [
        {"query": query, "positive": text, "document": f"book {i % 4}", "scores": [1.0], "extra": i}
        for i, (query, text) in enumerate(zip(questions, TREES, strict=True))
    ]


@pytest.fixture(scope="module")
def index(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mining")
    index_passages(write(folder / "pairs.jsonl", rows), folder / "index", NoEncoder())
    return folder / "index"


@pytest.fixture
def pairs(rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", rows)


def test_everything_but_answers_and_their_documents_is_a_negative(
    pairs: Path, rows: list[dict[str, Any]], index: Path, tmp_path: Path
) -> None:
    with Retriever.open(index) as retriever:
        assert mine_pairs(pairs, tmp_path / "out", retriever, BM25) == len(rows)
    for i, row in enumerate(read(tmp_path / "out")):
        answers = TREES[:2] if i < 2 else TREES[i : i + 1]
        fair = {text for place, text in enumerate(TREES) if place % 4 != i % 4 and text not in answers} & set(KEPT)
        assert sorted(row["negatives"]) == sorted(fair)
        assert {key: row[key] for key in ("query", "positive", "document", "extra")} == {
            key: rows[i][key] for key in ("query", "positive", "document", "extra")
        }
        assert "scores" not in row


def test_negatives_are_sampled_from_a_band_of_ranks(pairs: Path, index: Path, tmp_path: Path) -> None:
    config = MiningConfig(mode="bm25", first_rank=5, depth=30, negatives=3)
    with Retriever.open(index) as retriever:
        mine_pairs(pairs, tmp_path / "out", retriever, config)
        found = read(tmp_path / "out")
        for row in found[2:]:
            band = {hit.text for hit in retriever.search(row["query"], 30, mode="bm25")[4:]}
            assert len(row["negatives"]) == 3 and set(row["negatives"]) <= band
        mine_pairs(pairs, tmp_path / "again", retriever, config)
        mine_pairs(pairs, tmp_path / "other", retriever, MiningConfig("bm25", 5, 30, 3, seed=1))
    assert read(tmp_path / "again") == found
    assert read(tmp_path / "other") != found


class ByNumber(EncoderBase):
    """A teacher by whom the cosine of any question and tree number i is 1 - i / 100."""

    identity = NoEncoder.identity._replace(name="by number", sha256="n" * 64, dense_dim=2)
    vocabulary: Sequence[str] = ()

    def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        return Encoded(
            np.tile(np.array([1, 0], dtype=np.float32), (len(texts), 1)), None, np.zeros(len(texts), dtype=bool)
        )

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        cosines = np.array([1 - TREES.index(text) / 100 for text in texts], dtype=np.float32)
        return Encoded(np.stack([cosines, cosines], axis=1), None, np.zeros(len(texts), dtype=bool))


def test_a_teacher_drops_what_is_close_to_the_positive(rows: list[dict[str, Any]], index: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.jsonl", [rows[20] | {"query": "tree wood leaf"}])
    with Retriever.open(index) as retriever:
        config = MiningConfig(mode="bm25", first_rank=1, negatives=60, margin=0.9)
        mine_pairs(pairs, tmp_path / "out", retriever, config, ByNumber())
        few = MiningConfig(mode="bm25", first_rank=1, negatives=5, margin=0.9)
        mine_pairs(pairs, tmp_path / "few", retriever, few, ByNumber())
    [row] = read(tmp_path / "out")
    # The positive has 0.8, so 0.72 is the threshold: the trees from number 28 on.
    fair = {text for i, text in enumerate(TREES) if i >= 28 and i % 4 != 0} & set(KEPT)
    assert set(row["negatives"]) == fair
    numbers = [20, *(TREES.index(text) for text in row["negatives"])]
    assert row["scores"] == pytest.approx([1 - i / 100 for i in numbers], abs=1e-6)
    [short] = read(tmp_path / "few")
    assert 3 <= len(short["negatives"]) <= 5 and set(short["negatives"]) <= fair
    assert len(short["scores"]) == 1 + len(short["negatives"])


def test_the_threshold_lies_below_a_negative_score_too() -> None:
    assert [too_close(score, -0.2, 0.5) for score in (-0.25, -0.35)] == [True, False]


def test_titles_belong_to_the_passage_and_do_not_hide_an_answer(tmp_path: Path) -> None:
    documents = [
        {"_id": "a", "title": "Oak", "text": "The oak is a tree."},
        {"_id": "b", "title": "Elm", "text": "The elm is a tree."},
    ]
    build_index(write(tmp_path / "corpus.jsonl", documents), tmp_path / "index", encoder=NoEncoder())
    pairs = write(tmp_path / "pairs.jsonl", [{"query": "oak tree", "positive": "the oak is  a tree."}])
    with Retriever.open(tmp_path / "index") as retriever:
        mine_pairs(pairs, tmp_path / "out", retriever, BM25)
    assert read(tmp_path / "out")[0]["negatives"] == ["Elm The elm is a tree."]


def test_the_command_makes_the_index_and_goes_on_after_an_interruption(
    pairs: Path, tmp_path: Path, tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriever.train.data.mining.Rewriting", partial(Rewriting, block=16))

    def arguments(output: str) -> list[str]:
        options = f"--negatives 4 --first-rank 2 --depth 40 --margin 1 --encoder {tiny_encoder_folder}".split()
        teacher = ["--teacher", str(tiny_encoder_folder), "-q"]
        return ["mine", str(pairs), "--index", str(tmp_path / "made"), "-o", str(tmp_path / output), *options, *teacher]

    result = CliRunner().invoke(cli, arguments("whole.jsonl"))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"60 pairs in {tmp_path / 'whole.jsonl'}\n"
    commit, calls = Rewriting._commit, 0

    def dies_at_the_third(self: Rewriting) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        commit(self)

    with monkeypatch.context() as patched:
        patched.setattr(Rewriting, "_commit", dies_at_the_third)
        assert CliRunner().invoke(cli, arguments("out.jsonl")).exit_code == 130
    assert json.loads((tmp_path / "out.jsonl.part" / "note.json").read_bytes())["done"] == 32
    assert CliRunner().invoke(cli, arguments("out.jsonl")).exit_code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    found = read(tmp_path / "out.jsonl")
    assert all(len(row["scores"]) == 1 + len(row["negatives"]) for row in found)
    # A random teacher places many passages above the positive; where it does not, there are all that were asked for.
    assert max(len(row["negatives"]) for row in found) == 4


@pytest.mark.parametrize(("changed", "message"), [({"first_rank": 200}, "no band"), ({"margin": 0.0}, "margin 0.0")])
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MiningConfig(**changed)
