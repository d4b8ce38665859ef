"""What every encoder keeps, whatever it is inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from retriever.encoder.load import load_encoder
from retriever.types import Encoded, Encoder

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["yeast and flour", "", "the moon", "   \n\t", "the moon", "yeast " * 500]


@pytest.fixture(params=["ours", "none"])
def encoder(request: pytest.FixtureRequest, tiny_encoder_folder: Path) -> Encoder:
    return load_encoder({"ours": str(tiny_encoder_folder), "none": "none"}[request.param])


def check(encoder: Encoder, encoded: Encoded, texts: list[str]) -> None:
    """Compare shapes, types and the rules of `Encoded` with the encoder's identity."""
    dense_dim, vocab_size = encoder.identity.dense_dim, encoder.identity.vocab_size
    assert encoded.truncated.shape == (len(texts),) and encoded.truncated.dtype == np.bool_
    empty = [not text.strip() for text in texts]
    assert (encoded.dense is None) == (dense_dim == 0)
    if encoded.dense is not None:
        assert encoded.dense.shape == (len(texts), dense_dim) and encoded.dense.dtype == np.float32
        lengths = np.linalg.norm(encoded.dense, axis=1)
        np.testing.assert_allclose(lengths, [0.0 if none else 1.0 for none in empty], atol=1e-5)
    assert (encoded.sparse is None) == (vocab_size == 0)
    if encoded.sparse is not None:
        assert encoded.sparse.shape == (len(texts), vocab_size) and encoded.sparse.dtype == np.float32
        assert encoded.sparse.has_sorted_indices
        assert (encoded.sparse.data > 0).all() and np.isfinite(encoded.sparse.data).all()
        assert all(encoded.sparse[i].nnz == 0 for i, none in enumerate(empty) if none)


def test_is_an_encoder(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)


def test_vocabulary_has_a_term_for_every_sparse_dimension(encoder: Encoder) -> None:
    assert len(encoder.vocabulary) == encoder.identity.vocab_size
    assert len(set(encoder.vocabulary)) == encoder.identity.vocab_size


@pytest.mark.parametrize("side", ["encode_documents", "encode_queries"])
@pytest.mark.parametrize("texts", [TEXTS, [], [""], ["   "], ["the moon"]])
def test_views(encoder: Encoder, side: str, texts: list[str]) -> None:
    check(encoder, getattr(encoder, side)(texts), texts)


@pytest.mark.parametrize("side", ["encode_documents", "encode_queries"])
def test_rows_are_in_the_order_of_the_texts(encoder: Encoder, side: str) -> None:
    encode = getattr(encoder, side)
    together = encode(TEXTS)
    for i, text in enumerate(TEXTS):
        alone = encode([text])
        if together.dense is not None:
            np.testing.assert_array_equal(together.dense[i], alone.dense[0])
        if together.sparse is not None:
            assert (together.sparse[i] != alone.sparse[0]).nnz == 0
        assert together.truncated[i] == alone.truncated[0]


@pytest.mark.parametrize("side", ["encode_documents", "encode_queries"])
@pytest.mark.parametrize("asked", [{"dense"}, {"sparse"}])
def test_only_the_views_asked_for(encoder: Encoder, side: str, asked: set[str]) -> None:
    encode = getattr(encoder, side)
    both, found = encode(TEXTS), encode(TEXTS, dense="dense" in asked, sparse="sparse" in asked)
    for view in ("dense", "sparse"):
        one, other = getattr(found, view), getattr(both, view)
        assert (one is None) == (other is None or view not in asked)
        if one is not None:
            assert (one != other).sum() == 0
    assert found.truncated.shape == both.truncated.shape


def test_texts_are_not_changed(encoder: Encoder) -> None:
    texts = list(TEXTS)
    encoder.encode_documents(texts)
    assert texts == TEXTS


def test_identity_is_stable(encoder: Encoder, tiny_encoder_folder: Path) -> None:
    name = encoder.identity.name
    assert load_encoder(name).identity == encoder.identity
    assert (encoder.identity.sha256 == "") == (name == "none")
    assert len(encoder.identity.sha256) in (0, 64)
