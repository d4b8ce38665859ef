"""What is logged of a training run, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from retriever.network.moe import Routing
from retriever.train.figures import Figures
from retriever.train.objective import Outcome
from retriever.types import UserError

VOCAB = 8


def outcome(
    loss: float = 1.0,
    terms: float = 2.0,
    seen: tuple[float, ...] = (4.0,) * VOCAB,
    active: tuple[float, ...] = (0.0, 4.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    experts: tuple[int, ...] = (0, 0, 1, 2),
    extra: dict[str, float] | None = None,
) -> Outcome:
    losses = {"contrastive_fused": torch.tensor(loss, requires_grad=True)}
    losses |= {name: torch.tensor(value) for name, value in (extra or {}).items()}
    n = len(experts)
    routing = Routing(torch.tensor(experts).view(n, 1), torch.ones(n, 1), torch.zeros(n, 4), torch.ones(n).bool())
    return Outcome(
        losses, {"document_terms": torch.tensor(terms)}, torch.tensor(seen), torch.tensor(active), (routing,)
    )


def test_means_since_the_last_line() -> None:
    figures = Figures()
    assert figures.collect() == {}
    figures.add(outcome(loss=1.0, terms=2.0))
    figures.add(outcome(loss=2.0, terms=1.0, extra={"teacher": 0.5}))
    found = figures.collect()
    assert (found["contrastive_fused"], found["document_terms"]) == (1.5, 1.5)
    assert found["teacher"] == 0.5  # the mean over the steps that had one
    assert found["dropped_tokens"] == 0
    assert figures.collect() == {}
    figures.add(outcome(loss=5.0))
    assert figures.collect()["contrastive_fused"] == 5.0


def test_dead_and_saturated_terms_are_shares_of_those_looked_at() -> None:
    figures = Figures()
    figures.add(outcome(seen=(4, 4, 4, 4, 4, 0, 0, 0), active=(0, 4, 3, 2, 1, 0, 0, 0)))
    found = figures.collect()
    assert found["dead_terms"] == pytest.approx(1 / 5)
    assert found["saturated_terms"] == pytest.approx(2 / 5)  # in more than half: 4 and 3 of 4


def test_load_and_entropy_count_unused_experts() -> None:
    figures = Figures()
    figures.add(outcome(experts=(0, 0, 1, 1)))
    found = figures.collect()
    assert (found["expert_load_max_0"], found["expert_entropy_0"]) == (0.5, 0.5)  # one bit of two
    figures.add(outcome(experts=(0, 1, 2, 3)))
    assert figures.collect()["expert_entropy_0"] == 1
    figures.add(outcome(experts=(3, 3)))
    found = figures.collect()
    assert (found["expert_load_max_0"], found["expert_entropy_0"]) == (1, 0)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (outcome(loss=math.nan), "the run diverged: contrastive_fused not finite"),
        (outcome(terms=0.4), "collapsed: 0.4 expanded terms a document, sensible are 1 to 2; lower"),
        (outcome(terms=2.5), "collapsed: 2.5 expanded terms a document, sensible are 1 to 2; raise"),
    ],
)
def test_runs_that_make_no_sense_stop(bad: Outcome, words: str) -> None:
    figures = Figures()
    figures.add(bad)
    with pytest.raises(UserError, match=words):
        figures.collect()
