"""The views of our own encoder: what the network says, prompts, limits, and odd texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.network.model import RetrieverModel, pack
from retriever.types import Encoded
from tests.helpers.encodings import PRECISIONS, assert_rows_equal, change_config, read
from tests.helpers.processor import OVERFLOWS, exact_int8

if TYPE_CHECKING:
    pass


@pytest.mark.parametrize("precision", PRECISIONS)
def test_views_are_the_networks(tiny_encoder_folder: Path, readable_texts: list[str], precision: str) -> None:
    """The oracle is the network in float32 on texts framed by hand: its expansions and the text's own tokens."""
    if precision == "int8" and not exact_int8():
        pytest.skip(OVERFLOWS)
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision))
    readable_texts = [text for text in readable_texts if text.strip()]
    encoded = encoder.encode_documents(readable_texts)
    model = RetrieverModel.from_pretrained(tiny_encoder_folder)
    model.train(False)
    assert encoded.dense is not None and encoded.sparse is not None
    for i, text in enumerate(readable_texts):
        tokens = encoder.lexicon.tokenizer.encode(text).ids
        own = torch.zeros(1, 200)
        for token in tokens[1:-1]:
            stem = int(model.sparse_head.stem[token])
            own[0, stem] += stem >= 0
        tokens = [*tokens[: model.config.max_length - 1], 3] if len(tokens) > model.config.max_length else tokens
        with torch.inference_mode():
            out = model.encode(pack([tokens]))
        assert out.dense is not None and out.sparse is not None
        if precision == "float32":
            np.testing.assert_allclose(encoded.dense[i], out.dense[0], atol=1e-6)
            expected = (out.sparse + model.lexical.documents(own)).detach()[0]
            np.testing.assert_allclose(encoded.sparse[i].toarray()[0], expected, atol=1e-5)
        else:
            assert encoded.dense[i] @ out.dense[0].numpy() > 0.97
    assert 0 < encoded.sparse.nnz < encoded.sparse.shape[0] * 190


def test_truncation_is_counted(folder: Path) -> None:
    change_config(folder, max_length=8)
    encoder = MoEEncoder(folder)
    # Every word of this text is one token; [CLS] and [SEP] take two of the eight places.
    texts = [" ".join(["the"] * count) for count in (1, 5, 6, 7, 1000)]
    encoded = encoder.encode_documents(texts)
    assert encoded.truncated.tolist() == [False, False, False, True, True]
    assert_rows_equal(encoded, [2, 2], Encoded(encoded.dense, encoded.sparse, np.zeros(5, dtype=np.bool_)), [2, 2])
    assert encoded.dense is not None
    np.testing.assert_array_equal(encoded.dense[2], encoded.dense[3])


def test_prompts_go_before_the_text(folder: Path) -> None:
    plain = MoEEncoder(folder)
    change_config(folder, query_prompt="the moon ", document_prompt="flour ", prompt_in_terms=True)
    encoder = MoEEncoder(folder)
    for prompt, side in (("the moon ", "encode_queries"), ("flour ", "encode_documents")):
        found = getattr(encoder, side)(["yeast"])
        np.testing.assert_array_equal(found.dense, getattr(plain, side)([f"{prompt}yeast"]).dense)
        # The network expands the prompted text; the tokens that count are the text's own.
        expansions = read(plain, [f"{prompt}yeast"]).sparse
        own = read(plain, ["yeast"]).tokens
        prompted = read(encoder, ["yeast"], prompt)
        assert expansions is not None and prompted.sparse is not None
        assert own is not None and prompted.tokens is not None
        np.testing.assert_array_equal(prompted.sparse.toarray(), expansions.toarray())
        np.testing.assert_array_equal(prompted.tokens.toarray(), own.toarray())
    lexical, plainly = (each.with_query_mode("lexical").encode_queries(["yeast"]).sparse for each in (encoder, plain))
    assert lexical is not None and plainly is not None
    assert lexical.nnz > 0
    np.testing.assert_array_equal(lexical.toarray(), plainly.toarray())
    empty = encoder.encode_queries(["  "])
    assert empty.dense is not None and not empty.dense.any()


def test_light_expansions_are_left_out(folder: Path, readable_texts: list[str]) -> None:
    """Each side has a least weight of its own; a text's own words stay."""
    encoder = MoEEncoder(folder)
    full, asked = read(encoder, readable_texts).sparse, encoder.encode_queries(readable_texts).sparse
    assert full is not None and asked is not None
    least = float(np.median(full.data))
    change_config(folder, min_document_weight=least)
    cut = MoEEncoder(folder)
    found = read(cut, readable_texts).sparse
    assert found is not None
    np.testing.assert_array_equal(found.toarray(), np.where(full.toarray() >= least, full.toarray(), 0))
    unchanged = cut.encode_queries(readable_texts).sparse
    assert unchanged is not None
    np.testing.assert_array_equal(unchanged.toarray(), asked.toarray())
    change_config(folder, min_document_weight=0.0, min_query_weight=1e9)
    words = MoEEncoder(folder)
    own = words.with_query_mode("lexical").encode_queries(readable_texts).sparse
    alone, again = words.encode_queries(readable_texts).sparse, read(words, readable_texts).sparse
    assert own is not None and alone is not None and again is not None
    np.testing.assert_array_equal(alone.toarray(), own.toarray())
    np.testing.assert_array_equal(again.toarray(), full.toarray())


def test_max_terms_keeps_the_heaviest_expansions(folder: Path, readable_texts: list[str]) -> None:
    """The text's own tokens are kept whatever the limit: they come on top of the expansions."""
    full = read(MoEEncoder(folder), readable_texts).sparse
    change_config(folder, max_terms=3)
    encoder = MoEEncoder(folder)
    cut = read(encoder, readable_texts)
    assert full is not None and cut.sparse is not None and cut.tokens is not None
    for i in range(len(readable_texts)):
        row = full[i].toarray()[0]
        heaviest = sorted(np.flatnonzero(row), key=lambda term: (-row[term], term))[:3]
        assert cut.sparse[i].indices.tolist() == sorted(heaviest)
        assert cut.sparse[i].data.tolist() == [row[term] for term in sorted(heaviest)]
    view = encoder.encode_documents(readable_texts).sparse
    assert view is not None
    for i in range(len(readable_texts)):
        assert set(view[i].indices) == set(cut.sparse[i].indices) | set(cut.tokens[i].indices)


def test_tokens_beyond_the_length_count(folder: Path) -> None:
    """The network reads six tokens; the sparse view of documents and queries counts all."""
    change_config(folder, max_length=8)
    encoder = MoEEncoder(folder)
    word = {term: i for i, term in enumerate(encoder.vocabulary)}
    moon, texts = word["moon"], ["the " * 6, "the " * 6 + "moon moon moon"]
    found = encoder.encode_documents(texts)
    assert found.sparse is not None and found.tokens is not None and found.dense is not None
    np.testing.assert_array_equal(found.dense[0], found.dense[1])
    assert (found.tokens[0, moon], found.tokens[1, moon]) == (0, 3)
    # 9 tokens, 3 of them this one; the gain is 1.
    expected = 3 / (3 + 1.2 * (0.25 + 0.75 * 9 / 150))
    assert found.sparse[1, moon] - found.sparse[0, moon] == pytest.approx(expected, rel=1e-5)
    queries = encoder.with_query_mode("lexical").encode_queries(texts).sparse
    assert queries is not None
    np.testing.assert_allclose(queries[1, moon], 3 * encoder.lexicon.query_weight[moon], rtol=1e-6)


@pytest.mark.parametrize("text", ["\ud800 moon", "\udcff", "\x00\x01", "🙂 moon", "月", "\u200b", "​" * 3, "a" * 5000])
def test_odd_texts(tiny_encoder_folder: Path, text: str) -> None:
    encoded = MoEEncoder(tiny_encoder_folder).encode_documents([text])
    assert encoded.dense is not None and encoded.sparse is not None
    assert np.isfinite(encoded.dense).all() and np.isfinite(encoded.sparse.data).all()
