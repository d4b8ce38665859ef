"""The two parts of the sparse view: expansions from the network, and what a text's own tokens say without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn
from transformers.activations import ACT2FN

from retriever.network.lexical import saturation
from retriever.network.matmul import Linear, linear
from retriever.network.moe import MoELayer
from retriever.network.packing import Group
from retriever.network.reach import Reach
from retriever.network.vocabulary_experts import VocabularyExperts, best_of_clusters, terms_by_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retriever.network.model import RetrieverConfig
    from retriever.network.moe import Routing

__all__ = ["LexicalHead", "SparseHead"]

# Logits that the sparse head holds at once, tokens times terms: they stay in the cache and do not grow with the batch.
HEAD_TOKENS = 1024
HEAD_TERMS = 1024


class SparseHead(nn.Module):
    """Expansions: w_v = log(1 + relu(scale_v * max_t <transform(h_t), e_v> + bias_v)), e_v the tied word embedding.

    The transform is LayerNorm(h + Linear(h) + Experts(h)): a MoE layer of the sparse view's own, so that it can learn
    what the dense view has no use for. `allowed` is False for special and unused vocabulary entries. `stem` (vocab,)
    names the one term that stands for all terms of a stem, with the largest of their weights; -1 where not allowed.
    With vocabulary experts a token computes some terms alone: the maximum is over the tokens that compute the term.
    """

    allowed: Tensor
    stem: Tensor

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.transform = Linear(config.hidden_size, config.hidden_size)
        self.experts: MoELayer | None = None
        if config.head_experts:
            shape = config.head_expert_shape
            self.experts = MoELayer(shape, ACT2FN[config.hidden_act], routed_scale=float(config.head_granularity))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.scale = nn.Parameter(torch.ones(config.vocab_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.register_buffer("allowed", torch.ones(config.vocab_size, dtype=torch.bool))
        self.register_buffer("stem", torch.arange(config.vocab_size, dtype=torch.int32))
        self.vocabulary: VocabularyExperts | None = None
        if config.vocabulary_experts:
            sizes = config.vocab_size, config.hidden_size, config.vocabulary_experts
            reach = Reach(config.vocabulary_experts_per_token, config.vocabulary_experts_per_text)
            self.vocabulary = VocabularyExperts(*sizes, reach)

    def forward(
        self,
        hidden: Tensor,
        groups: Sequence[Group],
        word_embeddings: Tensor,
        terms: Tensor | None = None,
        *,
        token_ids: Tensor,
    ) -> tuple[Tensor, Routing | None]:
        """Return float32 (n_texts, vocab) weights of hidden states (n_tokens, hidden), and the routing of the experts.

        terms: int64 (m,) the only vocabulary ids to compute, for (n_texts, m) weights; whole stems.
        token_ids: (n_tokens,), which vocabulary experts ask for.
        """
        h, routing = self.transformed(hidden)
        reach = None if self.vocabulary is None else self.vocabulary.reach(h.detach(), token_ids, groups)
        chunks = [chunk for group in groups for chunk in _chunks(group)]
        if terms is not None or (torch.is_grad_enabled() and h.requires_grad):
            return self._weights_with_gradient(h, chunks, word_embeddings, terms, reach), routing
        if reach is None:
            logits = [_max_logits(h, chunk, word_embeddings) for chunk in chunks]
        else:
            best = self._best(h, word_embeddings, reach, None)
            logits = [best(chunk)[0] for chunk in chunks]
        weights = torch.cat(list(map(self._weights, logits)))
        stems = self.stem.clamp_min(0).long().expand(len(weights), -1)
        return torch.zeros_like(weights).scatter_reduce(1, stems, weights, "amax"), routing

    def transformed(self, hidden: Tensor) -> tuple[Tensor, Routing | None]:
        """Return what the decoder reads, (n_tokens, hidden), and the routing of the experts."""
        change = self.transform(hidden)
        if self.experts is None:
            return self.norm(hidden + change), None
        learned, routing = self.experts(hidden)
        return self.norm(hidden + change + learned), routing

    def winners(self, h: Tensor, groups: Sequence[Group], word_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return each text's weights of the whole vocabulary, float32 (n_texts, vocab), and which token has each.

        h: (n_tokens, hidden), of `transformed`; tokens: int64 (n_texts, vocab), from each text's first one on.
        """
        best = [_best_logits(h, chunk, word_embeddings) for group in groups for chunk in _chunks(group)]
        return torch.cat([self._weights(logits) for logits, _ in best]), torch.cat([tokens for _, tokens in best])

    def _best(
        self, h: Tensor, word_embeddings: Tensor, reach: Tensor | None, terms: Tensor | None
    ) -> Callable[[Group], tuple[Tensor, Tensor]]:
        """Return what gives a group's largest logits, float32 (count, m), and which token of the text has each.

        word_embeddings: (m, hidden), those of `terms` alone if there are any; reach: `VocabularyExperts.reach`.
        """
        if self.vocabulary is None or reach is None:
            return lambda group: _best_logits(h, group, word_embeddings)
        cluster = self.vocabulary.cluster if terms is None else self.vocabulary.cluster[terms]
        clusters = terms_by_cluster(cluster, reach.shape[1])
        return lambda group: best_of_clusters(h, group, word_embeddings=word_embeddings, reach=reach, terms=clusters)

    def _weights_with_gradient(
        self, h: Tensor, chunks: Sequence[Group], word_embeddings: Tensor, terms: Tensor | None, reach: Tensor | None
    ) -> Tensor:
        """Return `forward`'s weights with their gradient at the cost of the active terms alone.

        The maximum passes its gradient to one token per text and term, and relu to the active terms: the products are
        taken without a graph to find these, which are then computed again with one.
        """
        scale: Tensor = self.scale
        bias: Tensor = self.bias
        allowed, stems = self.allowed, self.stem.clamp_min(0).long()
        if terms is not None:
            word_embeddings, scale, bias, allowed = word_embeddings[terms], scale[terms], bias[terms], allowed[terms]
            places = torch.empty_like(stems)
            places[terms] = torch.arange(len(terms), device=terms.device)
            stems = places[stems[terms]]
        texts, columns, tokens = [], [], []
        first = 0
        with torch.no_grad():
            best = self._best(h, word_embeddings, reach, terms)
            for chunk in chunks:
                logits, winners = best(chunk)
                active = (logits * scale + bias > 0) & allowed & (logits > -torch.inf)
                text, column = active.nonzero(as_tuple=True)
                texts.append(text + first)
                columns.append(column)
                tokens.append(chunk.start + text * chunk.length + winners[text, column])
                first += chunk.count
        text, column, token = torch.cat(texts), torch.cat(columns), torch.cat(tokens)
        # Not h[token]: several threads add up the gradient of an index in any order, of these two always in the same.
        rows = F.embedding(token, h).float()  # (n_active, hidden)
        logits = (rows * word_embeddings[column].float()).sum(-1)  # (n_active,)
        weights = torch.log1p(torch.relu(logits * scale.index_select(0, column) + bias.index_select(0, column)))
        out = weights.new_zeros(first * len(scale))
        return out.scatter_reduce(0, text * len(scale) + stems[column], weights, "amax").view(first, -1)

    def _weights(self, logits: Tensor) -> Tensor:
        """Return float32 (count, vocab) weights of logits (count, vocab), -inf where no token computes the term."""
        weights = torch.log1p(torch.relu(logits * self.scale.float() + self.bias.float()))
        return torch.where((logits > -torch.inf) & self.allowed, weights, 0)


def _chunks(group: Group) -> Iterator[Group]:
    """Cut a group into whole texts of at most HEAD_TOKENS tokens together."""
    step = max(1, HEAD_TOKENS // group.length)
    for first in range(0, group.count, step):
        yield Group(group.start + first * group.length, min(step, group.count - first), group.length)


def _max_logits(h: Tensor, group: Group, word_embeddings: Tensor) -> Tensor:
    """Return float32 (count, vocab): for each text and term the largest logit over the tokens."""
    tokens = h[group.start : group.stop]
    parts = [
        linear(tokens, terms).view(group.count, group.length, -1).amax(1)  # (count, block)
        for terms in torch.split(word_embeddings, HEAD_TERMS)
    ]
    return torch.cat(parts, dim=1).float()


def _best_logits(h: Tensor, group: Group, word_embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return float32 (count, vocab) as `_max_logits`, and which token of the text has it, int64 (count, vocab)."""
    tokens = h[group.start : group.stop]
    parts = [
        linear(tokens, terms).view(group.count, group.length, -1).max(1)
        for terms in torch.split(word_embeddings, HEAD_TERMS)
    ]
    return torch.cat([part.values for part in parts], dim=1).float(), torch.cat([part.indices for part in parts], dim=1)


class LexicalHead(nn.Module):
    """What a text's own tokens say: `retriever.network.lexical` has the formulas, this the learned values.

    fraction: (vocab,) share of the training passages with the term; log_weight: (vocab,) logarithm of what the inverse
    document frequency is multiplied by in queries; gain: what a document's saturated counts are multiplied by;
    expansion: what a query's expanded terms are multiplied by beside its own tokens.
    """

    fraction: Tensor

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.register_buffer("fraction", torch.full((config.vocab_size,), 0.01))
        self.log_weight = nn.Parameter(torch.zeros(config.vocab_size))
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.expansion = nn.Parameter(torch.tensor(0.6))

    def documents(self, counts: Tensor) -> Tensor:
        """Return (n, vocab) weights of documents' token counts (n, vocab), what the network adds left out."""
        return self.gain * saturation(counts, counts.sum(1, keepdim=True))

    def queries(self, counts: Tensor, expansions: Tensor | None = None) -> Tensor:
        """Return (n, vocab) weights of queries' token counts (n, vocab), with or without the network's expansions."""
        terms = counts if expansions is None else counts + self.expansion * expansions
        return terms * torch.log1p(1 / self.fraction) * self.log_weight.exp()
