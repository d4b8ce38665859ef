"""The int8 network against the network it is made of: near it, and each text on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from retriever.network.int8.decoder import Decoder
from retriever.network.int8.matrices import int8
from retriever.network.int8.matrix_decoder import MatrixDecoder
from retriever.network.int8.network import Int8Network
from retriever.network.model import RetrieverConfig, RetrieverModel, pack
from tests.helpers.processor import OVERFLOWS, exact_int8

SHAPES: dict[str, dict[str, Any]] = {
    "no experts": {},
    "experts in the trunk": {"moe_layers": [1], "num_experts": 4, "experts_per_token": 2, "granularity": 2},
    "a shared one, too": {"moe_layers": [0, 1], "num_experts": 4, "granularity": 2, "shared_experts": 1},
    "experts in the head": {"head_experts": 4, "head_granularity": 2, "head_intermediate_size": 128},
    "another activation, [CLS]": {"hidden_act": "relu", "pooling": "cls"},
    "heads of an odd size": {"hidden_size": 60, "num_attention_heads": 12},
    "vocabulary experts": {
        "vocabulary_experts": 70,
        "vocabulary_experts_per_token": 30,
        "vocabulary_experts_per_text": 400,
    },
    "of a width that fills no step": {
        "hidden_size": 54,
        "num_attention_heads": 9,
        "vocabulary_experts": 4,
        "vocabulary_experts_per_token": 3,
    },
    "maximum": {"pooling": "max"},
    "a matrix and tanh behind the mean": {"dense_dim": 100, "dense_activation": "tanh"},
    "a prompt left out": {"prompt_in_pooling": False, "prompt_in_terms": False},
}
LENGTHS = [1, 3, 3, 16, 17, 40, 41, 300]


def network(**settings: Any) -> RetrieverModel:
    """Return a small one with weights as large as trained ones."""
    sizes: dict[str, Any] = {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = RetrieverConfig(**(sizes | {"intermediate_size": 128, "sparse_layers": [0, 1, 2]} | settings))
    torch.manual_seed(1)
    model = RetrieverModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and value.numel() and not name.startswith("embeddings"):
                value.normal_(std=value.shape[-1] ** -0.5)
        model.sparse_head.allowed[:9] = False
        model.sparse_head.stem[20:30] = 20
    return model


def texts(seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 500, length).tolist() for length in LENGTHS]


@pytest.mark.skipif(not exact_int8(), reason=OVERFLOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_views_are_near_the_reference(shape: str) -> None:
    packed = pack(texts())
    with torch.inference_mode():
        expected = network(**SHAPES[shape]).encode(packed, prompt=2)
        found = Int8Network(network(**SHAPES[shape])).encode(packed, prompt=2)
    assert found.dense is not None
    assert expected.dense is not None
    assert cosine_similarity(found.dense, expected.dense).min() > 0.995
    assert found.sparse is not None
    assert expected.sparse is not None
    assert cosine_similarity(found.sparse, expected.sparse).min() > 0.995
    assert not found.sparse[:, :9].any()
    assert not found.sparse[:, 21:30].any()
    assert len(found.routings) == len(expected.routings)


@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_change_no_bit(shape: str) -> None:
    model = Int8Network(network(**SHAPES[shape]))
    ids = texts(1)
    with torch.inference_mode():
        together = model.encode(pack(ids), prompt=2)
        alone = [model.encode(pack([text]), prompt=2) for text in ids]
        again = model.encode(pack(ids), prompt=2)
    for name in ("dense", "sparse"):
        whole = getattr(together, name)
        assert torch.equal(torch.cat([getattr(one, name) for one in alone]), whole)
        assert torch.equal(getattr(again, name), whole)


@pytest.mark.parametrize("shape", ["no experts", "vocabulary experts", "of a width that fills no step"])
def test_both_decoders_give_the_same_numbers(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one for AMX multiplies with a library; its sums are the same whole numbers."""
    if not exact_int8():
        pytest.skip(OVERFLOWS)
    packed = pack(texts())
    found = []
    for kind in (Decoder, MatrixDecoder):
        monkeypatch.setattr("retriever.network.int8.network.decoder_kind", lambda kind=kind: kind)
        monkeypatch.setattr("retriever.network.int8.matrix_decoder.LARGEST_LOGITS", 2**14)  # several portions
        with torch.inference_mode():
            found.append(Int8Network(network(**SHAPES[shape])).encode(packed).sparse)
    assert found[0] is not None and (found[0] > 0).any()
    assert torch.equal(found[0], found[1])  # type: ignore[arg-type]


def test_only_what_is_asked_for_is_made() -> None:
    model = Int8Network(network())
    packed = pack(texts())
    with torch.inference_mode():
        both = model.encode(packed)
        dense, sparse = model.encode(packed, sparse=False), model.encode(packed, dense=False)
    assert dense.sparse is None
    assert sparse.dense is None
    assert both.dense is not None
    assert both.sparse is not None
    assert torch.equal(both.dense, dense.dense)  # type: ignore[arg-type]
    assert torch.equal(both.sparse, sparse.sparse)  # type: ignore[arg-type]


def test_nothing_written_earlier_is_seen() -> None:
    """Arrays are used again: what a larger, stranger batch left in them must not matter."""
    ids = texts(2)
    fresh = Int8Network(network(head_experts=4, head_intermediate_size=128))
    used = Int8Network(network(head_experts=4, head_intermediate_size=128))
    with torch.inference_mode():
        used.encode(pack([[499] * 500] * 3))
        one, other = fresh.encode(pack(ids)), used.encode(pack(ids))
    assert torch.equal(one.dense, other.dense)  # type: ignore[arg-type]
    assert torch.equal(one.sparse, other.sparse)  # type: ignore[arg-type]


def test_the_model_gives_its_matrices_away() -> None:
    model = network(head_experts=4, head_intermediate_size=128)
    Int8Network(model)
    left = {name for name, value in model.named_parameters() if value.ndim > 1 and value.numel()}
    assert left == {"embeddings.word.weight", "embeddings.position.weight", "sparse_head.experts.router"}
    assert model.embeddings.word.weight.dtype == torch.bfloat16


def test_products_are_sums_of_whole_numbers() -> None:
    weight, bias = torch.randn(24, 64), torch.randn(24)
    matrix = int8(weight, bias)
    assert (weight - matrix.weights.t() * torch.from_numpy(matrix.scale)[:, None]).abs().max() <= matrix.scale.max() / 2
    assert matrix.weights.t().abs().amax(1).eq(127).all()
