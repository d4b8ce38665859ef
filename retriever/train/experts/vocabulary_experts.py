"""Vocabulary experts that are trained: which token of a text wins which term decides clusters and router.

The whole head says for each text and term which token has the largest weight, and no other token's product is ever
needed. So terms that the same kinds of states win form a cluster, and the router learns, for each token, the clusters
in which it wins: no labels, no gradient through the head. Most tokens win nothing but their own term.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from scipy import sparse
from torch import Tensor

from retriever.encoder.vocabulary.lexicon import frame_ids
from retriever.network.packing import pack
from retriever.network.vocabulary_clusters import VocabularyClusters, cluster_points
from retriever.train.data.examples import stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer

    from retriever.network.model import RetrieverModel
    from retriever.train.settings import TrainConfig

__all__ = ["Wins", "example_tokens", "joined", "query_tokens", "train_vocabulary_experts", "wins"]

LEAST_WEIGHT = 0.1
"""Weights below it are not worth a cluster: what a term wins is counted from here."""
COMMON = 0.8
"""How much of the mean direction of all winning states is taken from each term's: it tells no cluster from another."""
STEPS = 1500
TOKENS = 4096
TEXTS = 64
LEARNING_RATE = 3e-3
LAST_RATE = 0.05
START_SCALE = 3.0


class Wins(NamedTuple):
    """What tokens of some texts win, m times in all.

    states: float16 (n, hidden), what the decoder multiplies; own: int64 (n,) the vocabulary id of each token;
    token, term: int64 (m,) which token, and which term by its stem; weight: float32 (m,) beyond LEAST_WEIGHT.
    """

    states: Tensor
    own: Tensor
    token: Tensor
    term: Tensor
    weight: Tensor


def example_tokens(config: TrainConfig, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Return the framed token ids of the queries and passages of `count` examples of a run's mixture, cut as in it."""
    examples = list(islice(stream(config.sources, seed=config.seed), count))
    texts = {example.query: config.query_tokens for example in examples}
    return _framed(texts | {example.positive: config.document_tokens for example in examples}, tokenizer)


def query_tokens(config: TrainConfig, tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Return the framed token ids of the queries alone, as `example_tokens` does."""
    examples = islice(stream(config.sources, seed=config.seed), count)
    return _framed({example.query: config.query_tokens for example in examples}, tokenizer)


def _framed(texts: dict[str, int], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the ids of texts, each cut to its number of tokens, the frame among them."""
    first, last = frame_ids(tokenizer)
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [[first, *encoding.ids[: room - 2], last] for encoding, room in zip(encodings, texts.values(), strict=True)]


def wins(model: RetrieverModel, texts: Sequence[Sequence[int]]) -> Iterator[Wins]:
    """Yield what the tokens of framed token lists win, of TEXTS texts at a time; tokens are counted from their first.

    model: an encoder that computes the whole vocabulary.
    """
    head, words = model.sparse_head, model.embeddings.word.weight
    stem = head.stem.clamp_min(0).long()
    ordered = sorted(texts, key=len)
    for first in range(0, len(ordered), TEXTS):
        packed = pack(ordered[first : first + TEXTS])
        with torch.no_grad():
            h, _ = head.transformed(model.trunk(packed)[1])
            weights, winners = head.winners(h, packed.groups, words)
            of_stem = torch.zeros_like(weights).scatter_reduce(1, stem.expand(len(weights), -1), weights, "amax")
            text, term = ((weights > LEAST_WEIGHT) & (weights >= of_stem[:, stem])).nonzero(as_tuple=True)
        starts = torch.tensor([group.start + i * group.length for group in packed.groups for i in range(group.count)])
        yield Wins(
            h.half(),
            packed.input_ids,
            starts[text] + winners[text, term],
            stem[term],
            weights[text, term] - LEAST_WEIGHT,
        )


def joined(parts: Sequence[Wins]) -> Wins:
    """Return the wins of all parts, token numbers counted on."""
    first = torch.tensor([0] + [len(part.own) for part in parts]).cumsum(0).tolist()
    moved = [part._replace(token=part.token + start) for part, start in zip(parts, first, strict=False)]
    return Wins(*(torch.cat(values) for values in zip(*moved, strict=True)))


def train_vocabulary_experts(
    model: RetrieverModel, found: Wins, *, clusters: int, seed: int = 0, steps: int = STEPS
) -> VocabularyClusters:
    """Return clusters of the terms and a router trained on what tokens win; the result depends on the seed alone.

    Terms are clustered (spherical k-means) by the mean direction of the states that win them, those that win little
    also by their decoder row. The router's loss is the cross entropy of its choice with the weight that a token wins in
    each cluster but its own term's, which it computes in any case.
    """
    cluster = _clusters(model, found, clusters, seed)
    own = cluster.cluster[found.own].long()
    ends = torch.bincount(found.token, minlength=len(found.own)).cumsum(0)
    order = found.token.argsort(stable=True)
    columns, weight = cluster.cluster[found.term].long()[order], found.weight[order]
    winners = (torch.bincount(found.token, minlength=len(found.own)) > 0).nonzero().flatten()
    router = torch.nn.Parameter(cluster.router * START_SCALE)
    bias = torch.nn.Parameter(cluster.bias)
    optimiser = torch.optim.Adam([router, bias], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, LAST_RATE, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        tokens = winners[torch.randint(len(winners), (TOKENS,), generator=generator)]
        counts = ends[tokens] - torch.where(tokens > 0, ends[tokens - 1], 0)
        rows = torch.repeat_interleave(torch.arange(TOKENS), counts)
        places = torch.repeat_interleave(ends[tokens] - counts, counts) + torch.arange(len(rows))
        places -= torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        # Not index_put: several threads would add in any order.
        won = torch.zeros(TOKENS * clusters).index_add(0, rows * clusters + columns[places], weight[places])
        free = F.one_hot(own[tokens].clamp_min(0), clusters).bool() & (own[tokens] >= 0).unsqueeze(1)
        won = won.view(TOKENS, clusters).masked_fill(free, 0)
        scores = (found.states[tokens].float() @ router.T + bias).masked_fill(free, -math.inf)
        loss = -(won * scores.log_softmax(1).masked_fill(free, 0)).sum() / won.sum().clamp_min(1e-6)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return VocabularyClusters(cluster.cluster, router.detach(), bias.detach())


def _clusters(model: RetrieverModel, found: Wins, clusters: int, seed: int) -> VocabularyClusters:
    """Return clusters of whole stems; as a router their centres."""
    head = model.sparse_head
    stem, allowed = head.stem.clamp_min(0).long(), head.allowed
    stems: Tensor = stem[allowed].unique()  # type: ignore[no-untyped-call]
    states = F.normalize(found.states.float())
    won = sparse.csr_matrix((found.weight, (found.term, found.token)), (len(stem), len(states)))
    sums = torch.from_numpy(won @ states.numpy())  # (vocab, hidden): the states that win each term, by what they win
    share = sums.norm(dim=1, keepdim=True)
    common = F.normalize(sums.sum(0), dim=0)
    used = F.normalize(sums, dim=1)
    used = F.normalize(used - COMMON * (used @ common).unsqueeze(1) * common, dim=1)
    rows = model.embeddings.word.weight.detach().float() * head.scale.detach().float().unsqueeze(1)
    decoder = torch.zeros_like(sums).index_add(0, stem[allowed], rows[allowed])
    trust = share / (share + 1)
    points = F.normalize(trust * used + (1 - trust) * F.normalize(decoder, dim=1), dim=1)[stems]
    heavy = torch.zeros(len(stem)).index_add(0, found.term, found.weight)[stems].add(LEAST_WEIGHT).sqrt()
    number, centres = cluster_points(points, clusters, weights=heavy, seed=seed)
    of_stem = torch.full((len(stem),), -1, dtype=torch.int32)
    of_stem[stems] = number.int()
    cluster = torch.where(allowed, of_stem[stem], -1).int()
    return VocabularyClusters(cluster, centres, torch.zeros(clusters))
