"""A data set through the whole system: cached once, measured as its run files measure."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix

from retriever.cli import cli
from retriever.encoder import load_encoder
from retriever.experiment import cache_folder, evaluate_dataset
from retriever.index import FolderReader
from retriever.indexing import IndexingConfig, build_index, interrupted
from retriever.types import Encoded, EncoderIdentity, UserError

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[1] / "data" / "tiny"
LETTERS = 26


class Letters:
    """Counts letters, which is enough to rank by; `limit` texts are encoded before it fails."""

    def __init__(self, sha: str = "a", limit: int = 1_000) -> None:
        self.identity = EncoderIdentity("letters", sha * 64, LETTERS, LETTERS)
        self.vocabulary: Sequence[str] = [chr(97 + i) for i in range(LETTERS)]
        self.texts, self._limit = 0, limit

    def encode_documents(self, texts: Sequence[str]) -> Encoded:
        self.texts += len(texts)
        if self.texts > self._limit:
            raise RuntimeError("stopped")
        counts = np.array([[text.lower().count(letter) for letter in self.vocabulary] for text in texts], np.float32)
        dense = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
        return Encoded(dense, csr_matrix(counts / 10), np.zeros(len(texts), bool))

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        return Letters().encode_documents(texts)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "retriever" / "indexes"
    return cache_folder()


def test_nothing_is_encoded_twice(cache: Path, tmp_path: Path) -> None:
    encoder = Letters()
    first = evaluate_dataset(TINY, encoder)
    assert encoder.texts == 20
    assert list(first) == ["bm25", "sparse", "dense", "hybrid"]
    judged = {line.split("\t")[0] for line in (TINY / "qrels" / "test.tsv").read_text().splitlines()[1:]}
    for result in first.values():
        assert result.queries_judged == len(judged) and list(result.mean) == ["nDCG@10", "R@100"]
    assert evaluate_dataset(TINY, encoder) == first
    evaluate_dataset(TINY, encoder, split="dev", modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (20, 1)
    evaluate_dataset(TINY, Letters("b"), modes=["dense"])
    assert len(list(cache.iterdir())) == 2, "another encoder has an index of its own"
    copy = tmp_path / "tiny"
    shutil.copytree(TINY, copy)
    evaluate_dataset(copy, encoder, modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (20, 2), "the same documents in another place are the same"
    with (copy / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d99", "text": "one more"}\n')
    evaluate_dataset(copy, encoder, modes=["dense"])
    assert (encoder.texts, len(list(cache.iterdir()))) == (41, 3), "another corpus has one, too"


def test_a_folder_of_the_users_own(cache: Path, tmp_path: Path) -> None:
    encoder, folder = Letters(), tmp_path / "deep" / "index"
    assert evaluate_dataset(TINY, encoder, folder=folder) == evaluate_dataset(TINY, Letters())
    evaluate_dataset(TINY, encoder, folder=folder)
    assert encoder.texts == 20 and len(list(cache.iterdir())) == 1
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        evaluate_dataset(TINY, encoder, folder=tmp_path / "full")


@pytest.mark.parametrize("committed", [0, 8])
def test_an_interrupted_index_is_finished_before_it_is_measured(tmp_path: Path, committed: int) -> None:
    folder = tmp_path / "index"
    with pytest.raises(RuntimeError):
        build_index(TINY, folder, Letters(limit=committed + 2), IndexingConfig(batch=4, commit_every_documents=8))
    assert interrupted(folder)
    encoder = Letters()
    assert evaluate_dataset(TINY, encoder, folder=folder) == evaluate_dataset(TINY, Letters())
    assert encoder.texts == 20 - committed
    with FolderReader.open(folder) as reader:
        assert reader.num_documents == 20


def test_runs_measure_the_same(tmp_path: Path) -> None:
    measures = ("nDCG@10", "R@100", "AP")
    results = evaluate_dataset(TINY, Letters(), output=tmp_path / "runs", measures=measures, top_k=15)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        *(f"tiny-test-{mode}.trec" for mode in results),
        "results.json",
        "per-query.parquet",
    }
    for mode, result in results.items():
        path = tmp_path / "runs" / f"tiny-test-{mode}.trec"
        options = [option for measure in measures for option in ("-m", measure)]
        called = CliRunner().invoke(
            cli, ["evaluate", str(path), str(TINY / "qrels" / "test.tsv"), *options, "--json", "--per-query"]
        )
        *queries, mean = map(json.loads, called.stdout.splitlines())
        assert mean["mean"] == result.mean
        assert {line["query_id"]: {name: line[name] for name in measures} for line in queries} == result.per_query
        lines = [line.split() for line in path.read_text().splitlines()]
        assert all(line[5] == f"retriever-{mode}" and int(line[3]) <= 15 for line in lines)
        assert max(int(line[3]) for line in lines) == 15 or mode == "bm25"


def test_faults(tmp_path: Path) -> None:
    for modes in (["bm52"], ["bm25", "bm52"], []):
        with pytest.raises(UserError, match="hybrid, bm25, sparse, dense"):
            evaluate_dataset(TINY, Letters(), modes=modes)
    with pytest.raises(UserError, match="no sparse leg"):
        evaluate_dataset(TINY, load_encoder("none"), modes=["sparse"])
    with pytest.raises(UserError, match="no split"):
        evaluate_dataset(TINY, Letters(), split="train")
    encoder, folder = Letters(), tmp_path / "index"
    with pytest.raises(UserError, match="nDGC@10"):
        evaluate_dataset(TINY, encoder, folder=folder, measures=["nDGC@10"])
    assert encoder.texts == 0 and not folder.exists(), "refused before the work"
    evaluate_dataset(TINY, Letters("a"), folder=folder, modes=["bm25"])
    with pytest.raises(UserError, match="--encoder"):
        evaluate_dataset(TINY, Letters("b"), folder=folder, modes=["dense"])


def test_the_index_of_another_corpus_is_not_measured(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "changed")
    corpus = tmp_path / "changed" / "corpus.jsonl"
    encoder = load_encoder("none")
    evaluate_dataset(tmp_path / "changed", encoder, folder=tmp_path / "index", modes=["bm25"])
    corpus.write_text(corpus.read_text(encoding="utf-8").replace("bread", "cake"), encoding="utf-8")
    with pytest.raises(UserError, match="not the index of"):
        evaluate_dataset(tmp_path / "changed", encoder, folder=tmp_path / "index", modes=["bm25"])
