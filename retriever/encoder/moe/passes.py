"""Texts sent through a network: tokenised, batched, and their views put together again.

Texts are tokenised, sorted by length inside a window and batched by a token budget; the network sees no padding, so a
batch costs what its tokens cost, and a text's result does not depend on its neighbours.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from retriever.encoder.moe.batches import (
    MIN_COST,
    TERMS_PER_COST,
    Views,
    batches,
    joined_expansions,
    joined_tokens,
    joined_vectors,
    top_terms,
)
from retriever.encoder.views import unit
from retriever.processes import processors
from retriever.types import Encoded, EncodedByToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from retriever.encoder.moe.networks import Networks
    from retriever.encoder.moe.texts import TextReader, Tokens
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.encoder.vocabulary.lexicon import Lexicon
    from retriever.network.int8.query import QueryNetwork
    from retriever.network.packing import Packed
    from retriever.types import BoolArray, FloatArray

__all__ = ["Passes", "QueryStates", "Wanted"]

SMALLEST_BATCH = 256  # tokens; fewer are not spread over threads
QUERY_TOKENS = 128
"""Tokens of queries that go through the network together: weights that were read are used again."""


class QueryStates(NamedTuple):
    """The last hidden states of a query's tokens, float32 (tokens, hidden), and their ids, int32 (tokens,)."""

    vectors: FloatArray
    ids: NDArray[np.int32]


class Wanted(NamedTuple):
    """What is wanted of texts.

    dense: their vectors. expand: terms of the network, in place of the sparse view, at most `most` of a text, none
    lighter than `least`. counts: how often tokens occur. projection (hidden, dim): makes a vector of unit length of
    each token's last hidden state.
    """

    dense: bool
    expand: bool
    counts: bool
    most: int = 0
    least: float = 0.0
    projection: FloatArray | None = None

    @property
    def network(self) -> bool:
        """Say whether the network is needed for it."""
        return self.dense or self.expand or self.projection is not None


class Passes:
    """Sends texts through the networks of an encoder."""

    def __init__(
        self, reader: TextReader, lexicon: Lexicon, networks: Networks, *, runtime: RuntimeConfig, dense_dim: int
    ) -> None:
        """Take what makes tokens of texts, what counts them, what reads them, and the sizes of batches and vectors."""
        self._reader, self._lexicon, self._networks = reader, lexicon, networks
        self._runtime, self._dense_dim = runtime, dense_dim
        self._vocab_size = len(lexicon.vocabulary)

    def encode(
        self, texts: Sequence[str], prompt: str, wanted: Wanted, unread: BoolArray | None = None
    ) -> EncodedByToken:
        """Return what is wanted of n texts, in order, read behind a prompt by the network for batches.

        unread: bool (n,), True for texts whose tokens are counted and go no further.
        """
        truncated = np.zeros(len(texts), dtype=np.bool_)
        counts = [self._lexicon.counts([])]
        views: list[Views] = []
        running: list[Callable[[], Views]] = []
        read = np.zeros(len(texts), np.int64)
        prompt_tokens = self._reader.prompt_tokens(prompt)
        least_cost = max(MIN_COST, self._vocab_size // TERMS_PER_COST) if wanted.most else MIN_COST
        window = self._runtime.window
        for start in range(0, len(texts), window):
            # While one window is in the network, the next is tokenised.
            tokens = self._reader.tokenise(texts[start : start + window], prompt)
            if unread is not None:
                tokens = _without(tokens, unread[start : start + window])
            if wanted.counts:
                counts.append(self._lexicon.counts([text.own for text in tokens]))
            truncated[start : start + len(tokens)] = [text.truncated for text in tokens]
            lengths = [len(text.read) if wanted.network else 0 for text in tokens]
            read[start : start + len(tokens)] = lengths
            started = [
                self._start([start + i for i in batch], [tokens[i].read for i in batch], wanted, prompt_tokens)
                for batch in batches(lengths, self._budget(sum(lengths)), least_cost)
            ]
            views += [result() for result in running]
            running = started
        views += [result() for result in running]
        encoded = self._joined(views, truncated, wanted, sparse.vstack(counts, format="csr") if wanted.counts else None)
        if wanted.projection is None:
            return EncodedByToken(encoded, None)
        return EncodedByToken(encoded, joined_tokens(views, read, wanted.projection.shape[1]))

    def encode_few(
        self, network: QueryNetwork, texts: Sequence[str], wanted: Wanted, keep: Callable[[QueryStates], None]
    ) -> Encoded:
        """Return what is wanted of queries, without torch; `keep` is given the states of a single one."""
        prompt = self._reader.query_prompt
        tokens = self._reader.tokenise(texts, prompt)
        prompt_tokens = self._reader.prompt_tokens(prompt)

        def run(batch: list[int]) -> Views:
            read = [tokens[i].read for i in batch]
            found = network.encode(read, dense=wanted.dense, sparse=wanted.expand, prompt=prompt_tokens)
            if len(texts) == 1:
                keep(QueryStates(found.states, np.array(tokens[0].read, np.int32)))
            terms = None if found.sparse is None else top_terms(found.sparse, wanted.most, wanted.least)
            return Views(batch, found.dense, terms)

        views = list(_each(run, list(batches([len(text.read) for text in tokens], QUERY_TOKENS))))
        counts = self._lexicon.counts([text.own for text in tokens]) if wanted.counts else None
        return self._joined(views, np.array([text.truncated for text in tokens], np.bool_), wanted, counts)

    def states(self, token_ids: list[int]) -> FloatArray:
        """Return the last hidden state of each token (tokens, hidden) of one text, framed."""
        if self._networks.few is not None:
            return self._networks.few.encode([token_ids], dense=False, sparse=False).states
        import torch

        with torch.inference_mode():
            states = self._networks.batched.encode(self._packed([token_ids]), dense=False, sparse=False).states
            assert states is not None
            found: FloatArray = states.float().cpu().numpy()
        return found

    def routes(self, token_ids: list[int]) -> list[list[list[int]]]:
        """Return for each MoE layer the experts of each token (tokens, active), by the network that encodes queries."""
        if self._networks.few is not None:
            return [experts.tolist() for experts in self._networks.few.routes(token_ids)]
        import torch

        with torch.inference_mode():
            routings = self._networks.batched.encode(self._packed([token_ids]), dense=False, sparse=True).routings
        return [routing.expert_ids.tolist() for routing in routings]

    def _joined(
        self, views: list[Views], truncated: BoolArray, wanted: Wanted, counts: sparse.csr_matrix | None
    ) -> Encoded:
        return Encoded(
            joined_vectors(views, len(truncated), self._dense_dim) if wanted.dense else None,
            joined_expansions(views, len(truncated), self._vocab_size) if wanted.expand else None,
            truncated,
            counts,
        )

    def _budget(self, tokens: int) -> int:
        """Return how many tokens of a window a batch may have: few enough for each thread to get one."""
        import torch

        threads = 1 if self._networks.threads is None else torch.get_num_threads()
        return min(self._runtime.tokens_per_batch, max(SMALLEST_BATCH, -(-tokens // threads)))

    def _start(self, texts: list[int], token_ids: list[list[int]], wanted: Wanted, prompt: int) -> Callable[[], Views]:
        """Begin a batch, if there are threads for it; return what gives its views."""
        if self._networks.threads is not None:
            return self._networks.threads.submit(self._run, texts, token_ids, wanted, prompt).result
        return partial(self._run, texts, token_ids, wanted, prompt)

    def _run(self, texts: list[int], token_ids: list[list[int]], wanted: Wanted, prompt: int) -> Views:
        """Run one batch, sorted by length."""
        import torch

        with torch.inference_mode():
            packed = self._packed(token_ids)
            out = self._networks.batched.encode(packed, dense=wanted.dense, sparse=wanted.expand, prompt=prompt)
            assert out.states is not None
            return Views(
                texts,
                None if out.dense is None else out.dense.cpu().numpy(),
                None if out.sparse is None else top_terms(out.sparse.cpu().numpy(), wanted.most, wanted.least),
                None if wanted.projection is None else unit(out.states.float().cpu().numpy() @ wanted.projection),
            )

    def _packed(self, token_ids: list[list[int]]) -> Packed:
        from retriever.network.packing import pack

        packed, device = pack(token_ids), self._runtime.device
        return packed._replace(input_ids=packed.input_ids.to(device), positions=packed.positions.to(device))


def _without(tokens: list[Tokens], unread: BoolArray) -> list[Tokens]:
    """Let the network read nothing of some texts."""
    return [
        text._replace(read=[], truncated=False) if skip else text for text, skip in zip(tokens, unread, strict=True)
    ]


def _each(run: Callable[[list[int]], Views], parts: list[list[int]]) -> Iterable[Views]:
    """Run each of some batches of queries; several side by side, where there are processors for it."""
    workers = min(len(parts), processors())
    if workers < 2:
        return map(run, parts)
    with ThreadPoolExecutor(workers, "queries") as pool:
        return list(pool.map(run, parts))
