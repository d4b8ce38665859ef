"""Rerankers against sentence-transformers' own `rank`, and the pairwise stage against its sum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retriever.indexing.build import IndexingConfig, build_index
from retriever.rank import Duo, Pipeline, Rerank
from retriever.search.retriever import Retriever
from retriever.testing import SeededEncoder
from retriever.types import Document, UserError

from ..conftest import Parent

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cross_encoder(tiny_parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a random cross-encoder of two layers."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("cross-encoder")
    config = tiny_parent.model.config.__class__(**tiny_parent.model.config.to_dict() | {"num_labels": 1})
    torch.manual_seed(3)
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.mul_(40)
    model.save_pretrained(folder)
    tiny_parent.tokenizer.save_pretrained(folder)
    CrossEncoder(str(folder)).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def model(cross_encoder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(cross_encoder))


@pytest.fixture(scope="module")
def words(tiny_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "index"
    documents = [Document(f"d{n}", text, f"title {n}") for n, text in enumerate(tiny_texts)]
    build_index(documents, folder, encoder=SeededEncoder())
    return folder


def test_a_cross_encoder_ranks_as_its_own_rank(words: Path, cross_encoder: Path, model: Any) -> None:
    query = "how do vaccines work"
    pipeline = Pipeline.parse(f"hybrid > rerank(cross-encoder:{cross_encoder}, depth=12)")
    with Retriever.open(words, SeededEncoder()) as retriever:
        plain = retriever.search(query, 20)
        hits = retriever.search(query, 20, pipeline=pipeline)
    texts = [f"{hit.title} {hit.text}" for hit in plain[:12]]
    theirs = model.rank(query, texts)
    assert [hit.doc_id for hit in hits[:12]] == [plain[one["corpus_id"]].doc_id for one in theirs]
    assert [hit.score for hit in hits[:12]] == pytest.approx([float(one["score"]) for one in theirs], abs=1e-5)
    assert len({round(hit.score, 6) for hit in hits[:12]}) > 6
    assert [hit.doc_id for hit in hits[12:]] == [hit.doc_id for hit in plain[12:]]


def test_weight_blends_both_scores(words: Path, cross_encoder: Path, model: Any) -> None:
    query = "rivers and rain"
    pipeline = Pipeline(stages=(Rerank(f"cross-encoder:{cross_encoder}", depth=10, weight=0.3),))
    with Retriever.open(words, SeededEncoder()) as retriever:
        plain = retriever.search(query, 10)
        hits = retriever.search(query, 10, pipeline=pipeline)
    own = model.predict([(query, f"{hit.title} {hit.text}") for hit in plain])
    old = np.array([hit.score for hit in plain])
    wanted = 0.3 * (own - own.min()) / (own.max() - own.min()) + 0.7 * (old - old.min()) / (old.max() - old.min())
    by_id = dict(zip([hit.doc_id for hit in plain], wanted.tolist(), strict=True))
    assert [hit.score for hit in hits] == pytest.approx(sorted(by_id.values(), reverse=True), abs=1e-5)
    assert {hit.doc_id: pytest.approx(hit.score, abs=1e-5) for hit in hits} == by_id


def test_each_pair_is_compared_both_ways(words: Path, cross_encoder: Path, model: Any) -> None:
    import torch

    query = "trees"
    with Retriever.open(words, SeededEncoder()) as retriever:
        plain = retriever.search(query, 4)
        hits = retriever.search(query, 4, pipeline=Pipeline(stages=(Duo(f"cross-encoder:{cross_encoder}", depth=4),)))
    texts = [f"{hit.title} {hit.text}" for hit in plain]

    def better(one: int, other: int) -> float:
        pair = (query, f"{texts[one]} [SEP] {texts[other]}")
        return float(model.predict([pair], activation_fn=torch.nn.Sigmoid())[0])

    sums = {plain[i].doc_id: sum(better(i, j) + 1 - better(j, i) for j in range(4) if j != i) for i in range(4)}
    assert {hit.doc_id: pytest.approx(hit.score, abs=1e-4) for hit in hits} == sums
    assert [hit.doc_id for hit in hits] == sorted(sums, key=lambda doc_id: -sums[doc_id])


def test_a_trained_cross_encoder_brings_what_it_learnt(words: Path, cross_encoder: Path, tmp_path: Path) -> None:
    """Some steps of training are enough to tell texts that begin with a letter of the first half of the alphabet."""
    import torch
    from sentence_transformers import CrossEncoder

    with Retriever.open(words, SeededEncoder()) as retriever:
        query = "a question"
        texts = {hit.doc_id: f"{hit.title} {hit.text}" for hit in retriever.search(query, 20)}
        model = CrossEncoder(str(cross_encoder))
        wanted = {doc_id: float(n % 2) for n, doc_id in enumerate(sorted(texts))}
        features = model.tokenizer(
            [(query, texts[d]) for d in wanted], padding=True, truncation=True, return_tensors="pt"
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        labels = torch.tensor([[value] for value in wanted.values()])
        for _ in range(40):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                model(dict(features))["scores"].view(-1, 1), labels
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.save_pretrained(str(tmp_path / "trained"))
        pipeline = Pipeline(stages=(Rerank(f"cross-encoder:{tmp_path / 'trained'}", depth=20),))
        hits = retriever.search(query, 20, pipeline=pipeline)
    found = [wanted[hit.doc_id] for hit in hits]
    assert sum(found[:10]) >= 9


def test_a_split_document_shows_its_best_chunk(tmp_path: Path) -> None:
    long = "Rain falls on the hills. " * 30 + "Bread is made of flour. " * 30
    build_index(
        [Document("long", long, "Weather"), Document("short", "Bread and butter.")],
        tmp_path / "index",
        encoder=SeededEncoder(),
        config=IndexingConfig(chunk=True, chunk_tokens=20, chunk_overlap=0),
    )
    seen: list[str] = []

    def note(query: str, texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return [float(len(text)) for text in texts]

    with Retriever.open(tmp_path / "index", SeededEncoder()) as retriever:
        hits = retriever.search("flour", 2, pipeline=Pipeline("bm25", (Rerank(note),)))
        assert [hit.doc_id for hit in hits] == ["long"]
    assert len(seen) == 1 and seen[0].startswith("Weather") and "flour" in seen[0] and len(seen[0]) < 300


def test_models_that_cannot_be_used(words: Path, tmp_path: Path) -> None:
    with Retriever.open(words, SeededEncoder()) as retriever:
        for scorer, said in (
            (f"cross-encoder:{tmp_path / 'nothing'}", "cannot be loaded"),
            (lambda query, texts: [1.0], "gave 1 scores for"),
        ):
            with pytest.raises(UserError, match=said):
                retriever.search("trees", pipeline=Pipeline(stages=(Rerank(scorer),)))
