"""The losses by hand-computed values and gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from retriever.train.losses import (
    anchor_loss,
    contrastive_loss,
    flops_loss,
    listwise_distillation,
    margin_mse,
    matryoshka_loss,
    quadratic_warmup,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SCORES = [[2.0, 0.5, -1.0], [0.0, 1.0, 3.0]]


def leaf(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()


def gradcheck(function: Any, *inputs: Tensor) -> bool:
    return torch.autograd.gradcheck(function, inputs)


def test_contrastive_loss_by_hand() -> None:
    scores = leaf(SCORES)
    loss = contrastive_loss(scores, torch.tensor([0, 1]))
    sums = [sum(map(math.exp, row)) for row in SCORES]
    assert float(loss.detach()) == pytest.approx(-(2.0 - math.log(sums[0]) + 1.0 - math.log(sums[1])) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    # (softmax - target) / queries
    expected = [[math.exp(s) / sums[i] - (j == i) for j, s in enumerate(row)] for i, row in enumerate(SCORES)]
    np.testing.assert_allclose(scores.grad, np.array(expected) / 2, rtol=1e-9)


def test_excluded_candidates_neither_count_nor_get_a_gradient() -> None:
    scores = leaf(SCORES)
    excluded = torch.tensor([[False, False, False], [False, False, True]])
    loss = contrastive_loss(scores, torch.tensor([0, 1]), excluded)
    first = 2.0 - math.log(sum(map(math.exp, SCORES[0])))
    second = 1.0 - math.log(math.exp(0.0) + math.exp(1.0))
    assert float(loss.detach()) == pytest.approx(-(first + second) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None and scores.grad[1, 2] == 0 and scores.grad[1, 0] > 0
    teacher = torch.tensor([[1.0, 0.0, 9.0], [3.0, 2.0, 9.0]], dtype=torch.float64)
    last = torch.tensor([[False, False, True]] * 2)
    found = listwise_distillation(scores, teacher, last)
    torch.testing.assert_close(found, listwise_distillation(scores[:, :2], teacher[:, :2]))


def test_listwise_distillation_is_scipys_divergence() -> None:
    scores, teacher = draw(4, 5), draw(4, 5).detach() * 2 + 1
    found = listwise_distillation(scores, teacher)
    p, q = (scipy.special.softmax(values.detach().numpy(), axis=1) for values in (teacher, scores))
    assert float(found.detach()) == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean())
    found.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad, (q - p) / 4, atol=1e-12)
    assert gradcheck(lambda s: listwise_distillation(s, teacher), draw(4, 5))


def test_the_teacher_gets_no_gradient() -> None:
    scores, teacher = draw(2, 3), draw(2, 3)
    listwise_distillation(scores, teacher).backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None and scores.grad is not None
    positive, negatives = draw(2), draw(2, 3)
    margin_mse(draw(2), draw(2, 3), positive, negatives).backward()  # type: ignore[no-untyped-call]
    assert positive.grad is None and negatives.grad is None
    vectors, parent = draw(2, 3), draw(2, 3)
    anchor_loss(vectors, parent).backward()  # type: ignore[no-untyped-call]
    assert parent.grad is None and vectors.grad is not None


def test_margin_mse_by_hand() -> None:
    positive, negatives = leaf([3.0, 1.0]), leaf([[1.0, 0.0], [2.0, 5.0]])
    teacher_positive = torch.tensor([1.0, 1.0], dtype=torch.float64)
    teacher_negatives = torch.tensor([[0.5, 0.0], [0.0, 100.0]], dtype=torch.float64)
    loss = margin_mse(positive, negatives, teacher_positive, teacher_negatives)
    # margins 2 3 / -1 -4, the teacher's 0.5 1 / 1 -99
    assert float(loss.detach()) == pytest.approx((1.5**2 + 2**2 + 2**2 + 95**2) / 4)
    missing = torch.tensor([[False, False], [False, True]])
    loss = margin_mse(positive, negatives, teacher_positive, teacher_negatives, missing)
    assert float(loss.detach()) == pytest.approx((1.5**2 + 2**2 + 2**2) / 3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert positive.grad is not None and negatives.grad is not None
    np.testing.assert_allclose(positive.grad, [2 * (1.5 + 2) / 3, 2 * -2 / 3])
    np.testing.assert_allclose(negatives.grad, [[-2 * 1.5 / 3, -2 * 2 / 3], [2 * 2 / 3, 0]])


def test_anchor_loss_by_hand() -> None:
    vectors = leaf([[1.0, 0.0], [0.6, 0.8]])
    loss = anchor_loss(vectors, torch.tensor([[0.0, 1.0], [0.6, 0.8]], dtype=torch.float64))
    assert float(loss.detach()) == pytest.approx(1 - (0 + 1) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    np.testing.assert_allclose(vectors.grad, [[0, -0.5], [-0.3, -0.4]])


def test_flops_loss_by_hand() -> None:
    weights = leaf([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    loss = flops_loss(weights)
    assert float(loss.detach()) == pytest.approx(2**2 + 0 + 1**2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    np.testing.assert_allclose(weights.grad, [[2, 0, 1], [2, 0, 1]])  # 2 mean / texts
    times = torch.tensor([1.0, 7.0, 10.0], dtype=torch.float64)
    assert float(flops_loss(weights, times).detach()) == pytest.approx(2**2 + 10 * 1**2)
    assert gradcheck(lambda w: flops_loss(w, times), draw(2, 3))


def _flops_of_two(rank: int, file: str, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0]]) if rank == 0 else torch.tensor([[0.0, 8.0], [0.0, 0.0]])
    weights.requires_grad_()
    loss = flops_loss(weights)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.save((loss.detach(), weights.grad), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_flops_loss_is_over_the_texts_of_all_processes(tmp_path: Path) -> None:
    """Two processes of two texts are four texts; averaging the gradients over processes gives the one loss's."""
    context = torch.multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_flops_of_two, args=(rank, str(tmp_path / "meet"), str(tmp_path))) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    together = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 8.0], [0.0, 0.0]], requires_grad=True)
    expected = flops_loss(together)
    expected.backward()  # type: ignore[no-untyped-call]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for loss, _ in found:
        torch.testing.assert_close(loss, expected.detach())
    assert float(expected.detach()) == pytest.approx(1**2 + 2**2)
    gradient = torch.cat([gradient for _, gradient in found]) / 2  # as DistributedDataParallel averages
    torch.testing.assert_close(gradient, together.grad)


def test_matryoshka_loss_is_the_mean_over_prefixes() -> None:
    queries, documents = draw(2, 4), draw(3, 4).detach()
    found = matryoshka_loss(queries, documents, torch.tensor([0, 1]), (4, 1), 20.0)
    expected = 0.0
    for dim in (4, 1):
        for i in range(2):
            q = queries[i, :dim].detach().numpy()
            d = documents[:, :dim].numpy()
            cosines = d @ q / np.linalg.norm(q) / np.linalg.norm(d, axis=1)
            expected -= scipy.special.log_softmax(20 * cosines)[i] / 4
    assert float(found.detach()) == pytest.approx(expected)
    assert gradcheck(lambda q: matryoshka_loss(q, documents, torch.tensor([0, 1]), (2, 4), 2.0), draw(2, 4))
    excluded = torch.tensor([[False, False, True], [False, False, True]])
    without = matryoshka_loss(queries, documents, torch.tensor([0, 1]), (4,), 20.0, excluded)
    torch.testing.assert_close(without, matryoshka_loss(queries, documents[:2], torch.tensor([0, 1]), (4,), 20.0))


@given(st.integers(0, 100), st.integers(0, 50))
def test_quadratic_warmup(step: int, steps: int) -> None:
    assert quadratic_warmup(step, steps) == pytest.approx(1.0 if step >= steps else step * step / (steps * steps))
