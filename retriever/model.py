"""The network, top to bottom: a BERT-shaped trunk with MoE feed-forward layers and two heads, one pass for both views.

- Tokens are packed: texts of equal length stand together, so that no layer sees padding and attention needs no mask.
- MoE layers return their routing as a value; nothing is collected on the side.
- Dense head: mean (or [CLS]) pooling, unit length.
- Sparse head: a transform of the mean of chosen hidden layers, the tied word embeddings as decoder, max over the tokens
  of a text, then log(1 + relu) (SPLADE, Formal et al. 2021; max first gives the same weights and is cheaper).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from retriever.checkpoint import quantise_rows, read_weights
from retriever.moe import ExpertShape, MoELayer, Routing, linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Packed", "RetrieverConfig", "RetrieverModel", "RetrieverOutput", "pack"]

# Logits that the sparse head holds at once, tokens times terms: they stay in the cache and do not grow with the batch.
HEAD_TOKENS = 1024
HEAD_TERMS = 1024
# From this length on, plain products of one text, whose scores stay in the cache, take 0.6 of the time of torch's fused
# attention, which has no bfloat16 products on the CPU.
LONG_TEXT = 64


@strict
class RetrieverConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of the trunk (names as in BertConfig), its experts and its heads.

    moe_layers: indices of the layers whose feed-forward part is a MoE. num_experts and experts_per_token count experts
    of the dense layer's size; granularity G cuts each into G experts of intermediate_size / G, so a layer has
    num_experts * G routed experts, of which experts_per_token * G are active. shared_experts are of the fine-grained
    size. sparse_layers: hidden states (0 = embeddings, i = output of layer i) whose mean feeds the sparse head.
    max_length: tokens read of a text; max_terms: terms kept of one. query_prompt, document_prompt: put before a text.
    """

    model_type = "retriever-moe"

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    moe_layers: list[int] | tuple[int, ...] = ()
    num_experts: int = 1
    experts_per_token: int = 1
    granularity: int = 1
    shared_experts: int = 0
    routed_scale: float = 1.0
    pooling: str = "mean"
    sparse_layers: list[int] | tuple[int, ...] = (6,)
    max_length: int = 256
    max_terms: int = 256
    query_prompt: str = ""
    document_prompt: str = ""

    def validate_retriever(self) -> None:
        """Refuse what the network would only notice while it runs; called by the base class."""
        if not 3 <= self.max_length <= self.max_position_embeddings:
            limit = self.max_position_embeddings
            raise ValueError(f"max_length is {self.max_length}, allowed are 3 to max_position_embeddings ({limit})")
        if self.pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}, allowed are 'mean' and 'cls'")
        hidden_states = range(self.num_hidden_layers + 1)
        if not self.sparse_layers or any(layer not in hidden_states for layer in self.sparse_layers):
            raise ValueError(f"sparse_layers are {self.sparse_layers}, allowed are 0 to {self.num_hidden_layers}")

    @property
    def expert_shape(self) -> ExpertShape:
        """Return the sizes of one MoE layer in fine-grained experts."""
        return ExpertShape(
            routed=self.num_experts * self.granularity,
            shared=self.shared_experts,
            active=self.experts_per_token * self.granularity,
            hidden=self.hidden_size,
            intermediate=self.intermediate_size // self.granularity,
        )


class RetrieverOutput(NamedTuple):
    """dense: (n, hidden) unit length; sparse: (n, vocab) weights >= 0; routings: one per MoE layer, packed."""

    dense: Tensor | None
    sparse: Tensor | None
    routings: tuple[Routing, ...]


class Group(NamedTuple):
    """Texts of one length, which stand together in a packed batch."""

    start: int
    count: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls
    length: int

    @property
    def stop(self) -> int:
        """Return the end of the group's tokens."""
        return self.start + self.count * self.length


class Packed(NamedTuple):
    """A batch without padding: input_ids and positions int64 (n_tokens,), and the groups of equal length in order."""

    input_ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]


def pack(token_ids: Sequence[Sequence[int]]) -> Packed:
    """Pack token lists that are sorted by length."""
    groups = []
    start = 0
    for length, texts in groupby(len(ids) for ids in token_ids):
        groups.append(Group(start, sum(1 for _ in texts), length))
        start = groups[-1].stop
    input_ids = torch.tensor([token for ids in token_ids for token in ids], dtype=torch.int64)
    positions = torch.cat([torch.arange(group.length).repeat(group.count) for group in groups])
    return Packed(input_ids, positions, tuple(groups))


class Embeddings(nn.Module):
    """Word plus position embeddings, normalised; the token-type row of BERT is folded into the positions."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, packed: Packed) -> Tensor:
        """Return (n_tokens, hidden)."""
        out: Tensor = self.norm(self.word(packed.input_ids) + self.position(packed.positions))
        return out


class Attention(nn.Module):
    """Multi-head self-attention inside each text."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """Return (n_tokens, hidden): each text attends to itself alone."""
        qkv = linear(x, self.qkv.weight, self.qkv.bias)  # (n_tokens, 3 * hidden)
        parts = []
        for group in groups:
            part = qkv[group.start : group.stop].view(group.count, group.length, 3, self.heads, -1)
            query, key, value = part.permute(2, 0, 3, 1, 4)  # each (count, heads, length, head_size)
            mixed = _attend(query, key, value)
            parts.append(mixed.transpose(1, 2).reshape(group.count * group.length, -1))
        return linear(torch.cat(parts), self.out.weight, self.out.bias)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T / sqrt(head_size)) value; all are (count, heads, length, head_size)."""
    slow = query.dtype == torch.bfloat16 and query.device.type == "cpu" and query.shape[2] >= LONG_TEXT
    if not slow or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    query = query * query.shape[-1] ** -0.5
    mixed = torch.empty_like(query)
    for text in range(query.shape[0]):
        mixed[text] = (query[text] @ key[text].transpose(-1, -2)).softmax(-1) @ value[text]
    return mixed


class FeedForward(nn.Module):
    """The dense feed-forward layer of the trunk's other layers."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return (n_tokens, hidden)."""
        return linear(self.activation(linear(x, self.up.weight, self.up.bias)), self.down.weight, self.down.bias)


class Layer(nn.Module):
    """One transformer layer, normalised after each part as in BERT."""

    def __init__(self, config: RetrieverConfig, index: int) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward: nn.Module = FeedForward(config)
        if index in config.moe_layers:
            self.feed_forward = MoELayer(config.expert_shape, ACT2FN[config.hidden_act], config.routed_scale)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, groups: Sequence[Group]) -> tuple[Tensor, Routing | None]:
        """Return (n_tokens, hidden) and, from a MoE layer, the routing."""
        x = self.attention_norm(x + self.attention(x, groups))
        out = self.feed_forward(x)
        y, routing = out if isinstance(out, tuple) else (out, None)
        return self.feed_forward_norm(x + y), routing


class SparseHead(nn.Module):
    """Term weights: w_v = log(1 + relu(scale_v * max_t <transform(h_t), e_v> + bias_v)), e_v the tied word embedding.

    The transform is LayerNorm(h + Linear(h)). `allowed` is False for special and unused vocabulary entries.
    """

    allowed: Tensor

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.scale = nn.Parameter(torch.ones(config.vocab_size))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.decoder: tuple[Tensor, Tensor] | None = None  # int8 rows of the word embeddings and their scales
        self.register_buffer("allowed", torch.ones(config.vocab_size, dtype=torch.bool))

    def forward(self, hidden: Tensor, groups: Sequence[Group], word_embeddings: Tensor) -> Tensor:
        """Return float32 (n_texts, vocab) weights of hidden states (n_tokens, hidden)."""
        h = self.norm(hidden + linear(hidden, self.transform.weight, self.transform.bias))
        parts = [self._weights(h, chunk, word_embeddings) for group in groups for chunk in _chunks(group)]
        return torch.cat(parts)

    def _weights(self, h: Tensor, group: Group, word_embeddings: Tensor) -> Tensor:
        """Return float32 (count, vocab) weights of the texts of `group`."""
        if self.decoder is None:
            logits = _max_logits(h, group, word_embeddings)
        else:
            logits = _max_logits_int8(h, group, *self.decoder)
        return torch.log1p(torch.relu(logits * self.scale.float() + self.bias.float())) * self.allowed


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


def _max_logits_int8(h: Tensor, group: Group, terms: Tensor, scale: Tensor) -> Tensor:
    """Return float32 (count, vocab) as `_max_logits`, from int8 `terms` (vocab, hidden) with `scale` (vocab,).

    A text has one step for all its tokens, so that the max can be taken over exact integers.
    """
    tokens = h[group.start : group.stop].float().view(group.count, -1)
    step = tokens.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127  # (count, 1)
    tokens = (tokens / step).round().to(torch.int8).view(-1, terms.shape[1])
    parts = [
        torch._int_mm(tokens, block.t()).view(group.count, group.length, -1).amax(1)  # (count, block)
        for block in torch.split(terms, HEAD_TERMS)
    ]
    return torch.cat(parts, dim=1) * step * scale


class RetrieverModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The encoder network; `AutoModel.from_pretrained` loads it once `retriever.model` is imported."""

    config_class = RetrieverConfig
    config: RetrieverConfig
    base_model_prefix = "retriever"
    _supports_sdpa = True

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.sparse_head = SparseHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        dense: bool = True,
        sparse: bool = True,
        **_: Any,
    ) -> RetrieverOutput:
        """Encode a padded batch, input_ids and attention_mask (n, length), padding on the right."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        lengths = mask.sum(1)
        order = lengths.argsort(stable=True)
        rows = [input_ids[i, : int(lengths[i])].tolist() for i in order.tolist()]
        packed = pack(rows)
        packed = Packed(packed.input_ids.to(self.device), packed.positions.to(self.device), packed.groups)
        out = self.encode(packed, dense=dense, sparse=sparse)
        back = order.argsort()
        return RetrieverOutput(
            dense=None if out.dense is None else out.dense[back],
            sparse=None if out.sparse is None else out.sparse[back],
            routings=out.routings,
        )

    def encode(self, packed: Packed, *, dense: bool = True, sparse: bool = True) -> RetrieverOutput:
        """Encode a packed batch: only the views that are asked for are computed, texts stay in packed order."""
        x = self.embeddings(packed)
        hidden = [x]
        routings = []
        for layer in self.layers:
            x, routing = layer(x, packed.groups)
            hidden.append(x)
            if routing is not None:
                routings.append(routing)
        weights = None
        if sparse:
            mixed = torch.stack([hidden[i] for i in self.config.sparse_layers]).mean(0)
            weights = self.sparse_head(mixed, packed.groups, self.embeddings.word.weight)
        return RetrieverOutput(self._pool(x, packed.groups) if dense else None, weights, tuple(routings))

    def _pool(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        """Return float32 (n_texts, hidden) of unit length."""
        views = [x[group.start : group.stop].view(group.count, group.length, -1).float() for group in groups]
        pooled = [view[:, 0] if self.config.pooling == "cls" else view.mean(1) for view in views]
        return F.normalize(torch.cat(pooled), dim=-1)

    def set_precision(self, precision: str) -> RetrieverModel:
        """Cast the weights for inference, except the routers, which decide in float32.

        "float32"; "bfloat16"; "int8": as "bfloat16", with the products of the sparse head, half of all, in int8.
        """
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        if precision == "int8":
            self.sparse_head.decoder = quantise_rows(self.embeddings.word.weight.detach().float())
        routers = {name: value.data.float() for name, value in self.named_parameters() if name.endswith(".router")}
        self.to(dtype=dtype)  # type: ignore[call-arg]  # transformers wraps `to` without a type
        for name, value in self.named_parameters():
            if name in routers:
                value.data = routers[name]
        return self

    @classmethod
    def from_pretrained(cls, folder: str | Path | None, *args: Any, **kwargs: Any) -> RetrieverModel:  # type: ignore[override]
        """Load an encoder folder; compactly stored weights are restored to float32 on the way."""
        state = read_weights(folder) if folder is not None else None
        if folder is None or state is None:
            return super().from_pretrained(folder, *args, **kwargs)
        config = kwargs.pop("config", None) or RetrieverConfig.from_pretrained(folder)
        return super().from_pretrained(None, *args, config=config, state_dict=state, **kwargs)


AutoConfig.register(RetrieverConfig.model_type, RetrieverConfig)
AutoModel.register(RetrieverConfig, RetrieverModel)
