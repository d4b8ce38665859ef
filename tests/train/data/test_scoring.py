"""Teachers' scores against hand-made vectors and a BM25 written from its formula."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.base import EncoderBase
from retriever.encoder.load import NoEncoder, load_encoder
from retriever.index.reader import FolderReader
from retriever.train.data.passages import has_index, index_passages, passage_id
from retriever.train.data.scoring import BM25Teacher, Candidates, DenseTeacher, ensemble, load_teacher, score_pairs
from retriever.train.data.vectors import VectorStore
from retriever.types import Encoded, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.types import Encoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss

ROWS: list[dict[str, Any]] = [
    {"query": "red fox", "positive": "red fox jumps", "negatives": ["blue whale swims", "red sky glows tonight"]},
    {"query": "whale", "positive": "blue whale swims", "negatives": '["red fox jumps", "green frog"]', "pos": "noun"},
    {"query": "frog", "positive": "green frog"},
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def bm25(query: str, passage: str, passages: Sequence[str], k1: float = 0.9, b: float = 0.4) -> float:
    """Lucene's BM25; texts of plain words that its analysis leaves as they are, short enough for exact lengths."""
    average = sum(len(text.split()) for text in passages) / len(passages)
    counts, length, total = Counter(passage.split()), len(passage.split()), 0.0
    for term in query.split():
        containing = sum(term in text.split() for text in passages)
        idf = math.log(1 + (len(passages) - containing + 0.5) / (containing + 0.5))
        total += idf * counts[term] / (counts[term] + k1 * (1 - b + b * length / average))
    return total


PASSAGES = ["red fox jump", "blue whale swim", "red sky glow tonight", "green frog"]


def test_bm25_is_lucenes_over_the_passages_of_the_file(tmp_path: Path) -> None:
    rows = [{"query": "x", "positive": PASSAGES[0], "negatives": PASSAGES[1:]}, {"query": "y", "positive": PASSAGES[3]}]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    index_passages(pairs, tmp_path / "index", NoEncoder(), negatives=True)
    assert has_index(tmp_path / "index")
    with FolderReader.open(tmp_path / "index") as reader:
        assert reader.num_documents == 4
        lists = [
            Candidates("red fox", tuple(PASSAGES)),
            Candidates("frog red", (PASSAGES[3], PASSAGES[3], PASSAGES[2])),
            Candidates("nothing", tuple(PASSAGES)),
            Candidates("?", tuple(PASSAGES)),
        ]
        found = BM25Teacher(reader).scores(lists)
    for item, scores in zip(lists, found, strict=True):
        assert scores == pytest.approx([bm25(item.query, text, PASSAGES) for text in item.passages], rel=1e-5)
    assert found[0][1] == 0 < found[0][2] < found[0][0]


class Table(EncoderBase):
    """An encoder that looks its vectors up, and notes what it was asked for."""

    def __init__(self, vectors: dict[str, list[float]], like: Encoder) -> None:
        self.vectors, self.asked = vectors, list[list[str]]()
        self.identity = like.identity._replace(dense_dim=2)
        self.vocabulary: Sequence[str] = ()

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.asked.append(list(texts))
        vectors = np.array([self.vectors[text] for text in texts], dtype=np.float32)
        return Encoded(vectors if dense else None, None, np.zeros(len(texts), dtype=bool))

    encode_queries = encode_documents


def test_cosines_are_products_of_vectors_each_made_once(tmp_path: Path) -> None:
    table = Table({"q": [1, 0], "r": [0, 1], "a": [0.6, 0.8], "b": [-1, 0], "c": [0, 1]}, NoEncoder())
    teacher = DenseTeacher(table, VectorStore(tmp_path / "vectors", 2, 0))
    found = teacher.scores([Candidates("q", ("a", "b")), Candidates("r", ("a",)), Candidates("q", ("b", "b", "a"))])
    assert found == [pytest.approx(row) for row in ([0.6, -1], [0.8], [-1, -1, 0.6])]
    teacher.begin_block()
    assert teacher.scores([Candidates("q", ("c", "a"))]) == [pytest.approx([0, 0.6])]
    assert table.asked == [["q", "r"], ["a", "b"], ["q"], ["c"]]


def test_an_ensemble_averages_what_it_normalised() -> None:
    assert ensemble([[0.9, 0.5, 0.1], [12.0, 0.0, 6.0]], "min-max") == pytest.approx([1.0, 0.25, 0.25])
    deviation = math.sqrt(2 / 3)
    assert ensemble([[1, 2, 3], [5, 5, 5]], "z-score") == pytest.approx([-0.5 / deviation, 0, 0.5 / deviation])


def test_scores_stand_beside_all_that_was_there(pairs: Path, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    output, spec = tmp_path / "out.jsonl", str(tiny_encoder_folder)
    assert score_pairs(pairs, output, [spec]) == 3
    found = read(output)
    encoder = load_encoder(spec)
    for row, wanted in zip(found, ROWS, strict=True):
        negatives = wanted.get("negatives", [])
        negatives = json.loads(negatives) if isinstance(negatives, str) else negatives
        assert row == wanted | ({"negatives": negatives} if negatives else {}) | {"scores": row["scores"]}
        query = encoder.encode_queries([row["query"]]).dense
        passages = encoder.encode_documents([row["positive"], *negatives]).dense
        assert query is not None and passages is not None
        assert row["scores"] == pytest.approx((passages @ query[0]).tolist(), abs=2e-5)


def test_the_command_writes_an_ensemble(pairs: Path, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    teachers = ["bm25", str(tiny_encoder_folder)]
    for name, chosen in (("a", teachers[:1]), ("b", teachers[1:]), ("both", teachers)):
        options = [part for teacher in chosen for part in ("--teacher", teacher)]
        arguments = ["score", str(pairs), "-o", str(tmp_path / name), "-q", *options]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
    assert result.stdout == f"3 pairs in {tmp_path / 'both'}\n"
    for one, other, both in zip(*(read(tmp_path / name) for name in ("a", "b", "both")), strict=True):
        assert both["scores"] == pytest.approx(ensemble([one["scores"], other["scores"]], "min-max"), abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []


def test_what_cannot_score_is_refused(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dense view"):
        load_teacher("none")
    with pytest.raises(UserError, match="no teacher"):
        score_pairs(pairs, tmp_path / "out", [])
    pairs.write_text('{"query": "q", "positive": "p"}\n{"query": "q"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"pairs\.jsonl:2: need a text under 'positive'"):
        score_pairs(pairs, tmp_path / "out", ["bm25"])


def test_ids_are_words_of_the_filter_language() -> None:
    assert passage_id('"quoted" or (in) \\') != passage_id("other")
    assert passage_id("x").isalnum()
