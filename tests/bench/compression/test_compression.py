"""The bench of storage: what it plans, what it keeps, and what its figures say on the tiny data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix

from retriever.bench.compression.encoding_cache import cached_encoding
from retriever.bench.compression.plan import Storage, plan_storages, scale_of, storage_names
from retriever.bench.compression.vectors import bench_vectors, near_copies
from retriever.cli.main import cli
from retriever.encoder.base import EncoderBase
from retriever.eval.data.datasets import load_dataset
from retriever.index.vectors.row_formats import ROW_TYPES
from retriever.indexing.build import IndexingConfig
from retriever.search.leg import registered
from retriever.search.legs.bm25 import Bm25Leg
from retriever.types import Encoded, EncoderIdentity, UserError

pytestmark = pytest.mark.usefixtures("own_cache")

os.environ.setdefault("OMP_NUM_THREADS", "1")


class Stub(EncoderBase):
    """Counts the texts that it encodes; each has views that depend on it alone."""

    identity = EncoderIdentity("stub", "5" * 64, 4, 9)
    vocabulary = tuple("abcdefghi")
    encoded = 0

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        self.encoded += len(texts)
        counts = np.array([[text.count(letter) for letter in self.vocabulary] for text in texts], np.float32)
        return Encoded(counts[:, :4], csr_matrix(counts), np.array([len(text) > 90 for text in texts]), None)

    encode_queries = encode_documents


class TitleLeg(Bm25Leg):
    """A fourth leg, which the bench shows as it shows the others."""

    name = "title"
    colour = "#cc79a7"


def test_scales_by_bits() -> None:
    for bits in (4, 7, 8):
        scale = scale_of(f"{bits}bits", 2.1)
        assert round(2.1 * scale) <= 2**bits - 1 < 2.1 * (scale + 1)
    assert scale_of("60", 2.1) == 60
    for wrong in ("x", "0", "1bits", "bits"):
        with pytest.raises(UserError, match=f"impacts '{wrong}'"):
            scale_of(wrong, 2.1)


def test_plan() -> None:
    names = storage_names("float32,int8", "flat,hnsw", "100,4bits", "all,5")
    default = IndexingConfig()
    wanted = [
        Storage("float32", "flat", 100, None),
        Storage("float32", "hnsw", 100, None),
        Storage("int8", "flat", 100, None),
        Storage("int8", "hnsw", 100, None),
        Storage("float32", "flat", 5, None),
        Storage("float32", "flat", 100, 5),
        Storage(default.rows, "flat", default.impact_scale, default.max_terms),
    ]
    assert plan_storages(names, 3.0) == list(dict.fromkeys(wanted))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rows": "float33"}, "rows 'float33' is not known"),
        ({"dense_types": "annoy"}, "dense type 'annoy'"),
        ({"max_terms": "0"}, "max_terms 0"),
        ({"max_terms": "few"}, "write them as all,192,64"),
    ],
)
def test_names_that_an_index_does_not_know(wrong: dict[str, str], words: str) -> None:
    right = {"rows": "int8", "dense_types": "flat", "impacts": "60", "max_terms": "all"}
    with pytest.raises(UserError, match=words):
        storage_names(**(right | wrong))


def test_documents_are_encoded_once(
    tiny_corpus: Path, tiny_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, encoder = load_dataset(tiny_corpus.parent), Stub()
    first = cached_encoding(data, encoder)
    again = cached_encoding(data, encoder)
    assert encoder.encoded == len(tiny_texts) == len(again.doc_ids)
    corpus = [json.loads(line) for line in tiny_corpus.read_text(encoding="utf-8").splitlines()]
    texts = [f"{record.get('title', '')} {record['text']}".strip() for record in corpus][7::-2]
    wanted = Stub().encode_documents(texts)
    for kept in (first, again):
        found = kept.encode_documents(texts)
        assert found.dense is not None and found.sparse is not None and wanted.sparse is not None
        assert (found.dense == wanted.dense).all() and (found.truncated == wanted.truncated).all()
        assert (found.sparse.toarray() == wanted.sparse.toarray()).all() and found.tokens is None
    [file] = (tmp_path / "cache" / "retriever" / "encodings").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    cached_encoding(data, encoder)
    assert encoder.encoded == 2 * len(tiny_texts)
    monkeypatch.setattr("retriever.encoder.runtime.NUMERICS_VERSION", 0)
    cached_encoding(data, encoder)
    assert encoder.encoded == 3 * len(tiny_texts), "another version gives other numbers"
    with pytest.raises(KeyError):
        again.encode_documents(["another text"])


def test_figures_of_the_tiny_data_set(tiny_corpus: Path, tiny_encoder_folder: Path, tmp_path: Path) -> None:
    arguments = ["bench", "compression", str(tiny_corpus.parent), "--split", "test", "-e", str(tiny_encoder_folder)]
    arguments += ["--rows", "float32,int8", "--dense-types", "flat,hnsw", "--impacts", "1000,1", "--max-terms", "all,2"]
    with registered(TitleLeg):
        result = CliRunner().invoke(cli, [*arguments, "--vectors", "60", "-o", str(tmp_path / "out"), "-q", "--json"])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert [json.loads(line) for line in result.stdout.splitlines()] == [*written["indexes"], *written["vectors"]]
    exact, graph, small, _, coarse, few, default = written["indexes"]
    assert exact["dense_recall_10"] == exact["dense_recall_100"] == graph["dense_recall_100"] == 1
    assert exact["sparse_recall_100"] == 1 > coarse["sparse_recall_10"]
    # 32 dimensions; the rest of the row files are the ids.
    assert exact["rows_bytes"] - small["rows_bytes"] == 4 * 32 - (32 + 4)
    assert few["terms_bytes"] < coarse["terms_bytes"] < exact["terms_bytes"]
    assert graph["faiss_bytes"] > 0 == exact["faiss_bytes"] and few["texts_bytes"] == exact["texts_bytes"] > 0
    assert default["rows"] == IndexingConfig().rows
    # A leg that knows of no view has no exact search to be compared with.
    assert {name for name in exact if name.startswith("title_")} == {"title_qps", "title_ndcg"}
    assert {point["title_ndcg"] for point in written["indexes"]} == {exact["bm25_ndcg"]}
    assert all(0 < point["hybrid_ndcg"] <= 1 and point["build_seconds"] > 0 for point in written["indexes"])
    assert [(point["rows"], point["dense_type"]) for point in written["vectors"]] == [
        (rows, kind) for rows in ("float32", "int8") for kind in ("flat", "hnsw")
    ]
    report = (tmp_path / "out" / "compression.md").read_text(encoding="utf-8")
    assert (
        "| title q/s | title nDCG@10 |" in report
        and report.count("| int8 | hnsw |") == 2
        and "Storage of tiny (test" in report
    )


def test_an_encoder_without_a_view_is_refused(tiny_corpus: Path) -> None:
    result = CliRunner().invoke(cli, ["bench", "compression", str(tiny_corpus.parent), "--split", "test", "-e", "none"])
    assert result.exit_code == 1 and "has not both views" in result.output


def test_near_copies_and_their_recall() -> None:
    vectors = np.random.default_rng(5).standard_normal((40, 16), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copies = near_copies(vectors, 400)
    assert copies.shape == (400, 16) and np.linalg.norm(copies, axis=1) == pytest.approx(np.ones(400), abs=1e-5)
    closeness = (copies @ vectors.T).max(axis=1)
    assert (closeness > 0.9999).sum() == 40
    assert closeness.min() > 0.6 and np.median(closeness) == pytest.approx(0.9, abs=0.05)
    found = list(bench_vectors(copies, vectors[:5], list(ROW_TYPES), ["flat"]))
    assert [point.rows_bytes for point in found] == [64, 32, 20]
    assert found[0].recall_10 == found[0].recall_100 == 1 and found[2].recall_10 >= 0.9
