"""The encoders that `bench encode` compares, ours and others', and stand-ins for those that are not at hand.

A stand-in has the sizes of the real thing and does as much work on a text; what it finds is worth nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from retriever.network.moe import ExpertShape

__all__ = ["VIEWS", "EncoderSystem", "build_encoder", "save_control", "save_splade"]

VIEWS: Mapping[str, Mapping[str, bool]] = {
    "dense": {"dense": True, "sparse": False},
    "sparse": {"dense": False, "sparse": True},
    "both": {"dense": True, "sparse": True},
}
SPLADE_TERMS = 200
"""Terms of a document that the stand-in of a SPLADE finds, as many as trained ones do."""
BATCH = 32
"""Texts that sentence-transformers, and so plain transformers here, encode together by default: their batch size."""


class EncoderSystem(NamedTuple):
    """One system: its name in the table, what runs it, its folder; the rest is for encoders of ours."""

    name: str
    kind: str
    folder: str
    precision: str = "auto"
    view: str = "both"
    workers: int = 0


def build_encoder(system: EncoderSystem) -> Callable[[Sequence[str]], object]:
    """Load a system and return what encodes documents with it, at its defaults."""
    return KINDS[system.kind](system)


def _ours(system: EncoderSystem) -> Callable[[Sequence[str]], object]:
    runtime = RuntimeConfig(precision=system.precision, workers=system.workers, recent_queries=0)
    encoder = load_encoder(system.folder, runtime)
    views = VIEWS[system.view]
    return lambda texts: encoder.encode_documents(texts, **views)


def _sentence_transformer(system: EncoderSystem) -> Callable[[Sequence[str]], object]:
    model = _dense_peer(system.folder)
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def _splade(system: EncoderSystem) -> Callable[[Sequence[str]], object]:
    load_encoder(f"st:+{system.folder}")  # says in one line what is wrong with the folder or name
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(system.folder)
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def _transformers(system: EncoderSystem) -> Callable[[Sequence[str]], object]:
    """Return the loop that transformers' users write: batches as the texts come, padded, the mean of the tokens."""
    import torch

    peer = _dense_peer(system.folder)
    network, tokenizer, limit = peer[0].auto_model.float(), peer.tokenizer, peer.max_seq_length

    def encode(texts: Sequence[str]) -> list[Any]:
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = tokenizer(
                    list(texts[start : start + BATCH]),
                    padding=True,
                    truncation=True,
                    max_length=limit,
                    return_tensors="pt",
                )
                hidden = network(**batch).last_hidden_state  # (n, length, hidden)
                mask = batch["attention_mask"].unsqueeze(-1)
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                found.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
        return found

    return encode


KINDS = {
    "ours": _ours,
    "sentence-transformer": _sentence_transformer,
    "splade": _splade,
    "transformers": _transformers,
}


def _dense_peer(folder: str) -> Any:
    load_encoder(f"st:{folder}")  # says in one line what is wrong with the folder or name
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder)


def save_splade(parent: str, folder: Path, texts: Sequence[str]) -> str:
    """Save a SparseEncoder of the dense parent's trunk and a masked-language head, which finds SPLADE_TERMS terms."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import BertForMaskedLM

    peer = _dense_peer(parent)
    if peer[0].auto_model.config.model_type != "bert":
        raise UserError(
            f"{parent}: found a {peer[0].auto_model.config.model_type!r}, need a 'bert' to make a SPLADE of"
        )
    model = BertForMaskedLM(peer[0].auto_model.config)
    model.bert.load_state_dict(peer[0].auto_model.state_dict(), strict=False)  # it has no pooler
    model.train(False)
    tokenizer, limit = peer.tokenizer, peer.max_seq_length
    with torch.inference_mode():
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        logits = model(**batch).logits.masked_fill(batch["attention_mask"].unsqueeze(-1) == 0, -torch.inf)
        best = logits.amax(1).flatten().sort(descending=True).values  # (n * vocab,)
        wanted = min(SPLADE_TERMS, model.config.vocab_size // 10)
        model.cls.predictions.bias.data -= best[wanted * len(texts)]
    base = folder.with_name(f"{folder.name}-base")
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    transformer = Transformer(str(base), transformer_task="fill-mask", max_seq_length=limit)
    modules: list[nn.Module] = [transformer, SpladePooling(pooling_strategy="max")]
    SparseEncoder(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return str(folder)


def save_control(encoder: str, folder: Path) -> str:
    """Save an encoder of ours whose sparse head has one expert as large as the experts together that a token meets.

    It holds weights of the first experts and the shared ones, so that its results are about as long as the original's.
    """
    from transformers import AutoTokenizer

    from retriever.encoder.spec import parse_spec
    from retriever.network.folder import load_model, save_encoder
    from retriever.network.model import RetrieverConfig, RetrieverModel

    source = parse_spec(encoder).folder()
    model = load_model(source)
    config = model.config
    if config.moe_layers or not config.head_experts:
        raise UserError(
            f"{encoder}: a control is made of an encoder whose only experts are the sparse head's; give one"
        )
    shape = config.head_expert_shape
    settings = config.to_dict() | {
        "head_experts": 1,
        "head_granularity": 1,
        "head_experts_per_token": 1,
        "head_shared_experts": 0,
        "head_intermediate_size": (shape.active + shape.shared) * shape.intermediate,
    }
    control = RetrieverModel(RetrieverConfig(**settings))
    state = model.state_dict()
    layer = "sparse_head.experts."
    state |= {layer + name: value for name, value in _merged(state, layer, shape, config.head_granularity).items()}
    control.load_state_dict(state)
    return str(save_encoder(control, AutoTokenizer.from_pretrained(source), folder, "float32"))


def _merged(state: Mapping[str, Tensor], layer: str, shape: ExpertShape, routed_scale: int) -> dict[str, Tensor]:
    """Return the first active experts and the shared ones as one expert: their neurons side by side.

    The routed ones have equal shares of the weight that the router would share out among them.
    """
    import torch

    names = ("up_proj", "up_bias", "down_proj", "down_bias")
    up, up_bias, down, down_bias = (state[layer + name][: shape.active] for name in names)
    shared_up, shared_up_bias, shared_down, shared_down_bias = (state[f"{layer}shared_{name}"] for name in names)
    share = routed_scale / shape.active
    downs = [down.transpose(0, 1).flatten(1) * share, shared_down]  # (hidden, active * inner), (hidden, shared * inner)
    return {
        "router": state[f"{layer}router"][:1],
        "up_proj": torch.cat([up.flatten(0, 1), shared_up]).unsqueeze(0),
        "up_bias": torch.cat([up_bias.flatten(), shared_up_bias]).unsqueeze(0),
        "down_proj": torch.cat(downs, dim=1).unsqueeze(0),
        "down_bias": down_bias.sum(0, keepdim=True) * share + shared_down_bias,
        "shared_up_proj": shared_up[:0],
        "shared_up_bias": shared_up_bias[:0],
        "shared_down_proj": shared_down[:, :0],
        "shared_down_bias": torch.zeros_like(shared_down_bias),
    }
