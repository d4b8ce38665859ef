"""`retriever diagnose` on a made-up corpus: what it scores, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from retriever.cli.main import cli
from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.eval.pairs.minimal_pairs import MinimalPair
from retriever.eval.pairs.scores import BiasScore
from retriever.experiments.diagnose import diagnose
from retriever.types import UserError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[2] / "data" / "tiny" / "corpus.jsonl"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_bm25_wins_where_words_count_and_does_not_hear_not(tmp_path: Path) -> None:
    result = invoke("diagnose", TINY, "--encoder", "none", "--output", tmp_path, "--json", "--quiet")
    assert result.exit_code == 0, (result.output, result.exception)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records == json.loads((tmp_path / "diagnostics.json").read_text())
    scores = {record["bias"]: record for record in records}
    assert {record["dataset"] for record in records} == {"corpus"} and {record["system"] for record in records} == {
        "bm25"
    }
    assert scores["answer"]["value"] > 0.9 and scores["not"]["value"] < 0.2
    assert all(record["low"] <= record["value"] <= record["high"] for record in records)
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == sum(record["pairs"] for record in records)


def test_the_table_has_a_column_for_each_mode(tiny_encoder_folder: Path) -> None:
    result = invoke("diagnose", TINY, "--encoder", tiny_encoder_folder, "--pairs", 3, "--quiet")
    assert result.exit_code == 0, (result.output, result.exception)
    header, first, *_ = result.stdout.splitlines()
    assert header.split() == ["bias", "pairs", "bm25", "sparse", "dense", "hybrid"]
    assert first.split()[:2] == ["answer", "3"]


def shares(scores: list[BiasScore], system: str) -> dict[str, float]:
    return {score.bias: score.value for score in scores if score.system == system}


def test_dense_and_sparse_compare_inner_products(tiny_encoder_folder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder_folder))
    assert isinstance(encoder, MoEEncoder)
    scores, pairs = diagnose(TINY, encoder, ["dense", "sparse"], pairs=8)

    def products(pair: MinimalPair) -> np.ndarray:
        query, texts = encoder.encode_queries([pair.query]), encoder.encode_documents([pair.preferred, pair.other])
        assert query.dense is not None and texts.dense is not None
        assert query.sparse is not None and texts.sparse is not None
        return np.array([texts.dense @ query.dense[0], (texts.sparse @ query.sparse.T).toarray()[:, 0]])

    for row, system in enumerate(("dense", "sparse")):
        for bias, value in shares(scores, system).items():
            found = [products(pair)[row] for pair in pairs if pair.bias == bias]
            wins = [float(one > other) + 0.5 * float(one == other) for one, other in found]
            assert value == pytest.approx(np.mean(wins)), (system, bias)


def test_hybrid_of_one_weighted_leg_is_that_leg(tiny_encoder_folder: Path) -> None:
    from retriever.search.fusion.fusion import FusionConfig

    encoder = load_encoder(str(tiny_encoder_folder))
    only_dense = FusionConfig(weights={"dense": 1.0})
    scores = diagnose(TINY, encoder, ["dense", "hybrid"], pairs=8, fusion=only_dense).scores
    assert shares(scores, "hybrid") == shares(scores, "dense")


def test_joined_legs_are_a_system(tiny_encoder_folder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder_folder))
    scores = diagnose(TINY, encoder, ["bm25", "bm25+dense"], pairs=8).scores
    assert shares(scores, "bm25").keys() == shares(scores, "bm25+dense").keys()
    assert shares(scores, "bm25") != shares(scores, "bm25+dense")


@pytest.mark.parametrize(
    ("modes", "message"),
    [("dense", "the encoder none has bm25"), ("bm25,splade", "mode 'splade'"), ("hybrid,bm25+dense", "bm25+dense")],
)
def test_a_mode_that_is_not_there(modes: str, message: str) -> None:
    result = invoke("diagnose", TINY, "--encoder", "none", "--modes", modes)
    assert result.exit_code == 1 and result.stdout == ""
    [line] = result.stderr.splitlines()
    assert message in line


def test_texts_without_sentences(tmp_path: Path) -> None:
    path = tmp_path / "short.jsonl"
    path.write_text('{"_id": "a", "text": "too short"}\n')
    with pytest.raises(UserError, match="no minimal pair can be made of its 1 documents; give"):
        diagnose(path, load_encoder("none"))
    path.write_text('{"_id": "a"}\n')
    with pytest.raises(UserError, match=r"short\.jsonl:1: no text"):
        diagnose(path, load_encoder("none"))
