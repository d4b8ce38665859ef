"""Whole training runs, tiny: both modes, repeated, interrupted, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import retriever.train.loop
from retriever.encoder.load import load_encoder
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.network.checkpoint import read_weights
from retriever.network.upcycle import UpcycleConfig, upcycle_checkpoint
from retriever.train.data.examples import SourceConfig
from retriever.train.loop import rehearse, train
from retriever.train.mixture import Mixture
from retriever.train.settings import LossWeights, TrainConfig
from retriever.train.trainer import loss_weights, parameter_groups
from retriever.types import UserError

if TYPE_CHECKING:
    from tests.conftest import Parent

STEPS = 6
FIGURES = {
    *("loss", "query_terms", "document_terms", "dead_terms", "saturated_terms", "dropped_tokens"),
    *("expert_load_max_0", "expert_entropy_0", "contrastive_fused", "distillation_lexical", "flops_document"),
}


@pytest.fixture(autouse=True)
def _few_passages_for_the_document_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever.train.loop, "FRACTION_PASSAGES", 200)


@pytest.fixture(scope="module")
def base(tiny_parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_parent.model.save_pretrained(folder)
    tiny_parent.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tiny_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = []
    for copy in range(4):
        for text in filter(str.strip, tiny_texts):
            words = text.split()
            record = {"query": " ".join(words[copy : copy + 6]), "positive": f"{text} {copy}"}
            lines.append(json.dumps(record | {"negatives": [f"the moon {copy}"], "scores": [3.0, 1.0]}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(params=["frozen", "all layers"])
def config(request: pytest.FixtureRequest, base: Path, pairs: Path, tmp_path: Path) -> TrainConfig:
    """Return six steps with a frozen trunk and its cache, or of everything with experts in the trunk."""
    return make_config(request.param, base, pairs, tmp_path)


def make_config(mode: str, base: Path, pairs: Path, folder: Path, **changes: Any) -> TrainConfig:
    frozen = mode == "frozen"
    head = {"head_experts": 4, "head_intermediate_size": 16, "logit_scale": 0.05, "logit_bias": 0.2}
    config = TrainConfig(
        base=str(base),
        output=str(folder / "encoder"),
        sources=(SourceConfig(str(pairs)),),
        upcycle={**head, "moe_layers": () if frozen else (1,)},
        losses=LossWeights(teacher=0.5, margin=0.1, matryoshka=0.0 if frozen else 1.0, flops_warmup=4),
        frozen_layers=2 if frozen else 0,
        steps=STEPS,
        batch=4,
        topic_window=16,
        query_tokens=16,
        document_tokens=32,
        matryoshka_dims=(16, 8),
        warmup_steps=2,
        log_every=2,
        save_every=3,
        storage="float32",
    )
    return replace(config, **changes)


def log_of(config: TrainConfig) -> list[dict[str, float]]:
    lines = Path(f"{config.output}.run/log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    found = read_weights(config.output)
    assert found is not None
    return found


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run(config: TrainConfig, base: Path) -> None:
    """It learns, logs what there is to watch, and makes an encoder; a frozen trunk stays its parent's."""
    assert str(train(config, progress=False)) == config.output
    lines = log_of(config)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert set(line) >= FIGURES
        assert all(math.isfinite(value) for value in line.values())
        assert line["dropped_tokens"] == 0 and 0 <= line["expert_entropy_0"] <= 1
    frozen = config.frozen_layers == 2
    assert ("anchor" in lines[0], "matryoshka" in lines[0]) == (not frozen, not frozen)
    assert ("expert_load_max_1" in lines[0]) == (not frozen)  # the head's, behind the trunk's
    encoder = load_encoder(config.output)
    encoded = encoder.encode_documents(["Yeast makes bread rise.", "the moon"])
    assert encoded.dense is not None and encoded.sparse is not None and encoded.sparse.nnz > 0
    start = retriever.train.loop._start(config).model
    found, before = weights(config), start.state_dict()
    moved = {name for name in found if not torch.equal(found[name], before[name])}
    assert {"sparse_head.scale", "sparse_head.transform.weight", "lexical.gain", "lexical.fraction"} <= moved
    assert "sparse_head.experts.down_proj" in moved
    assert not any(name.startswith("embeddings.") for name in moved)
    assert any(name.startswith("layers.") for name in moved) == (not frozen)
    assert "lexical.log_weight" in moved


def test_the_same_seed_gives_the_same_weights(config: TrainConfig, tmp_path: Path) -> None:
    train(config, progress=False)
    again = replace(config, output=str(tmp_path / "again"))
    train(again, progress=False)
    assert_same_weights(weights(config), weights(again))
    other = replace(config, output=str(tmp_path / "other"), seed=1)
    train(other, progress=False)
    name = "sparse_head.scale"
    assert not torch.equal(weights(config)[name], weights(other)[name])


def test_an_interrupted_run_goes_on_to_the_same_weights(config: TrainConfig, tmp_path: Path) -> None:
    """The last checkpoint is cut off in the middle, as by a kill, so the run goes on from the one before."""
    train(config, progress=False)
    whole, log = weights(config), log_of(config)
    shutil.rmtree(config.output)
    run = tmp_path / "encoder.run"
    (run / "checkpoint-6" / "trainer_state.json").unlink()
    with pytest.raises(UserError, match="holds an unfinished run; continue it with --resume"):
        train(config, progress=False)
    with pytest.raises(UserError, match="begun with seed 0, cannot continue with 1; give the same settings"):
        train(replace(config, seed=1), resume=True, progress=False)
    train(replace(config, save_every=100), resume=True, progress=False)
    assert_same_weights(whole, weights(config))
    again = log_of(config)
    assert [line["step"] for line in again] == [2, 4, 6]
    assert again[0] == log[0] and again[-1]["contrastive_fused"] == log[-1]["contrastive_fused"]


def test_a_run_killed_before_its_encoder_was_written(base: Path, pairs: Path, tmp_path: Path) -> None:
    config = make_config("frozen", base, pairs, tmp_path)
    train(config, progress=False)
    whole, log = weights(config), log_of(config)
    shutil.rmtree(config.output)
    train(config, resume=True, progress=False)
    assert_same_weights(whole, weights(config))
    assert log_of(config) == log


def test_a_share_of_the_training_is_kept(base: Path, pairs: Path, tmp_path: Path) -> None:
    config = make_config("frozen", base, pairs, tmp_path)
    train(config, progress=False)
    whole = weights(config)
    shutil.rmtree(config.output)
    half = replace(config, trained_share=0.5)
    train(half, resume=True, progress=False)
    start = upcycle_checkpoint(config.base, UpcycleConfig(**config.upcycle))[0].state_dict()
    for name in ("sparse_head.experts.down_proj", "lexical.log_weight", "embeddings.word.weight"):
        torch.testing.assert_close(weights(half)[name], (whole[name] + start[name]) / 2)
    assert not torch.equal(whole["lexical.log_weight"], start["lexical.log_weight"])
    with pytest.raises(UserError, match="trained_share is 0"):
        replace(config, trained_share=0.0)


def test_a_router_that_begins_as_clusters(base: Path, pairs: Path, tmp_path: Path) -> None:
    """It begins elsewhere than a random one, the same after an interruption, and is what the share goes back to."""
    config = make_config("frozen", base, pairs, tmp_path, head_router="kmeans")
    config = replace(config, upcycle=config.upcycle | {"head_shared_experts": 1}, trained_share=0.5)
    train(config, progress=False)
    whole = weights(config)
    assert whole["sparse_head.experts.shared_down_proj"].abs().max() > 0
    shutil.rmtree(config.output)
    shutil.rmtree(tmp_path / "encoder.run" / "checkpoint-6")
    train(config, resume=True, progress=False)
    assert_same_weights(whole, weights(config))
    shutil.rmtree(config.output)
    train(replace(config, trained_share=1e-6), resume=True, progress=False)
    start = weights(config)["sparse_head.experts.router"]
    random = retriever.train.loop._start(config)[0].state_dict()["sparse_head.experts.router"]
    share = start.norm(dim=1)
    torch.testing.assert_close(share, share.mean().expand(4), rtol=0.1, atol=0)  # centres of unit vectors, scaled
    assert share.mean() > 2 * random.norm(dim=1).mean()
    other = replace(config, output=str(tmp_path / "other"), head_router="random")
    train(other, progress=False)
    assert not torch.allclose(weights(other)["sparse_head.experts.router"], whole["sparse_head.experts.router"])


def test_goes_on_from_an_encoder(base: Path, pairs: Path, tmp_path: Path) -> None:
    first = make_config("frozen", base, pairs, tmp_path)
    train(first, progress=False)
    second = replace(first, base=first.output, output=str(tmp_path / "second"), upcycle={}, storage="int8")
    train(second, progress=False)
    assert isinstance(load_encoder(second.output), MoEEncoder)
    with pytest.raises(UserError, match="is an encoder already; leave `upcycle` out"):
        train(replace(second, output=str(tmp_path / "third"), upcycle=first.upcycle), progress=False)


def test_states_are_shared_by_runs(base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("frozen", base, pairs, tmp_path, states=str(tmp_path / "states"))
    train(config, progress=False)
    size = (tmp_path / "states" / "states.f16").stat().st_size
    assert size > 0 and not (tmp_path / "encoder.run" / "states").exists()
    train(replace(config, output=str(tmp_path / "other")), progress=False)
    assert (tmp_path / "states" / "states.f16").stat().st_size == size


@pytest.mark.parametrize(
    ("bias", "words"),
    [(50.0, "collapsed: 0.0 expanded terms .*; lower losses.flops_document"), (-9.0, "; raise losses.flops_document")],
)
def test_a_collapse_stops_the_run(base: Path, pairs: Path, tmp_path: Path, bias: float, words: str) -> None:
    config = make_config("frozen", base, pairs, tmp_path)
    config = replace(config, upcycle=config.upcycle | {"logit_bias": bias})
    with pytest.raises(UserError, match=words) as caught:
        train(config, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "encoder").exists()


def test_an_output_that_exists_is_left_alone(base: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    with pytest.raises(UserError, match="exists already; give another output"):
        train(make_config("frozen", base, pairs, tmp_path), progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frozen_layers": 3}, "frozen_layers is 3, the base allows at most 2"),
        ({"document_tokens": 65}, "document_tokens is 65, the base allows at most 64"),
        ({"head_router": "kmeans", "upcycle": {}}, "head_router is 'kmeans', but the sparse head has no experts"),
        ({"frozen_layers": 1, "states": "somewhere"}, "states is 'somewhere', but .*; set frozen_layers to 2"),
        ({"base": "/no/such/folder"}, "no such folder"),
        ({"upcycle": {"magic": 1}}, "upcycle: unknown setting 'magic'"),
        (
            {"frozen_layers": 0, "matryoshka_dims": (64,), "losses": LossWeights(matryoshka=1.0)},
            r"matryoshka_dims are \[64\], the base has 32",
        ),
    ],
)
def test_settings_that_do_not_fit_the_base(
    base: Path, pairs: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        train(replace(make_config("frozen", base, pairs, tmp_path), **changes), progress=False)
    assert list(tmp_path.iterdir()) == [] or not list(tmp_path.glob("*/checkpoint-*"))


def test_nothing_to_go_on_from(base: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint to continue from; leave --resume out"):
        train(make_config("frozen", base, pairs, tmp_path), resume=True, progress=False)


def test_without_accelerate(base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever.train.loop, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'hybrid-retriever\[train\]'"):
        train(make_config("frozen", base, pairs, tmp_path), progress=False)


def test_a_rehearsal_writes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    found = rehearse(config)
    assert list(tmp_path.iterdir()) == []
    assert (found.queries, found.passages) == (4, 8)
    assert found.figures["contrastive_fused"] > 0
    kinds = {"head", "terms"} if config.frozen_layers else {"head", "terms", "trunk", "experts"}
    assert set(found.parameters) == kinds
    first = replace(config, precision="float32", log_every=1, steps=1)
    train(first, progress=False)
    assert log_of(first)[0]["contrastive_lexical"] == pytest.approx(found.figures["contrastive_lexical"], abs=2e-3)


def test_each_batch_is_of_one_source(base: Path, pairs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({"query": f"q{i}", "positive": f"other {i}"}) for i in range(40)))
    sources = (SourceConfig(str(pairs), 3.0), SourceConfig(str(other), 1.0))
    config = make_config("frozen", base, pairs, tmp_path, sources=sources)
    found = list(islice(Mixture(config, skip=0), 200))
    names = [{example.source for example in batch} for batch in found]
    assert all(len(each) == 1 for each in names)
    assert 25 <= names.count({"other"}) <= 80  # a quarter
    assert list(islice(Mixture(config, skip=150), 50)) == found[150:]
    shuffled = list(islice(Mixture(replace(config, topic_window=0), skip=0), 200))
    assert shuffled != found and len(shuffled) == 200


def test_loss_weights() -> None:
    losses = LossWeights(
        contrastive=2, contrastive_dense=0.5, fused_distillation=3, flops_query=4, flops_document=8, flops_warmup=10
    )
    config = TrainConfig("base", "output", (), losses=losses, steps=100)
    found = loss_weights(config, 5)
    assert found["contrastive_lexical"] == found["contrastive_encoder"] == found["contrastive_fused"] == 2
    assert (found["contrastive_dense"], found["distillation_dense"], found["distillation_lexical"]) == (0.5, 1.5, 3)
    assert (found["flops_query"], found["flops_document"]) == (1.0, 2.0)
    assert found["load_balancing"] == pytest.approx(0.95 * losses.load_balancing)
    last = loss_weights(config, 100)
    assert (last["flops_query"], last["load_balancing"], last["router_z"]) == (4, 0, 0)


def test_every_parameter_that_learns_has_one_kind(base: Path, pairs: Path, tmp_path: Path) -> None:
    model, *_ = retriever.train.loop._start(make_config("all layers", base, pairs, tmp_path))
    groups = parameter_groups(model)
    names = {id(value): name for name, value in model.named_parameters()}
    kinds = {names[id(value)]: kind for kind, values in groups.items() for value in values}
    assert len(kinds) == len(names)
    expected = {
        "layers.1.feed_forward.router": "experts",
        "layers.1.feed_forward.up_bias": "experts",
        "layers.0.feed_forward.up.weight": "trunk",
        "layers.1.attention.qkv.bias": "trunk",
        "sparse_head.experts.up_proj": "head",
        "sparse_head.transform.weight": "head",
        "sparse_head.scale": "terms",
        "sparse_head.bias": "terms",
        "lexical.gain": "terms",
        "lexical.log_weight": "terms",
    }
    assert {name: kinds[name] for name in expected} == expected
