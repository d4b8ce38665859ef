"""The network for queries against the one for documents: the same numbers, and each text on its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from retriever.network.checkpoint import write_weights
from retriever.network.int8.network import Int8Network
from retriever.network.int8.query import QueryNetwork
from retriever.network.int8.weights import runs_alone
from retriever.network.model import RetrieverConfig, RetrieverModel, pack
from retriever.network.settings import DEFAULTS, expected_shapes
from tests.helpers.processor import OVERFLOWS, exact_int8, same_kernels

if TYPE_CHECKING:
    from pathlib import Path

SHAPES: dict[str, dict[str, Any]] = {
    "no experts": {},
    "experts in the trunk": {"moe_layers": [1], "num_experts": 4, "experts_per_token": 2, "granularity": 2},
    "a shared one, too": {"moe_layers": [0, 1], "num_experts": 4, "granularity": 2, "shared_experts": 1},
    "experts in the head": {"head_experts": 4, "head_granularity": 2, "head_shared_experts": 1},
    "one layer, [CLS]": {"num_hidden_layers": 1, "sparse_layers": [0, 1], "pooling": "cls"},
    "heads of 6, a vocabulary that fills no block": {"hidden_size": 60, "num_attention_heads": 10, "vocab_size": 509},
    "vocabulary experts": {"vocabulary_experts": 70, "vocabulary_experts_per_token": 9, "head_experts": 4},
    "more in short texts": {
        "vocabulary_experts": 70,
        "vocabulary_experts_per_token": 9,
        "vocabulary_experts_per_text": 200,
    },
    "all of few of them": {"vocabulary_experts": 3, "vocabulary_experts_per_token": 3},
    "maximum": {"pooling": "max"},
    "a matrix behind the mean": {"dense_dim": 100},
    "a matrix and tanh behind [CLS]": {"dense_dim": 20, "dense_activation": "tanh", "pooling": "cls"},
    "wide heads": {"hidden_size": 160, "num_attention_heads": 2, "routed_scale": 2.0},
}
LENGTHS = [1, 2, 3, 3, 15, 16, 17, 40, 65, 130, 300]
SIZES: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "head_intermediate_size": 64,
    "sparse_layers": [0, 1, 2],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep weights apart from those of the encoders in use."""
    monkeypatch.setattr("retriever.network.int8.packed_file.cache_root", lambda: tmp_path / "cache")


def network(**settings: Any) -> RetrieverModel:
    """Return a small one with weights as large as trained ones."""
    torch.manual_seed(1)
    model = RetrieverModel(RetrieverConfig(**(SIZES | settings)))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and value.numel() and not name.startswith("embeddings"):
                value.normal_(std=value.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                value.normal_(std=0.1)
        model.sparse_head.allowed[:9] = False
        model.sparse_head.stem[20:30] = 20
        if model.sparse_head.vocabulary is not None:  # of any sizes, some empty, and some terms of none
            clusters = model.config.vocabulary_experts
            model.sparse_head.vocabulary.cluster[:] = torch.randint(-1, clusters, (model.config.vocab_size,))
            model.sparse_head.vocabulary.router[2:] = model.sparse_head.vocabulary.router[0]  # equal scores
            model.sparse_head.vocabulary.router[10:].normal_()
    return model


def saved(model: RetrieverModel, folder: Path, storage: str = "float32") -> Path:
    model.config.save_pretrained(folder)
    write_weights(model.state_dict(), folder, storage)
    return folder


def texts() -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 500, length).tolist() for length in LENGTHS]


@pytest.mark.skipif(not exact_int8(), reason=OVERFLOWS)
@pytest.mark.parametrize("storage", ["float32", "mixed"])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_views_are_those_of_documents(shape: str, storage: str, tmp_path: Path) -> None:
    folder = saved(network(**SHAPES[shape]), tmp_path, storage)
    assert runs_alone(folder)
    both_agree(folder)


@pytest.mark.skipif(not exact_int8(), reason=OVERFLOWS)
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("dense_dim", [0, 48])
def test_a_prompt_left_out_is_left_out_in_both(pooling: str, dense_dim: int, tmp_path: Path) -> None:
    shape = {"prompt_in_pooling": False, "prompt_in_terms": False, "pooling": pooling, "dense_dim": dense_dim}
    both_agree(saved(network(**shape), tmp_path), prompt=3)


def both_agree(folder: Path, prompt: int = 0) -> None:
    with torch.inference_mode():
        expected = Int8Network(RetrieverModel.from_pretrained(folder)).encode(pack(texts()), prompt=prompt)
    found = QueryNetwork(folder, "small").encode(texts(), dense=True, sparse=True, prompt=prompt)
    for view, other in ((found.dense, expected.dense), (found.sparse, expected.sparse)):
        assert view is not None and other is not None
        assert cosine_similarity(torch.from_numpy(view), other).min() > 0.998
        if same_kernels():
            np.testing.assert_array_equal(view, other.numpy())


@pytest.mark.parametrize("shape", ["experts in the head", "maximum", "a matrix behind the mean"])
def test_a_text_does_not_depend_on_the_others(shape: str, tmp_path: Path) -> None:
    queries = QueryNetwork(saved(network(**SHAPES[shape]), tmp_path), "alone")
    together = queries.encode(texts(), dense=True, sparse=True)
    assert together.dense is not None and together.sparse is not None
    for i, text in enumerate(texts()):
        alone = queries.encode([text], dense=True, sparse=True)
        assert alone.dense is not None and alone.sparse is not None
        np.testing.assert_array_equal(alone.dense[0], together.dense[i])
        np.testing.assert_array_equal(alone.sparse[0], together.sparse[i])
        assert queries.encode([text], dense=True, sparse=False).sparse is None
        assert queries.encode([text], dense=False, sparse=True).dense is None


def test_defaults_and_shapes_are_those_of_the_network() -> None:
    config = RetrieverConfig()
    assert {name: getattr(config, name) for name in DEFAULTS} == {
        name: list(value) if isinstance(getattr(config, name), list) else value for name, value in DEFAULTS.items()
    }
    for settings in SHAPES.values():
        shapes = expected_shapes(DEFAULTS | SIZES | settings)
        weights = network(**settings).state_dict()
        assert shapes == {name: tuple(weights[name].shape) for name in weights if not name.startswith("lexical.")}


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_act": "relu"},
        {"hidden_size": 60, "num_attention_heads": 12},  # heads of 5
        {"intermediate_size": 130},
    ],
)
def test_what_the_kernels_cannot_run_is_left_to_the_other_network(settings: dict[str, Any], tmp_path: Path) -> None:
    assert not runs_alone(saved(network(**settings), tmp_path))


@pytest.mark.parametrize(
    "change", [{"hidden_size": 128}, {"num_hidden_layers": 3}, {"moe_layers": [0]}, {"pooling": 3}]
)
def test_settings_that_do_not_fit_the_weights_are_left_to_it_too(change: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(network(), tmp_path)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert not runs_alone(folder)


@pytest.mark.skipif(not same_kernels(), reason="documents are encoded by other kernels here")
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_go_to_the_experts_that_documents_go_to(shape: str, tmp_path: Path) -> None:
    model = network(**SHAPES[shape])
    quick = QueryNetwork(saved(model, tmp_path), "1")
    slow = Int8Network(model)
    for text in texts():
        with torch.inference_mode():
            expected = slow.encode(pack([text]), dense=False, sparse=True).routings
        assert [layer.tolist() for layer in quick.routes(text)] == [layer.expert_ids.tolist() for layer in expected]
    assert len(expected) == len(model.config.expert_layers)
