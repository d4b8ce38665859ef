"""The network for inference in int8: the same function as `RetrieverModel.encode`, run for speed on a CPU.

- Products of int8 rows with int8 matrices (matrices.py), and between them those of kernels/steps.py.
- Attention is bfloat16 (attention.py), everything else between products float32.
- A block of rows goes through a whole feed-forward layer while it is in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers.activations import GELUActivation

from retriever.network.checkpoint import quantise_rows
from retriever.network.int8.attention import Attention, Spots, spots_of
from retriever.network.int8.decoder import Decoder, VocabularyRouter, decoder_arrays, router_arrays, slots_of
from retriever.network.int8.kernels import steps
from retriever.network.int8.kernels.tiles import processor_has
from retriever.network.int8.matrices import (
    Matrix,
    Rows,
    Scratch,
    add_product,
    after,
    blocks,
    int8,
    int8_layer,
    product,
    taken,
)
from retriever.network.int8.matrix_decoder import MatrixDecoder
from retriever.network.int8.pooling import Projection, pooled
from retriever.network.matmul import ROWS
from retriever.network.model import RetrieverOutput
from retriever.network.moe import MoELayer, Routing
from retriever.network.packing import without_tokens
from retriever.network.reach import WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from retriever.network.model import RetrieverConfig, RetrieverModel
    from retriever.network.packing import Group, Packed
    from retriever.network.sparse_head import SparseHead
    from retriever.types import FloatArray

__all__ = ["Int8Network"]


class Int8Network:
    """Encodes packed batches as a `RetrieverModel` does, from several threads if need be; takes over its weights."""

    def __init__(self, model: RetrieverModel) -> None:
        self.config: RetrieverConfig = model.config
        self._embeddings, self._embeddings_norm = model.embeddings, _norm(model.embeddings.norm)
        self._layers = [Layer(layer, model.config.num_attention_heads) for layer in model.layers]
        self._projection: Projection | None = None
        if model.projection is not None:
            weight, bias = (value.detach().float().numpy() for value in model.projection.parameters())
            self._projection = Projection(weight, bias, model.config.dense_activation)
        self._head = Head(model.sparse_head, model.embeddings.word.weight)
        self._embeddings.word.to(torch.bfloat16)  # only looked up
        self._scratch = Scratch()

    def encode(self, packed: Packed, *, dense: bool = True, sparse: bool = True, prompt: int = 0) -> RetrieverOutput:
        """Encode a packed batch: only the views that are asked for are computed, texts stay in packed order.

        prompt: how many tokens of each text, from its second on, are a prompt's.
        """
        x: FloatArray = self._embeddings.summed(packed).numpy()
        steps.norm(x, *self._embeddings_norm)
        spots = spots_of(packed.groups, self.config.num_attention_heads)
        hidden = np.zeros_like(x)
        routings: list[Routing] = []
        for index in range(len(self._layers) + 1):
            if index:
                routings += self._layers[index - 1].forward(x, spots, self._scratch)
            if sparse and index in self.config.sparse_layers:
                hidden += x
        weights = None
        if sparse:
            hidden /= np.float32(len(self.config.sparse_layers))
            read = packed
            if prompt and not self.config.prompt_in_terms:
                places, read = without_tokens(packed, 1, prompt)
                hidden = hidden[places.numpy()]
            weights, found = self._head.forward(hidden, read, self._scratch)
            routings += found
        vectors = self._pool(x, packed, prompt) if dense else None
        return RetrieverOutput(vectors, weights, tuple(routings), torch.from_numpy(x))

    def _pool(self, x: FloatArray, packed: Packed, prompt: int) -> Tensor:
        """Return the dense view of the last hidden states (n_tokens, hidden), (n_texts, dense_dim) of unit length."""
        if prompt and not self.config.prompt_in_pooling:
            places, packed = without_tokens(packed, 0, 1 + prompt)
            x = x[places.numpy()]
        ends = ends_of(packed.groups)
        if self._projection is not None or self.config.pooling == "max":
            return torch.from_numpy(pooled(x, ends, self.config.pooling, self._projection))
        vectors = np.empty((len(ends) - 1, x.shape[1]), np.float32)
        steps.pool(x, ends, self.config.pooling == "cls", vectors)
        return torch.from_numpy(vectors)


class Layer:
    """One transformer layer."""

    def __init__(self, layer: Any, heads: int) -> None:
        self.attention = Attention(layer.attention, heads)
        self.attention_norm = _norm(layer.attention_norm)
        inner = layer.feed_forward
        self.feed_forward: FeedForward | Experts
        if isinstance(inner, MoELayer):
            self.feed_forward = Experts(inner)
        else:
            self.feed_forward = FeedForward(int8_layer(inner.up), int8_layer(inner.down), inner.activation)
        self.feed_forward_norm = _norm(layer.feed_forward_norm)

    def forward(self, x: FloatArray, spots: Spots, scratch: Scratch) -> list[Routing]:
        """Put the layer's output in the place of its input x (n, hidden); return the routing of its experts, if any."""
        self.attention.mix(x, spots, scratch)
        rows = scratch.rows("rows", ROWS, x.shape[1])
        for start, stop in blocks(len(x)):
            block = x[start:stop]
            self.attention.add(block, start, spots, scratch)
            steps.norm(block, *self.attention_norm)
            if isinstance(self.feed_forward, FeedForward):
                steps.quantise(block, *rows)
                self.feed_forward.add(rows, block, scratch)
                steps.norm(block, *self.feed_forward_norm)
        if isinstance(self.feed_forward, FeedForward):
            return []
        rows = scratch.rows("all rows", *x.shape)
        steps.quantise(x, *rows)
        y = np.zeros_like(x)
        routing = self.feed_forward.add(x, rows, y, scratch)
        x += y
        steps.norm(x, *self.feed_forward_norm)
        return [routing]


class FeedForward(NamedTuple):
    """One feed-forward layer, or one expert."""

    up: Matrix
    down: Matrix
    activation: nn.Module

    def add(self, rows: Rows, out: FloatArray, scratch: Scratch) -> None:
        """Add its output for the first n rows to out (n, hidden), n <= ROWS."""
        add_product(self.inner(rows, len(out), scratch), self.down, out, scratch)

    def inner(self, rows: Rows, n: int, scratch: Scratch) -> Rows:
        """Return the activation, quantised, for the first n rows."""
        up = self.up
        acc = product(rows, up.weights, n, scratch)
        inner = scratch.rows("inner", n, len(up.scale))
        if isinstance(self.activation, GELUActivation):
            steps.gelu_quantise(acc[:n], rows.step, up.scale, up.bias, *inner)
            return inner
        values = torch.zeros(n, len(up.scale))
        steps.add_product(acc, rows.step, up.scale, up.bias, values.numpy())
        steps.quantise(self.activation(values).numpy(), *inner)
        return inner


class Experts:
    """A MoE layer: each token goes through its experts and all shared ones."""

    def __init__(self, layer: MoELayer) -> None:
        self.shape, self.scale = layer.shape, np.float32(layer.routed_scale)
        self.router: FloatArray = layer.router.detach().float().numpy()
        weights = (layer.up_proj, layer.up_bias, layer.down_proj, layer.down_bias)
        experts = zip(*(taken(weight).unbind() for weight in weights), strict=True)
        self.routed = [
            FeedForward(int8(up, up_bias), int8(down, down_bias), layer.activation)
            for up, up_bias, down, down_bias in experts
        ]
        self.shared: FeedForward | None = None
        if layer.shape.shared:
            up = int8(taken(layer.shared_up_proj), taken(layer.shared_up_bias))
            down = int8(taken(layer.shared_down_proj), taken(layer.shared_down_bias))
            self.shared = FeedForward(up, down, layer.activation)

    def add(self, x: FloatArray, rows: Rows, out: FloatArray, scratch: Scratch) -> Routing:
        """Add to out (n, hidden) what experts make of tokens x (n, hidden), in `rows` quantised; return the routing."""
        routing = self._route(x)
        chosen = routing.expert_ids.numpy().ravel()
        order = np.argsort(chosen, kind="stable")
        tokens = order // self.shape.active
        weights = (routing.weights.numpy().ravel() * self.scale)[order]
        ends = np.cumsum(np.bincount(chosen, minlength=self.shape.routed))
        sent = scratch.rows("sent", ROWS, x.shape[1])
        for expert, begin, end in zip(self.routed, [0, *ends], ends, strict=False):
            for start, stop in blocks(int(end - begin)):
                n = stop - start
                found = tokens[begin + start : begin + stop]
                sent.values[:n] = rows.values[found]
                sent.step[:n] = rows.step[found]
                inner = expert.inner(sent, n, scratch)
                acc = product(inner, expert.down.weights, n, scratch)
                scale, bias = expert.down.scale, expert.down.bias
                steps.add_weighted(acc, inner.step, scale, bias, found, weights[begin + start :], out)
        if self.shared is not None:
            for start, stop in blocks(len(x)):
                inner = self.shared.inner(after(rows, start), stop - start, scratch)
                add_product(inner, self.shared.down, out[start:stop], scratch)
        return routing

    def _route(self, x: FloatArray) -> Routing:
        shape = len(x), self.shape.active
        logits = np.empty((len(x), self.shape.routed), np.float32)
        chosen, share = np.empty(shape, np.int64), np.empty(shape, np.float32)
        steps.route(x, self.router, logits, chosen, share)
        expert_ids, weights, scores = map(torch.from_numpy, (chosen, share, logits))
        return Routing(expert_ids, weights, scores, torch.ones(len(x), dtype=torch.bool))


class Head:
    """The sparse head; a logit is the largest over the tokens of a text, before anything else is done with it."""

    def __init__(self, head: SparseHead, word_embeddings: Tensor) -> None:
        self.transform = int8_layer(head.transform)
        self.experts = None if head.experts is None else Experts(head.experts)
        self.norm = _norm(head.norm)
        self.decoder = _decoder(head, word_embeddings)

    def forward(self, hidden: FloatArray, packed: Packed, scratch: Scratch) -> tuple[Tensor, list[Routing]]:
        """Return float32 (n_texts, vocab) weights of hidden states (n_tokens, hidden), and the experts' routing."""
        rows, routings = self.transformed(hidden, scratch)
        n, ids = len(hidden), packed.input_ids.numpy()
        out = self.decoder.weights(rows.values[:n], rows.step[:n], ends=ends_of(packed.groups), token_ids=ids)
        return torch.from_numpy(out), routings

    def transformed(self, hidden: FloatArray, scratch: Scratch) -> tuple[Rows, list[Routing]]:
        """Return what the decoder reads of hidden states (n_tokens, hidden), quantised, and the experts' routing."""
        rows = scratch.rows("all rows", *hidden.shape)
        steps.quantise(hidden, *rows)
        out = hidden.copy()
        routings = [] if self.experts is None else [self.experts.add(hidden, rows, out, scratch)]
        for start, stop in blocks(len(hidden)):
            add_product(after(rows, start), self.transform, out[start:stop], scratch)
        steps.norm(out, *self.norm)
        steps.quantise(out, *rows)
        return rows, routings


def _decoder(head: SparseHead, word_embeddings: Tensor) -> Decoder:
    """Return what gives the terms their weights; the network keeps its word embeddings."""
    values, scale = quantise_rows(word_embeddings.detach().float())
    scale *= head.scale.detach().float()
    allowed, stem = head.allowed.numpy(), head.stem.int().numpy()
    router, cluster, reach = None, None, WHOLE
    if head.vocabulary is not None:
        cluster, reach = head.vocabulary.cluster.int().numpy(), head.vocabulary.limits
        found, step = quantise_rows(head.vocabulary.router.detach().float())
        bias: FloatArray = head.vocabulary.router_bias.detach().float().numpy()
        router = VocabularyRouter(found.numpy(), step.numpy(), bias, cluster)
    slots = slots_of(allowed, cluster, 1 if router is None else len(router.scale))
    terms = head.bias.detach().float().numpy()
    arrays = decoder_arrays(values.numpy(), scale.numpy(), bias=terms, stem=stem, slots=slots)
    if router is not None:
        arrays |= router_arrays(router)
    return decoder_kind()(arrays, vocabulary=len(stem), reach=reach)


def decoder_kind() -> type[Decoder]:
    """Return the decoder whose products are the faster ones on this processor."""
    return MatrixDecoder if processor_has("amx-int8") else Decoder


def ends_of(groups: Sequence[Group]) -> NDArray[np.int64]:
    """Return where each text begins, and where the last one ends, int64 (texts + 1,)."""
    return np.cumsum([0, *(group.length for group in groups for _ in range(group.count))])


def _norm(norm: nn.LayerNorm) -> tuple[FloatArray, FloatArray, float]:
    return norm.weight.detach().float().numpy(), norm.bias.detach().float().numpy(), norm.eps
