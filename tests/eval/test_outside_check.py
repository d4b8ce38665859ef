"""The whole way from texts to a figure, beside another library's: sentence-transformers' own evaluator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from retriever.eval.data.datasets import load_dataset
from retriever.experiments.experiment import ExperimentConfig, evaluate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss
TINY = Path(__file__).parents[1] / "data" / "tiny"


def outside(folder: Path, model_folder: Path) -> float:
    """Return nDCG@10 as InformationRetrievalEvaluator computes it; its gains are binary."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    data = load_dataset(folder)
    with Path(data.corpus).open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    texts = {record["_id"]: f"{record.get('title', '')} {record['text']}".strip() for record in records}
    evaluator = InformationRetrievalEvaluator(
        queries={query.query_id: query.text for query in data.queries},
        corpus={doc_id: text for doc_id, text in texts.items() if text},  # a text without words has no vector of ours
        relevant_docs={
            query_id: {doc_id for doc_id, grade in grades.items() if grade > 0}
            for query_id, grades in data.qrels.items()
        },
        ndcg_at_k=[10],
        show_progress_bar=False,
        write_csv=False,
    )
    found: dict[str, float] = evaluator(SentenceTransformer(str(model_folder), device="cpu"))
    [value] = [value for name, value in found.items() if name.endswith("cosine_ndcg@10")]
    return value


def test_dense_ndcg_is_that_of_sentence_transformers(
    tiny_parent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_parent.model.save_pretrained(tmp_path / "base")
    tiny_parent.tokenizer.save_pretrained(tmp_path / "base")
    modules = [Transformer(str(tmp_path / "base")), Pooling(32, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    binary = tmp_path / "binary"
    shutil.copytree(TINY, binary)
    qrels = binary / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text().replace("\t2\n", "\t1\n"))
    corpus = binary / "corpus.jsonl"  # less the text in scripts that the tokeniser cannot read, which ours leaves out
    corpus.write_text("".join(line for line in corpus.read_text().splitlines(True) if '"d19"' not in line))
    ours = evaluate(binary, f"st:{tmp_path / 'model'}", config=ExperimentConfig(modes=("dense",)))["dense"].mean[
        "nDCG@10"
    ]
    assert 0 < ours < 1, "a random model ranks neither perfectly nor never right"
    assert ours == pytest.approx(outside(binary, tmp_path / "model"), abs=1e-4)
