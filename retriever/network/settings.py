"""The settings of an encoder and the shapes of its weights, known without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retriever.names import QUERY_MODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "ACTIVATIONS",
    "DEFAULTS",
    "NUMBERS",
    "POOLINGS",
    "check_numbers",
    "check_settings",
    "dense_size",
    "expected_shapes",
    "expert_layers",
]

DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "moe_layers": (),
    "num_experts": 1,
    "experts_per_token": 1,
    "granularity": 1,
    "shared_experts": 0,
    "routed_scale": 1.0,
    "pooling": "mean",
    "dense_dim": 0,
    "dense_activation": "identity",
    "prompt_in_pooling": True,
    "prompt_in_terms": True,
    "sparse_layers": (6,),
    "head_experts": 0,
    "head_experts_per_token": 1,
    "head_granularity": 1,
    "head_intermediate_size": 1536,
    "head_shared_experts": 0,
    "vocabulary_experts": 0,
    "vocabulary_experts_per_token": 16,
    "vocabulary_experts_per_text": 0,
    "max_length": 256,
    "max_terms": 256,
    "min_document_weight": 0.0,
    "min_query_weight": 0.0,
    "max_fraction": 1.0,
    "query_mode": "encoder",
    "query_prompt": "",
    "document_prompt": "",
}
"""What a config.json leaves out: the values of `RetrieverConfig`, which explains them."""
NUMBERS = {"sparse_head.stem": "vocab_size", "sparse_head.vocabulary.cluster": "vocabulary_experts"}
"""Weights that are numbers of terms or clusters, -1 for none, and the settings that say how many there are."""
LARGEST = 2**31 - 1
"""Sizes and counts end here: the kernels count in 32 bits."""
MATRIX = ("weight", "bias")
POOLINGS = ("mean", "cls", "max")
ACTIVATIONS = ("identity", "tanh")
"""What may stand behind the matrix of the dense head."""


def _check_kind(name: str, value: object, default: object) -> None:
    """Refuse a setting that is not of its default's kind (transformers lets null pass), or beyond all sizes."""
    kinds = {tuple: (list, tuple), float: (float, int)}.get(type(default), (type(default),))
    if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
        raise ValueError(f"{name} is {value!r}, need {' or '.join(kind.__name__ for kind in kinds)}")
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise ValueError(f"{name} is {value}, allowed are 0 to {LARGEST}")


def check_settings(values: Mapping[str, Any]) -> None:
    """Raise ValueError for what the network would only notice while it runs; values: of every name in `DEFAULTS`."""
    for name, default in DEFAULTS.items():
        _check_kind(name, values[name], default)
    limit, layers = values["max_position_embeddings"], values["num_hidden_layers"]
    if not 3 <= values["max_length"] <= limit:
        raise ValueError(f"max_length is {values['max_length']}, allowed are 3 to max_position_embeddings ({limit})")
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if not heads or hidden % heads:  # the kernels would write beyond the heads that there is room for
        raise ValueError(f"hidden_size is {hidden}, need a multiple of num_attention_heads ({heads})")
    for name, choices in (("pooling", POOLINGS), ("dense_activation", ACTIVATIONS), ("query_mode", QUERY_MODES)):
        if values[name] not in choices:
            raise ValueError(f"{name} is {values[name]!r}, allowed are {' and '.join(map(repr, choices))}")
    for name, kind, present in (("num_", "", values["moe_layers"]), ("head_", "head_", values["head_experts"])):
        parts = values[f"{kind}granularity"]
        active, routed = (values[part] * parts for part in (f"{kind}experts_per_token", f"{name}experts"))
        if present and not 1 <= active <= routed:
            raise ValueError(f"{kind}experts_per_token gives {active} active experts, allowed are 1 to {routed}")
    clusters, per_token = values["vocabulary_experts"], values["vocabulary_experts_per_token"]
    if clusters and not 1 <= per_token <= clusters:
        raise ValueError(
            f"vocabulary_experts_per_token is {per_token}, allowed are 1 to vocabulary_experts ({clusters})"
        )
    chosen = values["sparse_layers"]
    if not chosen or any(layer not in range(layers + 1) for layer in chosen):
        raise ValueError(f"sparse_layers are {chosen}, allowed are 0 to {layers}")


def check_numbers(values: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Raise ValueError for terms or clusters that are not there: such weights would be written anywhere.

    numbers: of `NUMBERS` those that an encoder has, as arrays.
    """
    for name, found in numbers.items():
        least, most, count = int(found.min()), int(found.max()), values[NUMBERS[name]]
        if least < -1 or most >= count:
            raise ValueError(f"{name} has numbers from {least} to {most}, allowed are -1 to {count - 1}")


def expert_layers(values: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return the name and the number of routed experts of each MoE layer, in the order of the routings."""
    layers = [(str(layer), values["num_experts"] * values["granularity"]) for layer in sorted(values["moe_layers"])]
    head = values["head_experts"] * values["head_granularity"]
    return (*layers, *[("sparse head", head)] * bool(head))


def dense_size(values: Mapping[str, Any]) -> int:
    """Return how many numbers a vector of the dense view has."""
    return int(values["dense_dim"] or values["hidden_size"])


def expected_shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of the network, for settings that `check_settings` passes."""
    hidden, vocabulary = values["hidden_size"], values["vocab_size"]
    shapes = {
        "embeddings.word.weight": (vocabulary, hidden),
        "embeddings.position.weight": (values["max_position_embeddings"], hidden),
        **{f"sparse_head.{name}": (vocabulary,) for name in ("scale", "bias", "allowed", "stem")},
        **_linear("sparse_head.transform", hidden, hidden),
    }
    if values["dense_dim"]:
        shapes |= _linear("projection", values["dense_dim"], hidden)
    norms = ["embeddings.norm", "sparse_head.norm"]
    inner = values["intermediate_size"]
    for index in range(values["num_hidden_layers"]):
        layer = f"layers.{index}"
        norms += [f"{layer}.attention_norm", f"{layer}.feed_forward_norm"]
        shapes |= _linear(f"{layer}.attention.qkv", 3 * hidden, hidden) | _linear(
            f"{layer}.attention.out", hidden, hidden
        )
        if index in values["moe_layers"]:
            parts = values["num_experts"], values["granularity"], values["shared_experts"]
            shapes |= dict(_experts(f"{layer}.feed_forward", hidden, inner, *parts))
        else:
            shapes |= _linear(f"{layer}.feed_forward.up", inner, hidden)
            shapes |= _linear(f"{layer}.feed_forward.down", hidden, inner)
    if values["head_experts"]:
        parts = values["head_experts"], values["head_granularity"], values["head_shared_experts"]
        shapes |= dict(_experts("sparse_head.experts", hidden, values["head_intermediate_size"], *parts))
    if clusters := values["vocabulary_experts"]:
        shapes |= {
            "sparse_head.vocabulary.cluster": (vocabulary,),
            "sparse_head.vocabulary.router": (clusters, hidden),
            "sparse_head.vocabulary.router_bias": (clusters,),
        }
    return shapes | {f"{norm}.{part}": (hidden,) for norm in norms for part in MATRIX}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _experts(
    name: str, hidden: int, intermediate: int, experts: int, granularity: int, shared: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    routed, inner = experts * granularity, intermediate // granularity
    yield f"{name}.router", (routed, hidden)
    yield f"{name}.up_proj", (routed, inner, hidden)
    yield f"{name}.up_bias", (routed, inner)
    yield f"{name}.down_proj", (routed, hidden, inner)
    yield f"{name}.down_bias", (routed, hidden)
    yield f"{name}.shared_up_proj", (shared * inner, hidden)
    yield f"{name}.shared_up_bias", (shared * inner,)
    yield f"{name}.shared_down_proj", (hidden, shared * inner)
    yield f"{name}.shared_down_bias", (hidden,)
