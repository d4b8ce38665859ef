"""Encoders with SentencePiece vocabularies, made of a tiny XLM-RoBERTa: against transformers, and end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from retriever import IndexingConfig, Query, Retriever, build_index
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.folder import save_encoder
from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint
from retriever.network.vocabulary import allowed, stems, zipf_fractions
from retriever.train.data.examples import SourceConfig
from retriever.train.loop import train
from retriever.train.settings import TrainConfig
from retriever.types import Document
from tests.helpers.multilingual import POSITIONS, SENTENCES

if TYPE_CHECKING:
    from retriever.types import FloatArray


@pytest.fixture(scope="module")
def folder(tiny_multilingual: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the encoder that `retriever upcycle` makes of it, in float32."""
    model, tokenizer, *_ = upcycle_checkpoint(str(tiny_multilingual), UpcycleConfig(router_std=0.5))
    target = tmp_path_factory.mktemp("upcycled") / "encoder"
    return save_encoder(model, tokenizer, target, "float32", languages=["de", "en", "ja"])


@pytest.fixture(scope="module")
def encoder(folder: Path) -> MoEEncoder:
    return MoEEncoder(folder, runtime=RuntimeConfig(precision="float32"))


def parents_vectors(folder: Path, prompt: str) -> FloatArray:
    """Return the mean of the last hidden states of each sentence alone, of unit length, by transformers."""
    from transformers import AutoTokenizer, XLMRobertaModel

    model, tokenizer = XLMRobertaModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in SENTENCES:
        read = tokenizer(prompt + text, truncation=True, max_length=POSITIONS, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**read).last_hidden_state[0].mean(0))
    vectors: FloatArray = torch.nn.functional.normalize(torch.stack(rows), dim=-1).numpy()
    return vectors


def test_vectors_equal_those_of_transformers_with_the_prompts(encoder: MoEEncoder, tiny_multilingual: Path) -> None:
    assert encoder.config.max_length == encoder.config.max_position_embeddings == POSITIONS
    for encode, prompt in ((encoder.encode_documents, "passage: "), (encoder.encode_queries, "query: ")):
        found = encode(SENTENCES)
        assert found.dense is not None and found.unread is not None and 4 <= found.unread.sum() < len(SENTENCES)
        expected = parents_vectors(tiny_multilingual, prompt) * ~found.unread[:, None]
        np.testing.assert_allclose(found.dense, expected, atol=1e-5)


def test_the_sparse_view_is_the_words_of_the_text_without_the_prompt(encoder: MoEEncoder) -> None:
    for encode in (encoder.encode_documents, encoder.encode_queries):
        found = encode(["Häuser am Fluss"]).sparse
        assert found is not None
        tokens = encoder.lexicon.tokenizer.encode("Häuser am Fluss", add_special_tokens=False).tokens
        assert {encoder.vocabulary[int(term)].lower() for term in found.indices} == {*map(str.lower, tokens)} - {"▁"}


def test_capitals_do_not_matter(encoder: MoEEncoder) -> None:
    small, large = (encoder.encode_queries([text]).sparse for text in ("the river", "The river"))
    assert small is not None and large is not None
    assert (small.toarray() == large.toarray()).all()


def test_the_card_goes_with_the_encoder(folder: Path, encoder: MoEEncoder) -> None:
    assert encoder.lexicon.languages == frozenset(("de", "en", "ja"))
    spanish = " ".join([SENTENCES[4]] * 2)
    unread = encoder.encode_documents([SENTENCES[0] + SENTENCES[1], spanish]).unread
    assert unread is not None and unread.tolist() == [False, True]


def test_expansions_are_off_until_they_are_asked_for(tiny_multilingual: Path, folder: Path, tmp_path: Path) -> None:
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["max_terms"] == 0
    model, tokenizer, *_ = upcycle_checkpoint(str(tiny_multilingual), UpcycleConfig(max_terms=20, logit_bias=0.0))
    more = MoEEncoder(save_encoder(model, tokenizer, tmp_path / "more", "float32"))
    few, many = (one.encode_documents(SENTENCES).sparse for one in (MoEEncoder(folder), more))
    assert few is not None and many is not None
    assert many.nnz > few.nnz
    assert (many - few).toarray().min() > -1e-6


def test_words_of_every_script_are_found_in_the_text(encoder: MoEEncoder) -> None:
    text = "Die Häuser, am Fluss.\n川沿いの家 แม่น้ำ"
    spans = {text[start:end] for _, start, end in encoder.term_spans(text)}
    assert {"Die", "Häuser", "Fluss"} <= spans
    longest = max(len(span) for span in spans if span[0] > "\u0e00")
    assert longest < len("川沿いの家")
    assert all(span.strip() == span for span in spans)


def test_terms_of_a_vocabulary_that_marks_beginnings() -> None:
    terms = ["<s>", "▁", "▁the", ",", "▁The", "the", "s", "▁THE", "▁haus", "▁Haus"]
    assert stems(terms) == [0, 1, 2, 3, 2, 5, 6, 2, 8, 8]
    assert allowed(terms, {0}).tolist() == [False, False, *[True] * 8]
    fractions = zipf_fractions(terms)
    assert (fractions[1:-1] >= fractions[2:]).all()


@pytest.mark.lucene
def test_trained_expansions_are_impacts_postings_and_explained(tiny_multilingual: Path, tmp_path: Path) -> None:
    """Three steps of training, then an index: what the sparse leg finds and explains is the product of the views."""
    pairs = tmp_path / "pairs.jsonl"
    words = [text.split()[:4] for text in SENTENCES]
    lines = [json.dumps({"query": " ".join(w), "positive": t}) for w, t in zip(words, SENTENCES, strict=True)]
    pairs.write_text("\n".join(lines * 4), encoding="utf-8")
    config = TrainConfig(
        base=str(tiny_multilingual),
        output=str(tmp_path / "encoder"),
        sources=(SourceConfig(str(pairs)),),
        upcycle={"moe_layers": (1,), "max_terms": 40, "logit_scale": 0.05, "logit_bias": 0.2},
        steps=3,
        batch=4,
        query_tokens=16,
        document_tokens=32,
        matryoshka_dims=(16,),
        storage="float32",
    )
    encoder = MoEEncoder(Path(train(config, progress=False)), runtime=RuntimeConfig(precision="float32"))
    documents = [Document(f"d{number}", text) for number, text in enumerate(SENTENCES)]
    build_index(documents, tmp_path / "index", encoder=encoder)
    query = "Häuser am Fluss"
    with Retriever.open(tmp_path / "index", encoder) as retriever:
        asked, stored = retriever.encode([query]).sparse, encoder.encode_documents(SENTENCES).sparse
        assert asked is not None and stored is not None and asked.shape[1] == len(encoder.vocabulary)
        own = encoder.lexicon.counts(encoder.lexicon.token_ids(SENTENCES))
        assert (stored.getnnz(axis=1) > own.getnnz(axis=1)).sum() > 2, "there are expansions"
        scores = (stored @ asked.T).toarray()[:, 0]
        # A stored weight is rounded to a step: half of one is what each shared term may be off.
        rounding = ((stored > 0) @ asked.T).toarray()[:, 0] / (2 * IndexingConfig.impact_scale)
        [ranked] = retriever.rank([Query("q", query)], mode="sparse")
        found = np.array([dict(ranked.ranking).get(f"d{number}", 0.0) for number in range(len(SENTENCES))])
        assert (abs(found - scores) <= rounding + 1e-4).all() and (scores > 0).sum() > 2
        for backend in ("postings", "lucene"):
            with Retriever.open(tmp_path / "index", encoder, sparse_backend=backend) as same:
                [again] = same.rank([Query("q", query)], mode="sparse")
            assert again.ranking == ranked.ranking
        for hit in retriever.search(query, mode="sparse", explain=True):
            assert sum(term.query_weight * term.doc_weight for term in hit.terms) == pytest.approx(hit.score)
            assert {term.term for term in hit.terms} <= set(encoder.vocabulary)
