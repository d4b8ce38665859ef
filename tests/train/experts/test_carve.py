"""Carving: what keeps all neurons is the parent, training brings the rest nearer to it, and the command writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.network.packing import pack
from retriever.train.experts.carve import CarveConfig, CarvedLayer, carve_trunk
from retriever.train.experts.distil import distil
from retriever.types import UserError
from tests.helpers.sentence_folders import Shape, folder_of
from tests.network.test_vocabulary_experts import network, texts

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.network.model import RetrieverModel
    from tests.conftest import Parent

TEXTS = [ids for seed in range(12) for ids in texts(seed)]


def cosine(model: RetrieverModel, parent: RetrieverModel) -> float:
    """Return the mean cosine of the vectors of texts that no test trains on."""
    packed = pack(sorted([ids for seed in range(20, 24) for ids in texts(seed)], key=len))
    with torch.no_grad():
        found, wanted = (one.encode(packed, sparse=False).dense for one in (model, parent))
    assert found is not None and wanted is not None
    return float((found * wanted).sum(1).mean())


@pytest.mark.parametrize("experts", [0, 3])
def test_with_all_its_neurons_it_is_the_parent(experts: int) -> None:
    """Shared ones alone, or shared ones and experts that between them leave none out."""
    parent = network(vocabulary_experts=0)
    neurons = parent.config.intermediate_size // 4
    config = CarveConfig(experts=experts, shared_experts=3 if experts else 4, neurons=neurons, steps=0)
    found: list[CarvedLayer] = []
    model = carve_trunk(parent, TEXTS, config, done=found.append)
    assert [layer.layer for layer in found] == list(range(1, len(parent.layers) + 1))
    assert all(layer.before < 1e-9 and len(layer.load) == max(experts, 1) for layer in found)
    assert cosine(model, parent) > 1 - 1e-6
    packed = pack(sorted(texts(20), key=len))
    with torch.no_grad():
        ours, theirs = (one.encode(packed, dense=False).sparse for one in (model, parent))
    assert ours is not None and theirs is not None
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)


def test_training_brings_a_carved_trunk_nearer() -> None:
    """Each layer by itself, and then all together; tokens go where the router sends them, none is left out."""
    parent = network(vocabulary_experts=0)
    sizes = {"neurons": parent.config.intermediate_size // 4, "tokens": 256}
    raw = carve_trunk(parent, TEXTS, CarveConfig(**sizes, steps=0))
    found: list[CarvedLayer] = []
    model = carve_trunk(parent, TEXTS, CarveConfig(**sizes, steps=60), done=found.append)
    assert all(layer.after < layer.before and sum(layer.load) == pytest.approx(1) for layer in found)
    before = cosine(model, parent)
    assert cosine(raw, parent) < before < 1
    distil(model, parent, TEXTS, steps=30)
    assert cosine(model, parent) > before
    again = carve_trunk(parent, TEXTS, CarveConfig(**sizes, steps=0))
    assert all(torch.equal(value, raw.state_dict()[name]) for name, value in again.state_dict().items())


def test_what_cannot_be_carved_is_refused() -> None:
    parent = network(vocabulary_experts=0)
    with pytest.raises(UserError, match="more neurons than a layer has"):
        carve_trunk(parent, TEXTS, CarveConfig(neurons=parent.config.intermediate_size))
    carved = carve_trunk(parent, TEXTS, CarveConfig(neurons=4, steps=0))
    with pytest.raises(UserError, match="MoE layers already"):
        carve_trunk(carved, TEXTS, CarveConfig(neurons=2))


def test_the_command(tiny_parent: Parent, tmp_path: Path) -> None:
    """It writes an encoder that encodes in a path for documents and one for queries, alike."""
    words = ["yeast", "bread", "flour", "dough", "moon", "tide", "orbit", "telescope"]
    pairs = tmp_path / "pairs.jsonl"
    examples = [{"query": word, "positive": f"{word} and {other} in the oven"} for word in words for other in words]
    pairs.write_text("".join(json.dumps(example) + "\n" for example in examples))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"base": "b", "output": "o", "sources": [{"path": str(pairs)}]}))
    steps = ["--texts", "40", "--steps", "2", "--steps-together", "2", "--config", str(config)]
    base = folder_of(Shape("mean"), tiny_parent, tmp_path)
    arguments = ["carve", str(base), *steps, "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "layer 1: error" in done.output and "neurons of a layer" in done.output
    encoder = MoEEncoder(tmp_path / "out")
    text = "bread and dough in the oven"
    document, query = encoder.encode_documents([text]).dense, encoder.encode_queries([text]).dense
    assert document is not None and query is not None
    np.testing.assert_allclose(document, query, atol=1e-5)
    assert CliRunner().invoke(cli, arguments).exit_code == 1
