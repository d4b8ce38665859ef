"""The search bench: one small size through the real systems, and what its figures mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix, random_array

from retriever.bench.sample import perturbed, read_sample
from retriever.bench.search.report import speeds_of
from retriever.bench.search.search import BenchSearchConfig
from retriever.bench.search.task import Answers
from retriever.cli.main import cli
from retriever.encoder.base import EncoderBase
from retriever.index import FolderWriter, IndexSettings
from retriever.search.modes import CANDIDATES
from retriever.types import Document, Encoded, EncoderIdentity, UserError

ROWS, DIM, VOCAB = 40, 8, 50


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("sample") / "index"
    vectors = random.standard_normal((ROWS, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = csr_matrix(random_array((ROWS, VOCAB), density=0.3, rng=random, dtype=np.float32)) * np.float32(3)
    documents = [Document(f"d{row}", "some words of a text " * 4) for row in range(ROWS)]
    with FolderWriter.create(path, IndexSettings(EncoderIdentity("stub", "0" * 64, DIM, VOCAB))) as writer:
        writer.add(documents, Encoded(vectors, weights, np.zeros(ROWS, np.bool_), weights))
        writer.delete(["d3"])
        writer.commit()
    return path


def test_copies_are_like_the_sample_and_never_twice_the_same(index: Path) -> None:
    sample = read_sample(index)
    assert len(sample.texts) == ROWS - 1
    batches = list(perturbed(sample, 100, batch=30))
    documents = [document for batch in batches for document in batch.documents]
    assert [document.doc_id for document in documents] == [f"{number:08d}" for number in range(100)]
    assert 0.6 < np.mean([len(document.text.split()) / 20 for document in documents]) < 0.95
    vectors = np.concatenate([batch.encoded.dense for batch in batches if batch.encoded.dense is not None])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    nearest = (vectors @ sample.vectors.T).max(axis=1)
    assert 0.8 < nearest.mean() < 0.97
    assert len(np.unique(vectors.round(6), axis=0)) == 100
    again = list(perturbed(sample, 100, batch=30))
    assert [batch.documents for batch in again] == [batch.documents for batch in batches]


def test_an_index_without_all_legs_is_refused(tmp_path: Path) -> None:
    with FolderWriter.create(tmp_path / "index", IndexSettings(EncoderIdentity("none", "", 0, 0))) as writer:
        writer.add([Document("a", "bread")], None)
        writer.commit()
    with pytest.raises(UserError, match="has not all legs"):
        read_sample(tmp_path / "index")


def test_ratios_and_overlap() -> None:
    def answers(milliseconds: float, ids: str) -> list[Answers]:
        return [Answers([milliseconds] * 3, 0.5, [list(ids)] * 3)]

    speeds = {
        (speed.system, speed.leg): speed
        for speed in speeds_of(
            {
                ("retriever", "dense", CANDIDATES, 1): answers(2.0, "abcd"),
                ("retriever", "sparse", CANDIDATES, 1): answers(4.0, "abcd"),
                ("retriever", "two-step", CANDIDATES, 1): answers(9.0, "abcd"),
                ("retriever", "hybrid", 10, 1): answers(5.0, "abcd"),
                ("faiss", "flat", CANDIDATES, 1): answers(1.0, "abce"),
                ("faiss", "hnsw", CANDIDATES, 1): answers(3.0, "efgh"),
            }
        )
    }
    assert speeds["retriever", "hybrid"].ratio == 1.25  # of the slowest leg
    assert speeds["faiss", "hnsw"].ratio == 1.5  # of our dense leg
    assert speeds["faiss", "hnsw"].overlap == 0.25
    assert speeds["retriever", "dense"].overlap == 0.75
    assert speeds["retriever", "sparse"].overlap is None  # nothing exact was measured
    assert speeds["retriever", "sparse"].per_second == 6.0


@pytest.mark.parametrize("fault", [{"sizes": (0,)}, {"systems": ("solr",)}, {"top_k": ()}])
def test_bad_settings_are_refused(fault: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(UserError):
        BenchSearchConfig(**fault)  # type: ignore[arg-type]


def test_the_command_measures_keeps_and_does_not_measure_again(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Known(EncoderBase):
        identity = EncoderIdentity("stub", "0" * 64, DIM, VOCAB)
        vocabulary = tuple(map(str, range(VOCAB)))

        def encode_queries(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
            random = np.random.default_rng(len(texts))
            weights = csr_matrix(random_array((len(texts), VOCAB), density=0.4, rng=random, dtype=np.float32))
            vectors = random.standard_normal((len(texts), DIM), dtype=np.float32)
            return Encoded(vectors, weights, np.zeros(len(texts), np.bool_))

        encode_documents = encode_queries

    # The encoder of a made-up index cannot be loaded; what is tested comes after the queries are encoded.
    monkeypatch.setattr("retriever.search.opened.open_index.load_index_encoder", lambda *_, **__: Known())
    queries = tmp_path / "queries.tsv"
    queries.write_text("".join(f"q{number}\tsome words number {number}\n" for number in range(4)))
    arguments = [
        "bench",
        "search",
        str(index),
        "--queries",
        str(queries),
        "--sizes",
        "120",
        "-o",
        str(tmp_path / "out"),
    ]
    arguments += ["--systems", "retriever,faiss", "--top-k", "10,1000", "--threads", "1,2", "--quiet"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    [record] = json.loads((tmp_path / "out" / "bench-search.json").read_text())["sizes"]
    assert record["documents"] == 120 and record["noise_of"] == ROWS - 1
    assert result.stdout.startswith("120 documents, copies of 39 with noise")
    assert record["built"]["retriever"]["private_mib"] > 50
    assert record["built"]["retriever"]["size_bytes"] > 0
    legs = {(speed["system"], speed["leg"], speed["top_k"], speed["threads"]) for speed in record["speeds"]}
    ours = {
        ("retriever", leg, k, t)
        for leg in ("bm25", "sparse", "lucene", "two-step", "dense")
        for k in (10, 1000)
        for t in (1, 2)
    }
    theirs = {("faiss", leg, k, t) for leg in ("flat", "hnsw") for k in (10, 1000) for t in (1, 2)}
    assert legs == ours | theirs | {("retriever", "hybrid", 10, threads) for threads in (1, 2)}
    exact = next(s for s in record["speeds"] if (s["system"], s["leg"], s["top_k"]) == ("retriever", "dense", 10))
    assert exact["overlap"] == 1.0  # the flat legs of both saw the same vectors
    assert not list((tmp_path / "out").glob("bench-120"))
    again = CliRunner().invoke(cli, arguments)
    assert again.exit_code == 0
    assert again.stdout == result.stdout
    other = CliRunner().invoke(cli, [*arguments, "--threads", "1"])
    assert other.exit_code == 1
    assert "choose another --output" in other.output
    assert "hybrid" in (tmp_path / "out" / "bench-search.md").read_text()
