"""Training vocabulary experts: what tokens win against a loop over tokens, and routers against untrained ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
import yaml
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.network.folder import load_model
from retriever.network.packing import pack
from retriever.network.vocabulary_clusters import VocabularyClusters, cluster_vocabulary
from retriever.train.experts.vocabulary_experts import LEAST_WEIGHT, Wins, joined, train_vocabulary_experts, wins
from tests.network.test_vocabulary_experts import network, texts

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.network.model import RetrieverModel

CLUSTERS = 12


def whole() -> RetrieverModel:
    """Return a small network that computes its whole vocabulary."""
    return network(vocabulary_experts=0)


def found_in(model: RetrieverModel, seeds: range) -> Wins:
    return joined(list(wins(model, [ids for seed in seeds for ids in texts(seed)])))


def test_wins_are_those_of_a_loop_over_tokens() -> None:
    """Each term of a text is won by the token that has its largest weight, and counted by its stem."""
    model = whole()
    head, rows = model.sparse_head, model.embeddings.word.weight.detach().numpy()
    scale, bias, stem, allowed = (value.detach().numpy() for value in (head.scale, head.bias, head.stem, head.allowed))
    found = found_in(model, range(1))
    ids = sorted(texts(), key=len)
    h = head.transformed(model.trunk(pack(ids))[1])[0].detach().numpy()
    np.testing.assert_allclose(found.states.numpy(), h, atol=0.01)
    assert found.own.tolist() == [token for text in ids for token in text]
    expected: dict[tuple[int, int], float] = {}
    first = 0
    for text in ids:
        logits = rows @ h[first : first + len(text)].T  # (vocab, tokens)
        weights = np.where(allowed, np.log1p(np.maximum(logits.max(1) * scale + bias, 0)), 0)
        best: dict[int, tuple[float, int]] = {}
        for term in np.flatnonzero(weights > LEAST_WEIGHT):
            weight = float(weights[term]), first + int(logits[term].argmax())
            best[int(stem[term])] = max(best.get(int(stem[term]), weight), weight)
        expected |= {(token, term): weight for term, (weight, token) in best.items()}
        first += len(text)
    pairs = list(zip(found.token.tolist(), found.term.tolist(), strict=True))
    assert set(pairs) == set(expected)
    np.testing.assert_allclose(
        found.weight.numpy(), [expected[pair] - LEAST_WEIGHT for pair in pairs], rtol=1e-3, atol=1e-4
    )


def share_computed(found: Wins, made: VocabularyClusters, per_token: int) -> float:
    """Return the share of the weight won that tokens still compute with the best clusters of a router."""
    scores = (found.states.float() @ made.router.T + made.bias).numpy()
    cluster, won = made.cluster.numpy(), 0.0
    own = cluster[found.own.numpy()]
    for token, term, weight in zip(found.token.tolist(), found.term.tolist(), found.weight.tolist(), strict=True):
        rank = sum(scores[token] > scores[token, cluster[term]])
        won += weight * bool(cluster[term] == own[token] or rank < per_token - 1)
    return won / float(found.weight.sum())


def test_a_trained_router_finds_more_than_centres_do() -> None:
    """On texts that it has not seen; clusters hold whole stems, and -1 what never counts."""
    model = whole()
    seen, other = found_in(model, range(1, 30)), found_in(model, range(30, 33))
    made = train_vocabulary_experts(model, seen, clusters=CLUSTERS, steps=150)
    assert share_computed(other, made, 3) > 1.2 * share_computed(other, cluster_vocabulary(model, CLUSTERS), 3)
    allowed, stem = model.sparse_head.allowed, model.sparse_head.stem.long()
    assert torch.equal(made.cluster < 0, ~allowed)
    assert torch.equal(made.cluster[allowed], made.cluster[stem[allowed]])
    again = train_vocabulary_experts(model, seen, clusters=CLUSTERS, steps=150)
    assert all(map(torch.equal, made, again))


def test_the_command_trains_on_the_sources_of_a_run(tmp_path: Path, tiny_encoder_folder: Path) -> None:
    """It writes an encoder that computes a few clusters a token; the texts need no negatives."""
    pairs = tmp_path / "pairs.jsonl"
    words = ["yeast", "bread", "flour", "dough", "moon", "tide", "orbit", "telescope"]
    examples = [{"query": word, "positive": f"{word} and {other} in the oven"} for word in words for other in words]
    pairs.write_text("".join(json.dumps(example) + "\n" for example in examples))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"base": "b", "output": "o", "sources": [{"path": str(pairs)}]}))
    sizes = ["--clusters", "8", "--per-token", "2", "--examples", "20", "--config", str(config)]
    arguments = ["experts", "cluster", str(tiny_encoder_folder), *sizes, "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    model = load_model(tmp_path / "out")
    assert model.config.vocabulary_experts_per_token == 2
    assert model.sparse_head.vocabulary is not None
    assert model.sparse_head.vocabulary.router.shape == (8, model.config.hidden_size)
