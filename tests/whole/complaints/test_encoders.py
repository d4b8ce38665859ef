"""Complaints of encoders that do not say what they say in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from tests.helpers.complaints import WORDS, call

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing torch and faiss


def test_32_a_router_without_inference_on_queries_equals_sentence_transformers(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"word{n}" for n in range(30))]
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokens), initializer_range=0.5, **sizes))
    model.cls.predictions.bias.data.fill_(-2.0)
    model.save_pretrained(tmp_path / "base")
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(tmp_path / "base")
    documents = [Transformer(str(tmp_path / "base"), transformer_task="fill-mask"), SpladePooling("max")]
    table = torch.linspace(0.1, 2.0, len(tokens))
    queries = SparseStaticEmbedding(tokenizer=documents[0].tokenizer, weight=table)
    router = Router.for_query_document(query_modules=[queries], document_modules=documents)
    SparseEncoder(modules=[router], device="cpu").save(str(tmp_path / "router"), create_model_card=False)

    texts = ["river stone river", "bread", "paper garden winter stone", "unknown"]
    ours, theirs = load_encoder(f"st:+{tmp_path / 'router'}"), SparseEncoder(str(tmp_path / "router"), device="cpu")
    for found, expected in (
        (ours.encode_queries(texts).sparse, theirs.encode_query(texts)),
        (ours.encode_documents(texts).sparse, theirs.encode_document(texts)),
    ):
        assert found is not None and found.nnz
        np.testing.assert_allclose(found.toarray(), expected.to_dense().numpy(), atol=1e-5)
    query, text = ours.encode_queries(texts[:1]).sparse, ours.encode_documents(texts[:1]).sparse
    assert query is not None and text is not None and abs(query - text).max() > 0.01, "two paths"


def test_33_exported_views_equal_ours_term_for_term(
    tiny_encoder_folder: Path, tiny_texts: list[str], tmp_path: Path
) -> None:
    ours = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision="float32"))
    for view in ("dense", "sparse"):
        called = call("export", tiny_encoder_folder, "--view", view, "--output", tmp_path / view)
        assert called.exit_code == 0, called.output
    sparse = SparseEncoder(str(tmp_path / "sparse"), trust_remote_code=True)
    dense = SentenceTransformer(str(tmp_path / "dense"), trust_remote_code=True)
    for mine, terms, vectors in (
        (ours.encode_queries(tiny_texts), sparse.encode_query(tiny_texts), dense.encode_query(tiny_texts)),
        (ours.encode_documents(tiny_texts), sparse.encode_document(tiny_texts), dense.encode_document(tiny_texts)),
    ):
        assert mine.sparse is not None and mine.sparse.nnz
        for row, theirs in zip(mine.sparse.toarray(), sparse.decode(terms), strict=True):
            weights = {ours.vocabulary[int(i)]: float(row[i]) for i in np.flatnonzero(row)}
            assert dict(theirs) == pytest.approx(weights, abs=1e-5)  # type: ignore[arg-type]
        assert mine.dense is not None
        np.testing.assert_allclose(vectors, mine.dense, atol=1e-5)
