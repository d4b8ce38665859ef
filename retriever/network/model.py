"""The network, top to bottom: a BERT-shaped trunk with MoE feed-forward layers and two heads, one pass for both views.

- Tokens are packed: texts of equal length stand together, so that no layer sees padding and attention needs no mask.
- MoE layers return their routing as a value; nothing is collected on the side.
- Dense head: mean, [CLS] or max pooling, perhaps a matrix behind it, unit length.
- Sparse head (sparse_head.py): a transform of the mean of chosen hidden layers, the tied word embeddings as
  decoder, max over the tokens of a text, then log(1 + relu) (SPLADE, Formal et al. 2021; max first gives the same
  weights and is cheaper).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from retriever.network.attention import Attention, padded_together
from retriever.network.checkpoint import MODEL_TYPE, read_weights
from retriever.network.matmul import Linear
from retriever.network.moe import ExpertShape, MoELayer, Routing, feed_forward
from retriever.network.packing import Packed, pack, without_tokens
from retriever.network.settings import DEFAULTS, check_settings, expert_layers
from retriever.network.sparse_head import LexicalHead, SparseHead

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.network.attention import PaddedTexts
    from retriever.network.packing import Group

__all__ = ["Packed", "RetrieverConfig", "RetrieverModel", "RetrieverOutput", "pack"]

TERM_VALUES = ("sparse_head.scale", "sparse_head.bias")
POOLING: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda states: states.mean(1),
    "cls": lambda states: states[:, 0],
    "max": lambda states: states.amax(1),
}
"""What becomes of the hidden states (texts, length, hidden) of texts of one length."""


@strict
class RetrieverConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes of the trunk (names as in BertConfig), its experts and its heads.

    moe_layers: indices of the layers whose feed-forward part is a MoE. num_experts and experts_per_token count experts
    of the dense layer's size; granularity G cuts each into G experts of intermediate_size / G, so a layer has
    num_experts * G routed experts, of which experts_per_token * G are active. shared_experts are of the fine-grained
    size. sparse_layers: hidden states (0 = embeddings, i = output of layer i) whose mean feeds the sparse head.
    head_*: the same sizes for the MoE layer of the sparse head; head_experts 0 leaves it out. There, too, a token meets
    head_experts_per_token * head_granularity routed experts and all shared ones.
    vocabulary_experts: clusters of terms, of which a token computes vocabulary_experts_per_token, and
    more in a text whose tokens would not compute vocabulary_experts_per_text together; 0: one computes all.
    pooling: "mean", "cls" or "max". dense_dim: rows of a matrix behind it, 0 for none; dense_activation: "identity" or
    "tanh" of what it gives. prompt_in_pooling, prompt_in_terms: whether the dense head pools over a prompt's tokens
    (else neither over these nor over the opening one, as in sentence-transformers), and whether the sparse head takes
    terms from them; all other tokens attend to them in any case.
    max_length: tokens read of a text; max_terms: most expanded terms of one; min_document_weight, min_query_weight: an
    expanded term that is lighter is left out; max_fraction: so is a term, own ones among them, that a larger share of
    the training passages holds. query_mode: where queries' terms come from unless told otherwise,
    "encoder" or "lexical". query_prompt, document_prompt: put before a text.
    """

    model_type = MODEL_TYPE

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
    dense_dim: int = 0
    dense_activation: str = "identity"
    prompt_in_pooling: bool = True
    prompt_in_terms: bool = True
    sparse_layers: list[int] | tuple[int, ...] = (6,)
    head_experts: int = 0
    head_experts_per_token: int = 1
    head_granularity: int = 1
    head_intermediate_size: int = 1536
    head_shared_experts: int = 0
    vocabulary_experts: int = 0
    vocabulary_experts_per_token: int = 16
    vocabulary_experts_per_text: int = 0
    max_length: int = 256
    max_terms: int = 256
    min_document_weight: float = 0.0
    min_query_weight: float = 0.0
    max_fraction: float = 1.0
    query_mode: str = "encoder"
    query_prompt: str = ""
    document_prompt: str = ""

    def validate_retriever(self) -> None:
        """Refuse what the network would only notice while it runs; called by the base class."""
        check_settings({name: getattr(self, name) for name in DEFAULTS})
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act is {self.hidden_act!r}, allowed are {', '.join(ACT2FN)}")

    @property
    def expert_layers(self) -> tuple[tuple[str, int], ...]:
        """Return the name and the number of routed experts of each MoE layer, in the order of the routings."""
        return expert_layers({name: getattr(self, name) for name in DEFAULTS})

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

    @property
    def head_expert_shape(self) -> ExpertShape:
        """Return the sizes of the sparse head's MoE layer in fine-grained experts."""
        return ExpertShape(
            routed=self.head_experts * self.head_granularity,
            shared=self.head_shared_experts,
            active=self.head_experts_per_token * self.head_granularity,
            hidden=self.hidden_size,
            intermediate=self.head_intermediate_size // self.head_granularity,
        )


class RetrieverOutput(NamedTuple):
    """dense: (n, dense_dim or hidden) unit length; sparse: (n, vocab) expansions >= 0; routings: of MoE layers, packed.

    states: (n_tokens, hidden), the last hidden states of a packed batch; None for a padded one.
    The sparse view is the expansions and what `RetrieverModel.lexical` makes of the text's own tokens.
    """

    dense: Tensor | None
    sparse: Tensor | None
    routings: tuple[Routing, ...]
    states: Tensor | None = None


class Embeddings(nn.Module):
    """Word plus position embeddings, normalised; the token-type row of BERT is folded into the positions."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, packed: Packed) -> Tensor:
        """Return (n_tokens, hidden)."""
        out: Tensor = self.norm(self.summed(packed))
        return out

    def summed(self, packed: Packed) -> Tensor:
        """Return the sums before the norm, (n_tokens, hidden)."""
        words = self.word(packed.input_ids).to(self.norm.weight.dtype)
        summed: Tensor = words + self.position(packed.positions)
        return summed


class FeedForward(nn.Module):
    """The dense feed-forward layer of the trunk's other layers."""

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return (n_tokens, hidden)."""
        return feed_forward(x, self.up.weight, self.up.bias, self.down.weight, self.down.bias, self.activation)


class Layer(nn.Module):
    """One transformer layer, normalised after each part as in BERT."""

    def __init__(self, config: RetrieverConfig, index: int) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward: FeedForward | MoELayer = FeedForward(config)
        if index in config.moe_layers:
            self.feed_forward = MoELayer(config.expert_shape, ACT2FN[config.hidden_act], config.routed_scale)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, x: Tensor, groups: Sequence[Group], spans: Sequence[PaddedTexts] | None
    ) -> tuple[Tensor, Routing | None]:
        """Return (n_tokens, hidden) and, from a MoE layer, the routing."""
        x = self.attention_norm(x + self.attention(x, groups, spans))
        out = self.feed_forward(x)
        y, routing = out if isinstance(out, tuple) else (out, None)
        return self.feed_forward_norm(x + y), routing


class RetrieverModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The encoder network; `AutoModel.from_pretrained` loads it once `retriever.network.model` is imported."""

    config_class = RetrieverConfig
    config: RetrieverConfig
    base_model_prefix = "retriever"
    _supports_sdpa = True

    def __init__(self, config: RetrieverConfig) -> None:
        super().__init__(config)
        self.low_precision = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.projection = Linear(config.hidden_size, config.dense_dim) if config.dense_dim else None
        self.sparse_head = SparseHead(config)
        self.lexical = LexicalHead(config)
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

    def encode(self, packed: Packed, *, dense: bool = True, sparse: bool = True, prompt: int = 0) -> RetrieverOutput:
        """Encode a packed batch: only the requested views are computed; texts stay in packed order.

        prompt: how many tokens of each text, from its second on, are a prompt's.
        """
        vectors, mixed, routings = self.trunk(packed)
        weights = None
        if sparse:
            mixed, own = self.read_by_terms(mixed, packed, prompt)
            words = self.embeddings.word.weight
            weights, routing = self.sparse_head(mixed, own.groups, words, token_ids=own.input_ids)
            routings += () if routing is None else (routing,)
        return RetrieverOutput(self.pool(vectors, packed, prompt) if dense else None, weights, routings, vectors)

    def trunk(self, packed: Packed) -> tuple[Tensor, Tensor, tuple[Routing, ...]]:
        """Return the last hidden states and those that feed the sparse head, both (n_tokens, hidden), and routings."""
        x = self.embeddings(packed)
        native = self.low_precision and x.device.type == "cpu" and not torch.is_grad_enabled()
        spans = padded_together(packed.groups) if native else None
        hidden = [x]
        routings = []
        for layer in self.layers:
            x, routing = layer(x, packed.groups, spans)
            hidden.append(x)
            if routing is not None:
                routings.append(routing)
        return x, torch.stack([hidden[i] for i in self.config.sparse_layers]).mean(0), tuple(routings)

    def read_by_terms(self, x: Tensor, packed: Packed, prompt: int) -> tuple[Tensor, Packed]:
        """Return the states (n_tokens, hidden) that the sparse head reads, and their tokens; prompt: as in `encode`."""
        if not prompt or self.config.prompt_in_terms:
            return x, packed
        places, own = without_tokens(packed, 1, prompt)
        return x[places], own

    def pool(self, x: Tensor, packed: Packed, prompt: int = 0) -> Tensor:
        """Return the dense view of the last hidden states: float32 (n_texts, dense_dim or hidden) of unit length."""
        if prompt and not self.config.prompt_in_pooling:
            places, packed = without_tokens(packed, 0, 1 + prompt)
            x = x[places]
        parts = torch.split(x.float(), [group.count * group.length for group in packed.groups])
        views = [part.view(group.count, group.length, -1) for group, part in zip(packed.groups, parts, strict=True)]
        pooled = torch.cat([POOLING[self.config.pooling](view) for view in views])
        if self.projection is not None:
            with torch.autocast(x.device.type, enabled=False):
                pooled = self.projection(pooled)
            if self.config.dense_activation == "tanh":
                pooled = pooled.tanh()
        return F.normalize(pooled, dim=-1)

    def set_precision(self, precision: str) -> RetrieverModel:
        """Cast the weights, except the routers, which decide in float32, the values per term, and the projection.

        precision: "float32", "bfloat16" or "float16"; `retriever.network.int8` makes another network of it.
        """
        self.low_precision = precision != "float32"
        dtype = getattr(torch, precision)
        for name, value in (*self.named_parameters(), *self.named_buffers()):
            kept = name.endswith((".router", ".router_bias")) or name in TERM_VALUES
            kept |= name.startswith(("lexical.", "projection."))
            if value.is_floating_point():
                value.data = value.data.float() if kept else value.data.to(dtype)
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
