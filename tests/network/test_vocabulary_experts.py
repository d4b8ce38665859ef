"""Vocabulary experts against their definition, one token after another, and the clusters that an encoder is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.network.folder import load_model, save_encoder
from retriever.network.model import RetrieverConfig, RetrieverModel, pack
from retriever.network.parameters import count_parameters
from retriever.network.reach import Reach
from retriever.network.vocabulary_clusters import SLACK, cluster_vocabulary, save_with_clusters
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Parent

VOCABULARY, CLUSTERS, PER_TOKEN, PER_TEXT = 500, 24, 4, 130
LENGTHS = [1, 3, 3, 16, 17, 40, 41, 120]


def network(**settings: Any) -> RetrieverModel:
    """Return a small one with weights as large as trained ones, and clusters drawn at random, of unequal sizes."""
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "intermediate_size": 128, "sparse_layers": [0, 1, 2]}
    sizes |= {"vocabulary_experts": CLUSTERS, "vocabulary_experts_per_token": PER_TOKEN}
    sizes |= {"vocabulary_experts_per_text": PER_TEXT}
    torch.manual_seed(1)
    model = RetrieverModel(RetrieverConfig(**(sizes | settings)))
    head = model.sparse_head
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and value.numel() and not name.startswith("embeddings"):
                value.normal_(std=value.shape[-1] ** -0.5)
        head.scale.uniform_(-0.5, 4.0)  # a negative one turns the order of logits round
        head.bias.normal_(std=0.1)
        head.allowed[:9] = False
        head.stem[20:30] = 20
        if head.vocabulary is not None:
            drawn = torch.randint(CLUSTERS - 1, (VOCABULARY,)) ** 2 // CLUSTERS  # some are empty
            head.vocabulary.cluster[:] = torch.where(head.allowed, drawn, -1)
            head.vocabulary.router[1] = head.vocabulary.router[0]  # a tie for every token
            head.vocabulary.router_bias.normal_(std=0.1)
            head.vocabulary.router_bias[:2] = 0.3
    model.train(False)
    return model


def texts(seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length).tolist() for length in LENGTHS]


def naive(model: RetrieverModel, ids: list[list[int]], h: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the weights (texts, vocab) of what the decoder reads, h (tokens, hidden), a token at a time."""
    head, experts = model.sparse_head, model.sparse_head.vocabulary
    assert experts is not None
    rows = model.embeddings.word.weight.detach().numpy()
    scale, bias, stem = (value.detach().numpy() for value in (head.scale, head.bias, head.stem))
    cluster, router = experts.cluster.numpy(), experts.router.detach().numpy()
    router_bias = experts.router_bias.detach().numpy()
    out = np.zeros((len(ids), VOCABULARY), np.float32)
    at = 0
    for text, tokens in enumerate(ids):
        logits = np.full(VOCABULARY, -np.inf)
        count = max(PER_TOKEN, math.ceil(PER_TEXT / len(tokens)))
        for token in tokens:
            scores = router @ h[at] + router_bias
            own = [int(cluster[token])] if cluster[token] >= 0 else []
            others = sorted(set(range(CLUSTERS)) - set(own), key=lambda one: (-scores[one], one))
            reached = np.isin(cluster, (own + others)[:count])
            logits[reached] = np.maximum(logits[reached], rows[reached] @ h[at])
            at += 1
        for term in np.flatnonzero(np.isfinite(logits) & (stem >= 0)):
            weight = np.log1p(max(logits[term] * scale[term] + bias[term], 0))
            out[text, stem[term]] = max(out[text, stem[term]], weight)
    return out


def read_by_decoder(model: RetrieverModel, ids: list[list[int]]) -> NDArray[np.float32]:
    mixed = model.trunk(pack(ids))[1]
    h: NDArray[np.float32] = model.sparse_head.transformed(mixed)[0].detach().numpy()
    return h


def test_weights_are_those_of_the_definition() -> None:
    model, ids = network(), texts()
    with torch.inference_mode():
        found = model.encode(pack(ids)).sparse
        expected = naive(model, ids, read_by_decoder(model, ids))
    assert found is not None
    assert (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_training_sees_the_same_weights() -> None:
    model, ids = network(), texts()
    terms = torch.arange(20, 200)
    with torch.inference_mode():
        expected = model.encode(pack(ids)).sparse
    found = model.encode(pack(ids)).sparse
    assert expected is not None and found is not None and found.requires_grad
    torch.testing.assert_close(found, expected)
    packed = pack(ids)
    mixed = model.trunk(packed)[1]
    some, _ = model.sparse_head(mixed, packed.groups, model.embeddings.word.weight, terms, token_ids=packed.input_ids)
    torch.testing.assert_close(some, expected[:, terms])
    some.sum().backward()
    assert model.embeddings.word.weight.grad is not None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_neighbours_change_no_bit(precision: str) -> None:
    model = network().set_precision(precision)
    ids = texts(1)
    with torch.inference_mode():
        together = model.encode(pack(ids)).sparse
        alone = [model.encode(pack([text])).sparse for text in ids]
    assert together is not None
    assert torch.equal(torch.cat(alone), together)  # type: ignore[arg-type]


def test_all_clusters_are_the_whole_vocabulary() -> None:
    model = network(vocabulary_experts_per_token=CLUSTERS)
    plain = network(vocabulary_experts=0)
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.inference_mode():
        found, expected = model.encode(pack(texts())).sparse, plain.encode(pack(texts())).sparse
    torch.testing.assert_close(found, expected)


def test_clusters_are_balanced_and_terms_lie_near_their_centre() -> None:
    model = network(vocabulary_experts=0)
    found = cluster_vocabulary(model, 12)
    head = model.sparse_head
    assert torch.equal(found.cluster >= 0, head.allowed)
    counts = torch.bincount(found.cluster[found.cluster >= 0], minlength=12)
    assert counts.min() >= 1 and counts.max() <= np.ceil(SLACK * int(head.allowed.sum()) / 12)
    assert torch.equal(cluster_vocabulary(model, 12).cluster, found.cluster)
    points = torch.cat([model.embeddings.word.weight * head.scale.unsqueeze(1), head.bias.unsqueeze(1)], dim=1)
    points = torch.nn.functional.normalize(points)[head.allowed]
    cluster = found.cluster[head.allowed].long()
    centres = torch.cat([found.router, found.bias.unsqueeze(1)], dim=1)
    torch.testing.assert_close(centres[5], points[cluster == 5].mean(0))
    near = (points @ torch.nn.functional.normalize(centres).T).gather(1, cluster.unsqueeze(1)).mean()
    shuffled = cluster[torch.randperm(len(cluster), generator=torch.Generator().manual_seed(0))]
    assert near > 1.5 * (points @ torch.nn.functional.normalize(centres).T).gather(1, shuffled.unsqueeze(1)).mean()


@pytest.mark.parametrize("storage", ["float32", "mixed"])
def test_a_folder_with_clusters(tiny_parent: Parent, tmp_path: Path, storage: str) -> None:
    plain = network(vocab_size=len(tiny_parent.tokenizer), vocabulary_experts=0)
    source = save_encoder(plain, tiny_parent.tokenizer, tmp_path / "plain", storage)
    result = CliRunner().invoke(
        cli, ["experts", "cluster", str(source), "--clusters", "8", "--per-token", "2", "-o", str(tmp_path / "new")]
    )
    assert result.exit_code == 0, result.output
    model, before = load_model(tmp_path / "new"), load_model(source)
    assert model.config.vocabulary_experts == 8 and model.config.vocabulary_experts_per_token == 2
    state = model.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(state[name], value), name
    found = cluster_vocabulary(before, 8)
    assert torch.equal(state["sparse_head.vocabulary.cluster"], found.cluster)
    torch.testing.assert_close(state["sparse_head.vocabulary.router"], found.router, atol=1e-2, rtol=0)
    fewer, more = count_parameters(model.config), count_parameters(before.config)
    assert more.active is not None and fewer.active is not None
    assert more.active - fewer.active == round(plain.embeddings.word.weight.numel() * 0.75) - 8 * (64 + 1)


@pytest.mark.parametrize(("clusters", "per_token"), [(0, 1), (10**6, 1), (8, 9)])
def test_impossible_numbers_are_refused(tiny_parent: Parent, tmp_path: Path, clusters: int, per_token: int) -> None:
    plain = network(vocab_size=len(tiny_parent.tokenizer), vocabulary_experts=0)
    source = save_encoder(plain, tiny_parent.tokenizer, tmp_path / "plain", "float32")
    with pytest.raises(UserError, match=r"allowed are 1 to"):
        save_with_clusters(source, cluster_vocabulary(plain, clusters), reach=Reach(per_token), output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_settings_are_checked() -> None:
    with pytest.raises(Exception, match="vocabulary_experts_per_token is 25, allowed are 1 to vocabulary_experts"):
        RetrieverConfig(vocabulary_experts=24, vocabulary_experts_per_token=25)
