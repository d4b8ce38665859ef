from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import pytest
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

from retriever import ExperimentConfig, evaluate, load_dataset
from retriever.encoder.load import load_encoder
from retriever.integrations.mteb import MtebEncoder, MtebSearch
from retriever.types import UserError

pytestmark = [pytest.mark.filterwarnings("ignore:::mteb"), pytest.mark.filterwarnings("ignore:::torch")]
TINY = Path(__file__).parents[1] / "data" / "tiny"


class Prompt(StrEnum):
    """As mteb has it."""

    query = "query"
    document = "document"


@pytest.fixture(scope="module")
def encoder(tiny_encoder_folder: Path) -> MtebEncoder:
    return MtebEncoder(str(tiny_encoder_folder), None, device="cpu")


def test_batches_are_encoded_by_their_kind(
    encoder: MtebEncoder, tiny_encoder_folder: Path, tiny_texts: list[str]
) -> None:
    batches = [{"text": tiny_texts[:7], "body": ["not this"] * 7}, {"text": tiny_texts[7:]}]
    where: dict[str, Any] = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    ours = load_encoder(str(tiny_encoder_folder))
    queries = encoder.encode(batches, prompt_type=Prompt.query, batch_size=3, **where)
    np.testing.assert_array_equal(queries, ours.encode_queries(tiny_texts).dense)
    for prompt in (Prompt.document, None):
        documents = encoder.encode(iter(batches), prompt_type=prompt, **where)
        np.testing.assert_array_equal(documents, ours.encode_documents(tiny_texts).dense)


def test_similarities(encoder: MtebEncoder) -> None:
    left, right = np.eye(3, 4, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in right.tolist()] for x in left.tolist()]
    assert encoder.similarity(left, right).tolist() == expected
    assert encoder.similarity(left[0], right).tolist() == expected[:1]
    assert encoder.similarity_pairwise(left, right).tolist() == [row[i] for i, row in enumerate(expected)]


def test_an_encoder_without_a_dense_view() -> None:
    with pytest.raises(UserError, match="none: has no dense view"):
        MtebEncoder("none")


def test_mteb_takes_it(encoder: MtebEncoder) -> None:
    assert isinstance(encoder, EncoderProtocol) and not isinstance(encoder, SearchProtocol)
    assert encoder.mteb_model_meta.embed_dim == encoder.encoder.identity.dense_dim
    assert encoder.mteb_model_meta.revision == encoder.encoder.identity.sha256[:12]


class TinyRetrieval(AbsTaskRetrieval):
    """The tiny data set as a task."""

    metadata = TaskMetadata(
        name="TinyRetrieval",
        description="Made by hand",
        dataset={"path": "local", "revision": "1"},
        type="Retrieval",
        category="t2t",
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        reference=None,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        if self.data_loaded:
            return
        data = load_dataset(TINY)
        lines = Path(data.corpus).read_text(encoding="utf-8").splitlines()
        corpus = [{"id": r["_id"], "title": r["title"], "text": r["text"]} for r in map(json.loads, lines)]
        queries = [{"id": query.query_id, "text": query.text} for query in data.queries]
        split: Any = {
            "corpus": datasets.Dataset.from_list(corpus),
            "queries": datasets.Dataset.from_list(queries),
            "relevant_docs": data.qrels,
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


@pytest.mark.lucene
def test_mteb_measures_the_hybrid_as_we_do(tiny_encoder_folder: Path, tmp_path: Path) -> None:
    means = {}
    for mode in ("bm25", "hybrid"):
        model = MtebSearch(str(tiny_encoder_folder), mode=mode)
        assert isinstance(model, SearchProtocol)
        result = mteb.evaluate(model, TinyRetrieval(), cache=None, co2_tracker=False, show_progress_bar=False)
        model.close()
        means[mode] = result.task_results[0].get_score()
        assert model.mteb_model_meta.name == f"retriever/encoder-{mode}"
    ours = evaluate(TINY, str(tiny_encoder_folder), config=ExperimentConfig(modes=("bm25", "hybrid")))
    assert means == pytest.approx({mode: found.mean["nDCG@10"] for mode, found in ours.items()}, abs=1e-5)


def test_what_mteb_cannot_ask_for() -> None:
    with pytest.raises(UserError, match="give a retrieval task"):
        MtebSearch("none", mode="bm25").search([{"id": "q", "text": "t"}], top_k=3, top_ranked={"q": ["d"]})
    with pytest.raises(UserError, match="mode"):
        MtebSearch("none", mode="bm52")
