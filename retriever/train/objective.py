"""The training objective: one pass over the queries and passages of a batch, both views, every loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from retriever.network.lexical import token_counts
from retriever.network.moe import load_balancing_loss, router_z_loss
from retriever.network.packing import Packed, pack
from retriever.network.prompts import Prompts, prompt_tokens
from retriever.train import losses
from retriever.train.states import States

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from retriever.network.model import RetrieverModel
    from retriever.network.moe import Routing
    from retriever.train.data.examples import Example
    from retriever.train.settings import TrainConfig
    from retriever.train.states import StateCache

__all__ = ["Batch", "Collator", "Objective", "Outcome"]

MARGIN = 0.95
"""A candidate whose cosine to the query, by the parent, is above this share of the positive's may be a positive itself
(the positive-aware threshold of NV-Retriever, Moreira et al. 2024): it is no negative."""

NO_PROMPTS = Prompts("", "")
SAMPLED_TERMS = 1024
STEP_SEEDS = 1_000_003
"""Seeds of the sampler are seed * STEP_SEEDS + step: a resumed run draws the same samples."""
LENGTH_STEP = 16
"""Texts of one length are one product of the attention: a batch of few lengths trains almost twice as fast."""


class Texts(NamedTuple):
    """tokens: what the network reads of each text; counts: float32 (texts, vocab), the tokens of each whole text.

    prompt: how many of the tokens of each text, from the second on, are its prompt's, which are not counted.
    """

    tokens: list[list[int]]
    counts: Tensor
    prompt: int = 0


@dataclass(frozen=True)
class Batch:
    """Queries and passages: first each query's positive, in order, then all negatives.

    owner: int64 (negatives,), whose negative each is; teacher: float32 (queries, 1 + most negatives), the data's scores
    of the positive and the negatives, nan where there is none, or None without any.
    """

    queries: Texts
    documents: Texts
    owner: Tensor
    teacher: Tensor | None


class Collator:
    """Turns examples into a batch, each text behind its prompt."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        stem: NDArray[np.int32],
        frame: tuple[int, int],
        config: TrainConfig,
        prompts: Prompts = NO_PROMPTS,
    ) -> None:
        self._tokenizer, self._stem, self._config = tokenizer, stem, config
        self._cls, self._sep = frame
        self._prompts = prompts

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """Tokenise; a query has its first `negatives` negatives."""
        limit = self._config.negatives
        owners = [row for row, example in enumerate(examples) for _ in example.negatives[:limit]]
        passages = [example.positive for example in examples]
        passages += [text for example in examples for text in example.negatives[:limit]]
        return Batch(
            self._texts([example.query for example in examples], self._config.query_tokens, self._prompts.query),
            self._texts(passages, self._config.document_tokens, self._prompts.document),
            torch.tensor(owners, dtype=torch.int64),
            _teacher(examples, limit),
        )

    def _texts(self, texts: list[str], room: int, prompt: str) -> Texts:
        own = self._ids(texts)
        ids = self._ids([prompt + text for text in texts]) if prompt else own
        tokens = [[self._cls, *read[: _cut(len(read), room - 2)], self._sep] for read in ids]
        counts = torch.from_numpy(token_counts(own, self._stem).toarray())
        return Texts(tokens, counts, prompt_tokens(self._tokenizer.encode(prompt, add_special_tokens=False).tokens))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _cut(length: int, room: int) -> int:
    """Return how many tokens to read: passages lose up to LENGTH_STEP - 1, so that many share their length."""
    length = min(length, room)
    return length if length < 2 * LENGTH_STEP else length - length % LENGTH_STEP


def _teacher(examples: Sequence[Example], limit: int) -> Tensor | None:
    rows = [example.scores[: 1 + limit] if example.scores else () for example in examples]
    if not any(rows):
        return None
    width = max(map(len, rows))
    return torch.tensor([[*row, *[torch.nan] * (width - len(row))] for row in rows])


class Outcome(NamedTuple):
    """losses: each part, not yet weighted; figures: what to watch; routings: one per MoE layer, of the passages.

    seen, active: (vocab,) how many passages' weights of a term were computed, and how many of these were positive.
    """

    losses: dict[str, Tensor]
    figures: dict[str, Tensor]
    seen: Tensor
    active: Tensor
    routings: tuple[Routing, ...]


class View(NamedTuple):
    """What the trunk gives for some texts: `States`, and the routing of its MoE layers."""

    states: States
    routings: tuple[Routing, ...]


class Objective(nn.Module):
    """Scores every query of a batch against every passage of it, in each view, and returns the parts of the loss.

    Views: dense; lexical (the query's own tokens against the documents' terms); encoder (its expansions, too); fused
    (dense plus lexical). `parent` gives the vectors that the dense view is held to and names false negatives; with a
    cache the trunk is frozen, and is its own parent.

    Documents' weights are computed for the terms that a query of the batch has, and for a sample of the others, from
    which the FLOPS loss is estimated without bias: no other term enters any score. With several processes these are the
    terms of all their queries and one sample, so that the loss can be taken over the passages of all.
    """

    def __init__(
        self, model: RetrieverModel, config: TrainConfig, parent: RetrieverModel | None, cache: StateCache | None
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = config
        # The temperature of the sparse scores: they are as large as BM25's.
        self.log_sparse_scale = nn.Parameter(torch.tensor(-1.5))
        self._parent = [parent]  # in a list it is no submodule: neither trained nor saved
        self._cache = cache

    def forward(self, batch: Batch, step: int) -> Outcome:
        """Return the losses of a batch; `step` of the run decides which terms are sampled."""
        queries, documents = self._view(batch.queries), self._view(batch.documents)
        anchors = [self._anchor(batch.queries, queries), self._anchor(batch.documents, documents)]
        model = self.model
        allowed = model.sparse_head.allowed
        counts = [texts.counts.to(model.device) * allowed for texts in (batch.queries, batch.documents)]
        query_expansions, _ = self._expansions(queries.states)
        terms, times = self._terms(counts[0], query_expansions, step)
        expansions, routing = self._expansions(documents.states, terms)
        routings = documents.routings + (() if routing is None else (routing,))
        with torch.autocast(model.device.type, enabled=False):  # scores need all of float32's digits
            weights = expansions + model.lexical.documents(counts[1])[:, terms]
            sparse = {
                "lexical": model.lexical.queries(counts[0])[:, terms] @ weights.T,
                "encoder": model.lexical.queries(counts[0], query_expansions)[:, terms] @ weights.T,
            }
            dense = queries.states.dense @ documents.states.dense.T
            excluded = _false_negatives(anchors[0] @ anchors[1].T)
            parts, figures = self._losses(dense, sparse, excluded, batch)
            if self._cache is None:
                parts |= self._trunk_losses(queries.states.dense, documents.states.dense, anchors, excluded)
            parts["flops_query"] = losses.flops_loss(query_expansions)
            parts["flops_document"] = losses.flops_loss(expansions, times)
            if routings:
                parts["load_balancing"] = torch.stack([load_balancing_loss(routing) for routing in routings]).mean()
                parts["router_z"] = torch.stack([router_z_loss(routing) for routing in routings]).mean()
        active = torch.zeros(len(model.lexical.fraction), device=model.device)
        positive = (expansions.detach() > 0).float()
        figures["query_terms"] = (query_expansions.detach() > 0).float().sum(1).mean()
        figures["document_terms"] = (positive * times).sum(1).mean()
        return Outcome(
            parts,
            figures,
            active.index_fill(0, terms, float(len(positive))),
            active.index_copy(0, terms, positive.sum(0)),
            routings,
        )

    @torch.no_grad()
    def hidden(self, batch: Batch) -> Tensor:
        """Return the hidden states (n_tokens, hidden) of all the batch's texts that the sparse head reads."""
        return torch.cat([self._view(texts).states.hidden for texts in (batch.queries, batch.documents)])

    def _view(self, texts: Texts) -> View:
        if self._cache is not None:
            return View(self._cache.states(self.model, texts.tokens, texts.prompt), ())
        return _run(self.model, texts)

    def _anchor(self, texts: Texts, view: View) -> Tensor:
        """Return the parent's vectors, (n, dim)."""
        parent = self._parent[0]
        if parent is None:
            return view.states.dense
        with torch.no_grad():
            return _run(parent, texts).states.dense

    def _expansions(self, states: States, terms: Tensor | None = None) -> tuple[Tensor, Routing | None]:
        """Return the sparse head's weights in the order of the texts."""
        model = self.model
        read, words = states.packed, model.embeddings.word.weight
        weights, routing = model.sparse_head(states.hidden, read.groups, words, terms, token_ids=read.input_ids)
        return weights[_inverse(states.order, weights.device)], routing

    def _terms(self, counts: Tensor, expansions: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the terms to compute for documents, int64 (m,), and how many terms each stands for, float32 (m,)."""
        active = (counts > 0).any(0) | (expansions.detach() > 0).any(0)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everywhere = active.float()
            torch.distributed.all_reduce(everywhere, op=torch.distributed.ReduceOp.MAX)
            active = everywhere > 0
        head = self.model.sparse_head
        stem = head.stem.clamp_min(0).long()
        others = (
            (~active & head.allowed & (head.stem == torch.arange(len(stem), device=stem.device))).nonzero().flatten()
        )
        sampler = torch.Generator().manual_seed(self.settings.seed * STEP_SEEDS + step)
        chosen = others[torch.randperm(len(others), generator=sampler)[:SAMPLED_TERMS].to(others.device)]
        wanted = active.index_fill(0, chosen, True)
        terms = (wanted[stem] & head.allowed).nonzero().flatten()  # a stem needs all its terms
        return terms, torch.where(active[stem[terms]], 1.0, len(others) / max(len(chosen), 1))

    def _losses(
        self, dense: Tensor, sparse: dict[str, Tensor], excluded: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the losses of the scores, each (queries, candidates), and what to watch of them."""
        targets = torch.arange(len(dense), device=dense.device)
        scale = self.log_sparse_scale.exp()
        views = {"dense": self.settings.dense_scale * dense} | {name: scale * view for name, view in sparse.items()}
        views["fused"] = views["dense"] + views["lexical"]
        parts = {
            f"contrastive_{name}": losses.contrastive_loss(view, targets, excluded) for name, view in views.items()
        }
        for name in ("dense", "lexical", "encoder"):
            if name != "dense":
                parts[f"dense_distillation_{name}"] = losses.listwise_distillation(
                    views[name], views["dense"], excluded
                )
            parts[f"distillation_{name}"] = losses.listwise_distillation(views[name], views["fused"], excluded)
        if batch.teacher is not None:
            parts |= _teacher_losses(views["fused"], batch, self.settings.teacher_scale)
        figures = {f"top1_{name}": (view.argmax(1) == targets).float().mean() for name, view in views.items()}
        return parts, figures | {"sparse_scale": scale.detach()}

    def _trunk_losses(
        self, queries: Tensor, documents: Tensor, anchors: list[Tensor], excluded: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the vectors (n, hidden), which only a trunk that learns can have."""
        settings = self.settings
        near = (losses.anchor_loss(queries, anchors[0]) + losses.anchor_loss(documents, anchors[1])) / 2
        if not settings.losses.matryoshka:
            return {"anchor": near}
        targets = torch.arange(len(queries), device=queries.device)
        prefixes = losses.matryoshka_loss(
            queries, documents, targets, settings.matryoshka_dims, settings.dense_scale, excluded
        )
        return {"anchor": near, "matryoshka": prefixes}


def _run(model: RetrieverModel, texts: Texts) -> View:
    """Run the trunk over all texts, packed by length."""
    order = sorted(range(len(texts.tokens)), key=lambda i: len(texts.tokens[i]))
    packed = pack([texts.tokens[i] for i in order])
    packed = Packed(packed.input_ids.to(model.device), packed.positions.to(model.device), packed.groups)
    last, mixed, routings = model.trunk(packed)
    dense = model.pool(last, packed, texts.prompt)[_inverse(order, last.device)]
    hidden, read = model.read_by_terms(mixed, packed, texts.prompt)
    return View(States(hidden, dense, read, order), routings)


def _inverse(order: list[int], device: torch.device) -> Tensor:
    return torch.tensor(order, device=device).argsort()


def _false_negatives(similarity: Tensor) -> Tensor:
    """Return bool (queries, candidates): candidates that the parent finds about as near as the positive, column i."""
    targets = torch.arange(len(similarity), device=similarity.device)
    positive = similarity.gather(1, targets.unsqueeze(1))
    excluded = similarity > positive - (1 - MARGIN) * positive.abs()
    return excluded.scatter(1, targets.unsqueeze(1), False)


def _teacher_losses(fused: Tensor, batch: Batch, scale: float) -> dict[str, Tensor]:
    """Return the distillation of the data's scores into the fused score, over each query's own candidates.

    A candidate without a score does not count, nor does a query without its positive's score and another.
    """
    assert batch.teacher is not None
    n, width = batch.teacher.shape
    own = torch.full((n, width), -1, dtype=torch.int64)
    own[:, 0] = torch.arange(n)
    filled = [1] * n
    for column, row in enumerate(batch.owner.tolist(), start=n):
        if filled[row] < width:
            own[row, filled[row]] = column
            filled[row] += 1
    own, teacher = own.to(fused.device), scale * batch.teacher.to(fused.device)
    missing = teacher.isnan() | (own < 0)
    scores = fused.gather(1, own.clamp_min(0))
    known = ~missing[:, 0] & (~missing).sum(1).gt(1)
    if not known.any():
        return {}
    scores, teacher, missing = scores[known], teacher[known].nan_to_num(), missing[known]
    margins = losses.margin_mse(scores[:, 0], scores[:, 1:], teacher[:, 0], teacher[:, 1:], missing[:, 1:])
    return {"teacher": losses.listwise_distillation(scores, teacher, missing), "margin": margins}
