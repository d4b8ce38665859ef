"""Upcycling keeps the parent's function, whatever the shape of the experts."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from retriever.network.model import RetrieverModel, pack
from retriever.network.moe import MoELayer
from retriever.network.upcycle import UpcycleConfig, upcycle, upcycle_checkpoint
from retriever.network.vocabulary import stems
from retriever.types import UserError

if TYPE_CHECKING:
    from tests.conftest import Parent

TEXTS = [[2, 7, 3], [2, 7, 8, 9, 3], [2, 50, 60, 70, 80, 90, 100, 3]]


def parent_vectors(parent: Parent) -> Tensor:
    """Return the mean of the last hidden states of each text, run alone, of unit length."""
    with torch.inference_mode():
        rows = [parent.model(torch.tensor([text])).last_hidden_state[0].mean(0) for text in TEXTS]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def vectors(model: RetrieverModel, texts: list[list[int]] = TEXTS) -> Tensor:
    with torch.inference_mode():
        dense = model.encode(pack(texts), sparse=False).dense
    assert dense is not None
    return dense


@pytest.mark.parametrize(
    ("experts", "active", "granularity", "shared"),
    [
        (experts, active, granularity, shared)
        for experts, active, granularity, shared in itertools.product((1, 3, 4, 8), (1, 2), (1, 2, 4), (0, 1, 2))
        if active <= experts and shared <= granularity
    ],
)
def test_equals_the_parent(tiny_parent: Parent, experts: int, active: int, granularity: int, shared: int) -> None:
    config = UpcycleConfig(experts, active, granularity, shared, moe_layers=(0, 1), router_std=0.5)
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, config)
    assert model.config.expert_shape.routed == experts * granularity
    torch.testing.assert_close(vectors(model), parent_vectors(tiny_parent), rtol=0, atol=2e-6)


@pytest.mark.parametrize("layers", [(), (0,), (1,), (0, 1)])
def test_equals_the_parent_whatever_the_layers(tiny_parent: Parent, layers: tuple[int, ...]) -> None:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(moe_layers=layers))
    assert tuple(model.config.moe_layers) == layers
    torch.testing.assert_close(vectors(model), parent_vectors(tiny_parent), rtol=0, atol=2e-6)


def test_every_second_layer_is_the_default(tiny_parent: Parent) -> None:
    assert list(upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig()).config.moe_layers) == [1]


def moe_layer(model: RetrieverModel) -> MoELayer:
    """Return the last layer's experts."""
    layer: Any = model.layers[-1]
    assert isinstance(layer.feed_forward, MoELayer)
    return layer.feed_forward


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_reinitialised_neurons_change_the_function(tiny_parent: Parent, fraction: float) -> None:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(reinit_fraction=fraction))
    difference = (vectors(model) - parent_vectors(tiny_parent)).abs().max()
    assert difference > 1e-3
    # The share of neurons that still stands in its place in every expert.
    inner = model.config.expert_shape.intermediate
    parent_layer: Any = tiny_parent.model.encoder.layer[1]
    original = parent_layer.intermediate.dense.weight.view(2, inner, -1).repeat(4, 1, 1)
    kept = (moe_layer(model).up_proj == original).all(-1).float().mean(1)
    assert kept.tolist() == [pytest.approx(1 - fraction)] * 8


def test_the_same_seed_gives_the_same_weights(tiny_parent: Parent) -> None:
    def weights(seed: int) -> Tensor:
        config = UpcycleConfig(seed=seed, reinit_fraction=0.5)
        layer = moe_layer(upcycle(tiny_parent.model, tiny_parent.tokenizer, config))
        return torch.cat([layer.router.flatten(), layer.up_proj.flatten()]).detach()

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"experts_per_token": 5}, "experts_per_token is 5, allowed are 1 to num_experts"),
        ({"experts_per_token": 0}, "experts_per_token is 0"),
        ({"num_experts": 0}, "allowed are 1 to num_experts"),
        ({"granularity": 0}, "granularity is 0"),
        ({"shared_experts": 3}, "shared_experts is 3, allowed are 0 to granularity"),
        ({"shared_experts": -1}, "shared_experts is -1"),
        ({"head_shared_experts": -1, "head_experts": 2}, "head_shared_experts is -1"),
        ({"head_shared_experts": 1}, "head_shared_experts is 1, allowed is 0 or more, and 0 without head_experts"),
        ({"reinit_fraction": 1.5}, "reinit_fraction is 1.5"),
        ({"reinit_fraction": float("nan")}, "reinit_fraction is nan"),
        ({"router_std": -1.0}, "router_std is -1.0"),
        ({"moe_layers": (2,)}, "the base has 0 to 1"),
        ({"moe_layers": (-1,)}, "the base has 0 to 1"),
        ({"granularity": 3}, "granularity 3 does not divide intermediate_size 64"),
        ({"sparse_layers": (4,)}, "sparse_layers"),
        ({"sparse_layers": (-4,)}, "sparse_layers"),
        ({"sparse_layers": ()}, "sparse_layers"),
    ],
)
def test_impossible_settings_are_refused(tiny_parent: Parent, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(**values))
    assert "\n" not in str(caught.value)


def test_other_architectures_are_refused(tiny_parent: Parent, tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    other: Any = DistilBertModel(DistilBertConfig(vocab_size=200, dim=32, n_layers=1, n_heads=2, hidden_dim=64))
    with pytest.raises(UserError, match="the base is a 'distilbert' model"):
        upcycle(other, tiny_parent.tokenizer, UpcycleConfig())
    other.save_pretrained(tmp_path)
    tiny_parent.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'distilbert'"):
        upcycle_checkpoint(str(tmp_path), UpcycleConfig())


def save_sentence_model(parent: Parent, folder: Path, pooling: dict[str, bool]) -> None:
    """Write `parent` as sentence-transformers lays a model out."""
    parent.model.save_pretrained(folder)
    parent.tokenizer.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    for name, content in {
        "sentence_bert_config.json": {"max_seq_length": 48},
        "1_Pooling/config.json": pooling,
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
    }.items():
        (folder / name).write_text(json.dumps(content))


def test_settings_of_a_sentence_transformers_folder(tiny_parent: Parent, tmp_path: Path) -> None:
    save_sentence_model(tiny_parent, tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    model, tokenizer, *_ = upcycle_checkpoint(str(tmp_path), UpcycleConfig())
    config = model.config
    assert (config.max_length, config.pooling) == (48, "cls")
    assert (config.query_prompt, config.document_prompt) == ("query: ", "passage: ")
    assert len(tokenizer) == config.vocab_size == 200


def test_the_layout_that_sentence_transformers_writes_today(tiny_parent: Parent, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tiny_parent.model.save_pretrained(tmp_path / "base")
    tiny_parent.tokenizer.save_pretrained(tmp_path / "base")
    trunk = Transformer(str(tmp_path / "base"))
    pooling = Pooling(tiny_parent.model.config.hidden_size, pooling_mode="cls")
    SentenceTransformer(modules=[trunk, pooling], device="cpu").save(str(tmp_path / "saved"))
    model, *_ = upcycle_checkpoint(str(tmp_path / "saved"), UpcycleConfig())
    assert model.config.pooling == "cls"


def test_other_poolings_are_refused(tiny_parent: Parent, tmp_path: Path) -> None:
    save_sentence_model(tiny_parent, tmp_path, {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False})
    with pytest.raises(UserError, match="pools by 'lasttoken'"):
        upcycle_checkpoint(str(tmp_path), UpcycleConfig())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load this checkpoint"):
        upcycle_checkpoint(str(tmp_path), UpcycleConfig())


@pytest.fixture(scope="module")
def real_vectors(real_base: Path, real_texts: list[str]) -> Tensor:
    """Return what sentence-transformers makes of 50 real passages, of which the starts keep the test short."""
    from sentence_transformers import SentenceTransformer

    return torch.tensor(SentenceTransformer(str(real_base), device="cpu").encode([t[:400] for t in real_texts[:50]]))


# Each number of each size once at least, since some seconds are a shape's; RETRIEVER_SHAPES=all takes all 24.
SHAPES = [(4, 1, 1, 0), (4, 2, 4, 1), (8, 1, 2, 1), (8, 2, 4, 0)]
if os.environ.get("RETRIEVER_SHAPES") == "all":
    SHAPES = list(itertools.product((4, 8), (1, 2), (1, 2, 4), (0, 1)))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_a_real_parent_on_real_passages(
    real_base: Path, real_texts: list[str], real_vectors: Tensor, shape: tuple[int, int, int, int]
) -> None:
    texts = [text[:400] for text in real_texts[:50]]
    model, tokenizer, *_ = upcycle_checkpoint(str(real_base), UpcycleConfig(*shape))
    ids = [tokenizer(text, truncation=True, max_length=model.config.max_length)["input_ids"] for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = vectors(model, [ids[i] for i in order])
    torch.testing.assert_close(found, real_vectors[order], rtol=0, atol=1e-5)


def test_whole_words_of_one_stem_share_a_term() -> None:
    """The first of them stands for all; pieces of words, short words, names in capitals and signs stand alone."""
    terms = ["[CLS]", "the", "run", "##ning", "runs", "vaccine", "RUNS", "running", "as", "vaccines", ",", "1990s"]
    assert stems(terms) == [0, 1, 2, 3, 2, 5, 6, 2, 8, 5, 10, 11]


def test_terms_that_are_not_allowed_have_no_stem(tiny_parent: Parent) -> None:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig())
    head, fraction = model.sparse_head, model.lexical.fraction
    assert torch.equal(head.stem >= 0, head.allowed) and not head.allowed.all()
    own = head.stem[head.allowed].long()
    assert torch.equal(head.stem[own].long(), own)  # what stands for others stands for itself
    assert ((fraction > 0) & (fraction < 1)).all()
