"""Published figures and real oddities on the data sets that the variable RETRIEVER_DATA leads to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from retriever.encoder.load import load_encoder
from retriever.eval.data.datasets import load_dataset
from retriever.experiments.experiment import ExperimentConfig, evaluate
from retriever.index.lucene.jvm import start_jvm
from retriever.indexing.build import build_index
from retriever.search.retriever import Retriever

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytestmark = pytest.mark.filterwarnings("ignore")  # importing pyserini brings torch, sklearn and their warnings


@pytest.fixture(scope="module")
def data() -> Path:
    if "RETRIEVER_DATA" not in os.environ:
        pytest.skip("RETRIEVER_DATA does not name the folder of real data")
    return Path(os.environ["RETRIEVER_DATA"]) / "eval"


@pytest.fixture(scope="module")
def nfcorpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nfcorpus") / "index"
    assert build_index(data / "nfcorpus", folder, encoder=load_encoder("none")).documents == 3_633
    return folder


def test_bm25_on_nfcorpus_has_the_published_figures(data: Path, nfcorpus: Path) -> None:
    """Anserini's "flat" regression: title and text as one field, k1 0.9, b 0.4."""
    [result] = evaluate(data / "nfcorpus", "none", folder=nfcorpus, config=ExperimentConfig(modes=("bm25",))).values()
    assert {name: round(value, 4) for name, value in result.mean.items()} == {"nDCG@10": 0.3218, "R@100": 0.2457}
    assert result.queries_judged == 323


def test_an_index_of_nfcorpus_is_one_of_pyserinis(data: Path, nfcorpus: Path) -> None:
    start_jvm()
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # pyserini makes an OpenAI client when it is imported
    from pyserini.search.lucene import LuceneSearcher

    searcher: Any = LuceneSearcher(str(nfcorpus / "lucene"))
    searcher.set_bm25(0.9, 0.4)
    with Retriever.open(nfcorpus) as retriever:
        for query in load_dataset(data / "nfcorpus").queries[:20]:
            theirs = [(hit.docid, hit.score) for hit in searcher.search(query.text, k=10)]
            ours = [(hit.doc_id, hit.score) for hit in retriever.search(query.text, 10, mode="bm25")]
            assert [doc_id for doc_id, _ in ours] == [doc_id for doc_id, _ in theirs]
            assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)


def test_the_empty_documents_of_cranfield(data: Path, tmp_path: Path, tiny_encoder_folder: Path) -> None:
    with (data / "cranfield" / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    empty = {record["_id"] for record in records if not (record.get("title", "") + record["text"]).strip()}
    assert len(empty) == 2
    report = build_index(data / "cranfield", tmp_path / "index", encoder=load_encoder(str(tiny_encoder_folder)))
    assert (report.documents, report.empty) == (len(records), 2)
    with Retriever.open(tmp_path / "index") as retriever:
        assert {doc.doc_id: doc.text.strip() for doc in retriever.reader.documents(empty).values()} == dict.fromkeys(
            empty, ""
        )
        for mode in ("hybrid", "bm25", "sparse", "dense"):
            for query in ("boundary layer flow", "heat transfer"):
                found = {hit.doc_id for hit in retriever.search(query, 2_000, mode=mode)}
                assert found and not found & empty
        assert len(retriever.search("heat transfer", 2_000, mode="dense")) == len(records) - 2
