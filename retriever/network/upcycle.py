"""Turn a dense BERT-shaped checkpoint into a Mixture-of-Experts encoder.

- Copies: every expert starts as the parent's feed-forward layer (Komatsuzaki et al. 2023, "Sparse Upcycling").
- Virtual groups: with granularity G each copy is cut into G fine-grained experts that share one router row, so that the
  best experts_per_token * G experts are always whole copies (He et al. 2024, "Upcycling LLMs into Mixture of Experts").
  Weights of the chosen experts sum to one, hence routed_scale = G, and the output equals the parent's exactly.
- A shared expert takes half of what its neurons contribute, the routed experts keep the other half.
- `reinit_fraction` > 0 draws that share of each expert's neurons afresh from the parent's statistics (Nakamura et al.
  2025, "Drop-Upcycling"): the experts differ from the start, and the function is no longer preserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from retriever.network.checkpoint import local_folder
from retriever.network.model import RetrieverConfig, RetrieverModel
from retriever.network.moe import MoELayer
from retriever.network.parent import SHAPES, first_position, load_parent
from retriever.network.parent_vectors import ParentVectors
from retriever.network.prompts import lacking_prompts, prompts_notice
from retriever.network.vocabulary import allowed, marks_beginnings, stems, term_prior, zipf_fractions
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from retriever.network.sentence_folder import Behind

__all__ = ["EXPANDED_TERMS", "UpcycleConfig", "Upcycled", "upcycle", "upcycle_checkpoint"]

EXPANDED_TERMS = 256
"""Most terms that expand a text, where its expansions say something."""


@dataclass(frozen=True)
class UpcycleConfig:
    """How many experts, where, and how the sparse head starts.

    moe_layers: indices of layers, or None for every second one from the second on. Term weights start as
    log(1 + relu(logit_scale * idf_v * logit - logit_bias)), idf_v from `term_prior`; the defaults, and the choice of
    layers, did best without training on Cranfield and CISI at about 250 terms a document.
    sparse_layers: hidden states that feed the sparse head, negative ones counted from the last; None: the last three.
    max_terms: most expanded terms of a text; None: 256 for a WordPiece vocabulary, and none, 0, for others, whose
    expansions say something only once they are trained (`retriever train` turns them on): the sparse view is then the
    text's own words, and the vocabulary is never computed.
    head_*: the MoE layer of the sparse head, none with 0 experts. head_shared_experts are of the fine-grained size,
    head_intermediate_size / head_granularity, and every token meets them beside its routed ones: with 15 experts, 1 per
    token, and 1 shared one, of 768 each, a token meets 1536 neurons.
    """

    num_experts: int = 4
    experts_per_token: int = 1
    granularity: int = 2
    shared_experts: int = 0
    moe_layers: tuple[int, ...] | None = None
    reinit_fraction: float = 0.0
    router_std: float = 0.02
    sparse_layers: tuple[int, ...] | None = None
    max_terms: int | None = None
    head_experts: int = 0
    head_experts_per_token: int = 1
    head_granularity: int = 1
    head_intermediate_size: int = 1536
    head_shared_experts: int = 0
    logit_scale: float = 0.125
    logit_bias: float = 0.9
    query_prompt: str | None = None
    document_prompt: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise UserError(
                f"experts_per_token is {self.experts_per_token}, allowed are 1 to num_experts ({self.num_experts})"
            )
        if self.granularity < 1:
            raise UserError(f"granularity is {self.granularity}, allowed is 1 or more")
        if not 0 <= self.shared_experts <= self.granularity:
            raise UserError(
                f"shared_experts is {self.shared_experts}, allowed are 0 to granularity ({self.granularity}); "
                "a shared expert copies one of the granularity slices of the parent's layer"
            )
        if self.head_shared_experts < 0 or (self.head_shared_experts and not self.head_experts):
            raise UserError(
                f"head_shared_experts is {self.head_shared_experts}, allowed is 0 or more, and 0 without head_experts"
            )
        if self.max_terms is not None and self.max_terms < 0:
            raise UserError(f"max_terms is {self.max_terms}, allowed is 0 (no expansions) or more")
        if not 0 <= self.reinit_fraction <= 1:
            raise UserError(f"reinit_fraction is {self.reinit_fraction}, allowed is 0 to 1")
        for name in ("query_prompt", "document_prompt"):
            prompt = getattr(self, name) or ""
            if prompt.encode(errors="ignore").decode() != prompt:
                raise UserError(f"{name} is {prompt!r}, which is not UTF-8; write it so")
        if not self.router_std >= 0:
            raise UserError(f"router_std is {self.router_std}, allowed is 0 or more")


class Upcycled(NamedTuple):
    """An encoder made of a checkpoint, and its tokeniser.

    parent: the checkpoint's vectors of some texts; deviation: the largest difference of a number of the encoder's from
    these, None where it was meant to differ (reinit_fraction > 0); notice: what the user should know, or None.
    """

    model: RetrieverModel
    tokenizer: PreTrainedTokenizerBase
    parent: ParentVectors
    deviation: float | None
    notice: str | None


def upcycle_checkpoint(base: str, config: UpcycleConfig) -> Upcycled:
    """Load the checkpoint `base` (a folder or a hub name), upcycle it, and compare the two.

    Raises:
        UserError: the checkpoint cannot be loaded, has parts that an encoder of ours has no place for, or the encoder
            made of it gives other vectors (unless reinit_fraction > 0).
    """
    folder = local_folder(base)
    parent = load_parent(base, folder)
    given = {name: getattr(config, name) for name in ("query_prompt", "document_prompt")}
    given = {name: prompt for name, prompt in given.items() if prompt is not None}
    parent = parent._replace(settings=parent.settings | given)
    model = upcycle(parent.model, parent.tokenizer, config, parent.settings, parent.behind)
    vectors = ParentVectors(base, folder, parent, max_length=model.config.max_length)
    deviation = None if config.reinit_fraction else vectors.check(model)
    lacking = lacking_prompts(base, folder, parent.settings, given)
    options = " ".join(f"--{name.replace('_', '-')} {text!r}" for name, text in lacking.items())
    notice = prompts_notice(base, options) if lacking else None
    return Upcycled(model, parent.tokenizer, vectors, deviation, notice)


def upcycle(
    parent: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: UpcycleConfig,
    settings: dict[str, Any] | None = None,
    behind: Behind | None = None,
) -> RetrieverModel:
    """Return a MoE encoder whose dense view equals `parent`'s pooled output (unless reinit_fraction > 0).

    settings: further fields of RetrieverConfig, such as max_length, pooling and the prompts. behind: what stands behind
    the pooling, None for nothing.
    """
    shape = parent.config
    if shape.model_type not in SHAPES:
        raise UserError(
            f"the base is a {shape.model_type!r} model; upcycling needs a BERT-shaped one (model_type "
            f"{', '.join(map(repr, SHAPES))}, absolute positions), such as all-MiniLM-L6-v2 or multilingual-e5-small"
        )
    positions = shape.max_position_embeddings - first_position(shape)
    told: dict[str, Any] = {"pad_token_id": shape.pad_token_id, "max_length": positions, **(settings or {})}
    told["max_length"] = min(positions, told["max_length"])
    size = min(shape.vocab_size, len(tokenizer))  # rows padded beyond the terms mean nothing
    layers = shape.num_hidden_layers
    moe_layers = tuple(range(1, layers, 2)) if config.moe_layers is None else config.moe_layers
    if any(not 0 <= layer < layers for layer in moe_layers):
        raise UserError(f"moe_layers {list(moe_layers)} name a layer that is not there; the base has 0 to {layers - 1}")
    if shape.intermediate_size % config.granularity:
        raise UserError(f"granularity {config.granularity} does not divide intermediate_size {shape.intermediate_size}")
    sparse_layers = (*range(max(layers - 2, 0), layers + 1),) if config.sparse_layers is None else config.sparse_layers
    if not sparse_layers or any(not -layers - 1 <= layer <= layers for layer in sparse_layers):
        raise UserError(
            f"sparse_layers {list(sparse_layers)} must name one hidden state or more; the base has 0 to {layers} "
            f"(or -1 to {-layers - 1}, counted from the last)"
        )
    vocabulary = [str(term) for term in tokenizer.convert_ids_to_tokens(list(range(size)))]
    model = RetrieverModel(
        RetrieverConfig(
            vocab_size=size,
            max_terms=_most_terms(config, vocabulary),
            hidden_size=shape.hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            hidden_act=shape.hidden_act,
            max_position_embeddings=positions,
            layer_norm_eps=shape.layer_norm_eps,
            moe_layers=list(moe_layers),
            num_experts=config.num_experts,
            experts_per_token=config.experts_per_token,
            granularity=config.granularity,
            shared_experts=config.shared_experts,
            routed_scale=float(config.granularity),
            sparse_layers=[layer % (layers + 1) for layer in sparse_layers],
            head_experts=config.head_experts,
            head_experts_per_token=config.head_experts_per_token,
            head_granularity=config.head_granularity,
            head_intermediate_size=config.head_intermediate_size,
            head_shared_experts=config.head_shared_experts,
            dense_dim=0 if behind is None else len(behind.bias),
            dense_activation="identity" if behind is None else behind.activation,
            prompt_in_terms=False,
            **told,
        )
    )
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        _copy_trunk(parent, model)
        layer: Any  # torch types the members of a list of modules as Tensor or Module
        block: Any
        trunk: Any = parent
        for block, layer in zip(trunk.encoder.layer, model.layers, strict=True):
            up, down = block.intermediate.dense, block.output.dense
            if isinstance(layer.feed_forward, MoELayer):
                _fill_experts(layer.feed_forward, up, down, config, generator)
            else:
                layer.feed_forward.up.load_state_dict(up.state_dict())
                layer.feed_forward.down.load_state_dict(down.state_dict())
        if behind is not None:
            assert model.projection is not None
            model.projection.weight.copy_(behind.weight)
            model.projection.bias.copy_(behind.bias)
        _start_sparse_head(model, vocabulary, set(tokenizer.all_special_ids), config, generator)
    model.train(False)
    return model


def _copy_trunk(parent: PreTrainedModel, model: RetrieverModel) -> None:
    """Copy embeddings and attention; every text is one segment, so its token-type row joins the position rows."""
    trunk: Any = parent
    source, target = trunk.embeddings, model.embeddings
    target.word.weight.copy_(source.word_embeddings.weight[: len(target.word.weight)])
    positions = source.position_embeddings.weight[first_position(parent.config) :]
    target.position.weight.copy_(positions + source.token_type_embeddings.weight[0])
    target.norm.load_state_dict(source.LayerNorm.state_dict())
    old: Any
    new: Any
    for old, new in zip(trunk.encoder.layer, model.layers, strict=True):
        heads = (old.attention.self.query, old.attention.self.key, old.attention.self.value)
        new.attention.qkv.weight.copy_(torch.cat([part.weight for part in heads]))
        new.attention.qkv.bias.copy_(torch.cat([part.bias for part in heads]))
        new.attention.out.load_state_dict(old.attention.output.dense.state_dict())
        new.attention_norm.load_state_dict(old.attention.output.LayerNorm.state_dict())
        new.feed_forward_norm.load_state_dict(old.output.LayerNorm.state_dict())


def _fill_experts(
    layer: MoELayer, up: torch.nn.Linear, down: torch.nn.Linear, config: UpcycleConfig, generator: torch.Generator
) -> None:
    """Cut the parent's neurons into slices and give every virtual group one copy of each slice."""
    groups, slices, inner = config.num_experts, config.granularity, layer.shape.intermediate
    rows = torch.randn(groups, layer.shape.hidden, generator=generator) * config.router_std
    layer.router.copy_(rows.repeat_interleave(slices, 0))  # experts of one copy share their router row
    up_slices = up.weight.view(slices, inner, -1)
    down_slices = down.weight.view(-1, slices, inner).permute(1, 0, 2)  # (slices, hidden, inner)
    # What the shared experts' neurons already give is left out of the routed experts, the bias included.
    share = torch.ones(slices, 1, 1)
    share[: config.shared_experts] = 0.5
    layer.up_proj.copy_(up_slices.repeat(groups, 1, 1))
    layer.up_bias.copy_(up.bias.view(slices, inner).repeat(groups, 1))
    layer.down_proj.copy_((down_slices * share).repeat(groups, 1, 1))
    layer.down_bias.copy_((down.bias / slices).expand(groups * slices, -1))
    if config.shared_experts:
        width = config.shared_experts * inner
        layer.shared_up_proj.copy_(up.weight[:width])
        layer.shared_up_bias.copy_(up.bias[:width])
        layer.shared_down_proj.copy_(down.weight[:, :width] * 0.5)
    if config.reinit_fraction:
        _reinitialise(layer, config.reinit_fraction, generator)


def _reinitialise(layer: MoELayer, fraction: float, generator: torch.Generator) -> None:
    """Draw `fraction` of each routed expert's neurons from a normal with that expert's own mean and deviation."""

    def draw(values: Tensor, count: int) -> Tensor:
        noise = torch.randn(count, values.shape[-1], generator=generator)
        return values.mean() + values.std() * noise

    count = round(fraction * layer.shape.intermediate)
    for expert in range(layer.shape.routed):
        neurons = torch.randperm(layer.shape.intermediate, generator=generator)[:count]
        layer.up_proj[expert, neurons] = draw(layer.up_proj[expert], count)
        layer.up_bias[expert, neurons] = 0.0
        layer.down_proj[expert][:, neurons] = draw(layer.down_proj[expert].T, count).T


def _most_terms(config: UpcycleConfig, vocabulary: list[str]) -> int:
    if config.max_terms is not None:
        return config.max_terms
    return 0 if marks_beginnings(vocabulary) else EXPANDED_TERMS


def _start_sparse_head(
    model: RetrieverModel,
    vocabulary: list[str],
    special: Collection[int],
    config: UpcycleConfig,
    generator: torch.Generator,
) -> None:
    """Make the tied word embeddings a usable decoder before any training."""
    head = model.sparse_head
    head.transform.weight.zero_()
    head.transform.bias.zero_()
    if head.experts is not None:  # experts differ from the start, but add nothing until their second layer has learned
        head.experts.router.normal_(std=config.router_std, generator=generator)
        head.experts.up_proj.normal_(std=model.config.hidden_size**-0.5, generator=generator)
        head.experts.down_proj.zero_()
        head.experts.shared_up_proj.normal_(std=model.config.hidden_size**-0.5, generator=generator)
        head.experts.shared_down_proj.zero_()
    head.scale.fill_(config.logit_scale)
    head.scale.mul_(term_prior(vocabulary))
    head.bias.fill_(-config.logit_bias)
    head.allowed.copy_(allowed(vocabulary, special))
    head.stem[:] = torch.tensor(stems(vocabulary), dtype=torch.int32)
    head.stem[~head.allowed] = -1
    counted = head.stem >= 0
    shares = torch.zeros(len(head.stem)).index_add(0, head.stem[counted].long(), zipf_fractions(vocabulary)[counted])
    model.lexical.fraction.copy_(shares.clamp(1e-5, 0.9))
