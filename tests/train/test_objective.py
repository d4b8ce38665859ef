"""The objective against naive computations over the whole vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

import retriever.train.objective
from retriever.encoder.vocabulary.lexicon import frame_ids
from retriever.network.model import RetrieverModel
from retriever.network.upcycle import UpcycleConfig, upcycle
from retriever.train.data.pairs import Example
from retriever.train.losses import flops_loss
from retriever.train.objective import Collator, Objective, _false_negatives
from retriever.train.settings import LossWeights, TrainConfig
from retriever.train.states import StateCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Parent

CONFIG = TrainConfig("base", "output", (), batch=4, query_tokens=12, document_tokens=24, negatives=2)
VOCAB = 200


class Setup(NamedTuple):
    model: RetrieverModel
    collate: Collator


@pytest.fixture
def setup(tiny_parent: Parent) -> Setup:
    model = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig(head_experts=2, head_intermediate_size=16))
    generator = torch.Generator().manual_seed(4)
    head = model.sparse_head
    with torch.no_grad():
        head.scale.fill_(0.1)
        head.bias.fill_(-0.2)
        head.transform.weight.copy_(torch.randn(32, 32, generator=generator) * 0.1)
        model.lexical.log_weight.copy_(torch.randn(VOCAB, generator=generator) * 0.3)
        model.lexical.gain.fill_(1.4)
    fast = tiny_parent.tokenizer.backend_tokenizer
    return Setup(model, Collator(fast, head.stem.numpy(), frame_ids(fast), CONFIG))


def example(
    query: str, positive: str, negatives: tuple[str, ...] = (), scores: tuple[float, ...] | None = None
) -> Example:
    return Example(query, positive, negatives, scores, "made", "")


@pytest.fixture
def examples(tiny_texts: list[str]) -> list[Example]:
    texts = [text for text in tiny_texts if text.strip()]
    return [
        example(texts[0][:40], texts[0], (texts[5], texts[6]), (9.0, 2.0, 5.0)),
        example(texts[1][:40], texts[1]),
        example(texts[2][:40], texts[2], (texts[7],), (4.0, 3.0)),
        example(texts[3][:30], texts[3], (texts[8], texts[9])),
    ]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StateCache]:
    cache = StateCache(tmp_path, 32)
    yield cache
    cache.close()


class Naive(NamedTuple):
    """Scores of each view (queries, candidates), expansions over the whole vocabulary."""

    views: dict[str, Tensor]
    query_expansions: Tensor
    expansions: Tensor


def naive(setup: Setup, tokenizer: object, queries: list[str], passages: list[str], scale: float) -> Naive:
    """Encode each text alone with the network, count its tokens in a loop, and score over all terms."""
    model = setup.model

    def encode(texts: list[str], room: int) -> tuple[Tensor, Tensor, Tensor]:
        dense, sparse, counts = [], [], torch.zeros(len(texts), VOCAB)
        for row, text in enumerate(texts):
            ids = tokenizer.encode(text, add_special_tokens=False)  # type: ignore[attr-defined]
            for token in ids:
                if model.sparse_head.stem[token] >= 0:
                    counts[row, int(model.sparse_head.stem[token])] += 1
            with torch.no_grad():
                out = model(torch.tensor([[2, *ids[: room - 2], 3]]))
            dense.append(out.dense[0])
            sparse.append(out.sparse[0])
        return torch.stack(dense), torch.stack(sparse), counts

    q_dense, q_sparse, q_counts = encode(queries, CONFIG.query_tokens)
    d_dense, d_sparse, d_counts = encode(passages, CONFIG.document_tokens)
    with torch.no_grad():
        weights = d_sparse + model.lexical.documents(d_counts)
        lexical = scale * model.lexical.queries(q_counts) @ weights.T
        encoder = scale * model.lexical.queries(q_counts, q_sparse) @ weights.T
    dense = 20 * q_dense @ d_dense.T
    views = {"dense": dense, "lexical": lexical, "encoder": encoder, "fused": dense + lexical}
    return Naive(views, q_sparse, d_sparse)


def candidates(examples: list[Example]) -> list[str]:
    return [e.positive for e in examples] + [text for e in examples for text in e.negatives]


def test_losses_are_those_of_scores_over_the_whole_vocabulary(
    setup: Setup, tiny_parent: Parent, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small sample of the terms that no query has changes the scores by nothing."""
    monkeypatch.setattr(retriever.train.objective, "SAMPLED_TERMS", 5)
    monkeypatch.setattr(retriever.train.objective, "MARGIN", 2.0)  # nobody is a false negative
    objective = Objective(setup.model, CONFIG, None, None)
    with torch.no_grad():
        objective.log_sparse_scale.fill_(-0.5)
    outcome = objective(setup.collate(examples), 7)
    scale = float(np.exp(-0.5))
    wanted = naive(setup, tiny_parent.tokenizer, [e.query for e in examples], candidates(examples), scale)
    softmax = {name: scipy.special.log_softmax(view.double().numpy(), 1) for name, view in wanted.views.items()}
    for name, log in softmax.items():
        assert float(outcome.losses[f"contrastive_{name}"].detach()) == pytest.approx(-np.diag(log).mean(), rel=1e-4)
        top = (wanted.views[name].argmax(1) == torch.arange(4)).float().mean()
        assert float(outcome.figures[f"top1_{name}"]) == pytest.approx(float(top))
    for name in ("dense", "lexical", "encoder"):
        divergence = (np.exp(softmax["fused"]) * (softmax["fused"] - softmax[name])).sum(1).mean()
        found = float(outcome.losses[f"distillation_{name}"].detach())
        assert found == pytest.approx(divergence, rel=1e-3, abs=1e-5)
    assert float(outcome.losses["flops_query"].detach()) == pytest.approx(
        float(wanted.query_expansions.mean(0).square().sum()), rel=1e-4
    )
    assert float(outcome.figures["query_terms"]) == float((wanted.query_expansions > 0).sum(1).float().mean())
    assert len(outcome.routings) == 2 and outcome.routings[-1].logits.shape[-1] == 2


def test_with_all_terms_the_documents_figures_are_exact(
    setup: Setup, tiny_parent: Parent, examples: list[Example]
) -> None:
    outcome = Objective(setup.model, CONFIG, None, None)(setup.collate(examples), 0)
    wanted = naive(setup, tiny_parent.tokenizer, [e.query for e in examples], candidates(examples), 1.0)
    exact = float(wanted.expansions.mean(0).square().sum())
    assert float(outcome.losses["flops_document"].detach()) == pytest.approx(exact, rel=1e-4)
    positive = (wanted.expansions > 0).float()
    assert float(outcome.figures["document_terms"]) == pytest.approx(float(positive.sum(1).mean()))
    np.testing.assert_array_equal(outcome.active, positive.sum(0))
    head = setup.model.sparse_head
    assert outcome.seen[head.allowed].unique().tolist() == [float(len(positive))]


def test_the_sampled_flops_loss_is_unbiased(
    setup: Setup, tiny_parent: Parent, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever.train.objective, "SAMPLED_TERMS", 12)
    queries = [e.query for e in examples[:1]]
    wanted = naive(setup, tiny_parent.tokenizer, queries, candidates(examples), 1.0)
    objective = Objective(setup.model, CONFIG, None, None)
    counts = setup.collate(examples[:1]).queries.counts
    estimates, exact = [], float(flops_loss(wanted.expansions))
    for step in range(3000):
        terms, times = objective._terms(counts, torch.zeros(1, VOCAB), step)
        assert len(terms) < VOCAB / 2
        estimates.append(float(flops_loss(wanted.expansions[:, terms], times)))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert error < 0.05 * exact
    assert abs(np.mean(estimates) - exact) < 4 * error


def test_the_step_decides_the_sample(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever.train.objective, "SAMPLED_TERMS", 12)
    counts = torch.zeros(2, VOCAB)
    counts[0, 70] = 1

    def terms(step: int, seed: int = 0) -> list[int]:
        objective = Objective(setup.model, replace(CONFIG, seed=seed), None, None)
        return objective._terms(counts, torch.zeros(2, VOCAB), step)[0].tolist()

    assert terms(3) == terms(3)
    assert terms(3) != terms(4) and terms(3) != terms(3, seed=1)
    assert 70 in terms(3) and len(terms(3)) == len(set(terms(3)))


def test_every_part_that_learns_gets_a_gradient(setup: Setup, examples: list[Example], cache: StateCache) -> None:
    objective = Objective(setup.model, CONFIG, None, None)
    setup.model.embeddings.requires_grad_(False)
    with torch.no_grad():  # they begin at zero, where nothing behind them learns
        experts = setup.model.sparse_head.experts
        assert experts is not None
        experts.down_proj.normal_()
    parts = objective(setup.collate(examples), 0).losses
    torch.stack([part for name, part in parts.items() if name != "flops_document"]).sum().backward()  # type: ignore[no-untyped-call]
    silent = {name for name, value in objective.named_parameters() if value.requires_grad and value.grad is None}
    assert {name for name in silent if "shared" not in name} == set()
    cached = Objective(setup.model, CONFIG, None, cache)
    cached.zero_grad()
    torch.stack(list(cached(setup.collate(examples), 0).losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    moved = {name for name, value in cached.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    assert not any(name.startswith("model.layers") for name in moved)
    assert {"log_sparse_scale", "model.lexical.gain", "model.sparse_head.scale"} <= moved


def test_the_cache_gives_the_same_losses(setup: Setup, examples: list[Example], cache: StateCache) -> None:
    batch = setup.collate(examples)
    with torch.no_grad():
        without = Objective(setup.model, CONFIG, None, None)(batch, 0)
        cached = Objective(setup.model, CONFIG, None, cache)(batch, 0)
    assert set(without.losses) - set(cached.losses) == {"anchor"}
    for name, value in cached.losses.items():
        if name not in ("load_balancing", "router_z"):  # of the trunk's experts, too
            torch.testing.assert_close(value, without.losses[name], rtol=0.02, atol=0.01)


def test_false_negatives_by_hand() -> None:
    similarity = torch.tensor(
        [
            [0.80, 0.77, 0.75, -0.9],  # above 0.95 * 0.80 = 0.76
            [0.50, 0.40, 0.37, 0.381],  # above 0.95 * 0.40 = 0.38
            [-0.22, -0.19, -0.20, -0.205],  # the positive is -0.20: above -0.20 - 0.05 * 0.20 = -0.21
        ]
    )
    assert _false_negatives(similarity).tolist() == [
        [False, True, False, False],
        [True, False, False, True],
        [False, True, False, True],
    ]


def test_a_copy_of_the_positive_is_no_negative(setup: Setup, examples: list[Example]) -> None:
    """The same passage twice would make the loss of both at least log 2."""
    twin = example(examples[1].query, examples[0].positive)
    outcome = Objective(setup.model, CONFIG, None, None)(setup.collate([examples[0]._replace(negatives=()), twin]), 0)
    for name in ("dense", "lexical", "encoder", "fused"):
        assert float(outcome.losses[f"contrastive_{name}"].detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("larger", [1.0, 3.0])
def test_the_teachers_missing_scores_do_not_count(
    setup: Setup, tiny_parent: Parent, examples: list[Example], larger: float
) -> None:
    """Of four queries one has two scored negatives, one a single one, and two have no scores."""
    objective = Objective(setup.model, replace(CONFIG, teacher_scale=larger), None, None)
    outcome = objective(setup.collate(examples), 0)
    scale = float(objective.log_sparse_scale.detach().exp())
    wanted = naive(setup, tiny_parent.tokenizer, [e.query for e in examples], candidates(examples), scale)
    fused = wanted.views["fused"].double().numpy()
    # Candidates 4 and 5 are the first query's negatives, 6 the third's.
    margins = [(fused[0, 0] - fused[0, 4], 9 - 2), (fused[0, 0] - fused[0, 5], 9 - 5), (fused[2, 2] - fused[2, 6], 1)]
    found = float(outcome.losses["margin"].detach())
    assert found == pytest.approx(np.mean([(own - larger * teacher) ** 2 for own, teacher in margins]), rel=1e-3)
    divergence = []
    for scores, teacher in ((fused[0, [0, 4, 5]], [9.0, 2.0, 5.0]), (fused[2, [2, 6]], [4.0, 3.0])):
        p, q = scipy.special.log_softmax(larger * np.array(teacher)), scipy.special.log_softmax(scores)
        divergence.append((np.exp(p) * (p - q)).sum())
    assert float(outcome.losses["teacher"].detach()) == pytest.approx(np.mean(divergence), rel=1e-3)
    without = [e._replace(scores=None) for e in examples]
    assert not {"teacher", "margin"} & set(objective(setup.collate(without), 0).losses)
    alone = [examples[1]._replace(scores=(1.0,)), examples[3]]
    assert not {"teacher", "margin"} & set(objective(setup.collate(alone), 0).losses)


def test_matryoshka_where_the_trunk_learns(setup: Setup, examples: list[Example], cache: StateCache) -> None:
    config = replace(CONFIG, losses=LossWeights(matryoshka=1.0), matryoshka_dims=(16, 8))
    batch = setup.collate(examples)
    outcome = Objective(setup.model, config, None, None)(batch, 0)
    assert float(outcome.losses["matryoshka"].detach()) > float(outcome.losses["contrastive_dense"].detach())
    assert outcome.losses["matryoshka"].requires_grad
    full = Objective(setup.model, replace(config, matryoshka_dims=(32,)), None, None)(batch, 0)
    torch.testing.assert_close(full.losses["matryoshka"], full.losses["contrastive_dense"])
    assert "matryoshka" not in Objective(setup.model, CONFIG, None, None)(batch, 0).losses
    assert "matryoshka" not in Objective(setup.model, config, None, cache)(batch, 0).losses


def test_the_anchor_is_the_parents_cosine(setup: Setup, tiny_parent: Parent, examples: list[Example]) -> None:
    parent = upcycle(tiny_parent.model, tiny_parent.tokenizer, UpcycleConfig())
    batch = setup.collate(examples)
    assert float(Objective(setup.model, CONFIG, parent, None)(batch, 0).losses["anchor"].detach()) < 1e-5
    with torch.no_grad():
        setup.model.layers[1].feed_forward_norm.bias.add_(torch.linspace(-1, 1, 32))  # type: ignore[union-attr,operator]
    objective = Objective(setup.model, CONFIG, parent, None)
    moved = objective(batch, 0).losses["anchor"]
    assert float(moved.detach()) > 0.01 and moved.requires_grad
    assert not any("parent" in name for name, _ in objective.named_parameters())


def _terms_of_two(rank: int, file: str, folder: str, model: RetrieverModel) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    counts = torch.zeros(1, VOCAB)
    counts[0, 60 + rank] = 1
    found = Objective(model, CONFIG, None, None)._terms(counts, torch.zeros(1, VOCAB), 5)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_compute_the_same_terms(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all their queries, and one sample: the FLOPS loss adds their weights up."""
    monkeypatch.setattr(retriever.train.objective, "SAMPLED_TERMS", 10)
    context = torch.multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_terms_of_two, args=(rank, str(tmp_path / "meet"), str(tmp_path), setup.model))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (terms, times), (others, other_times) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(terms, others) and torch.equal(times, other_times)
    assert {60, 61} <= set(terms.tolist()) and 12 <= len(terms) < 60
