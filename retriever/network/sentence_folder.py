"""What the folder of a sentence-transformers model says beside its network: modules, pooling, prompts, lengths.

Modules behind the pooling become one matrix, a bias and perhaps tanh: Dense layers without an activation are folded
into each other, cutting the vectors (`truncate_dim`) leaves rows out. The dense view has unit length in any case.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Behind", "SentenceFolder", "read_sentence_folder"]

LONGEST = 1_000_000
"""Tokenisers without a limit of their own write a huge number."""
POOLINGS = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean", "max": "max", "max_tokens": "max"}
BY_ROOT = ("mean_sqrt_len_tokens",)
"""A mean but for its length, which unit length takes off."""
SIMILARITIES = {"cosine": "cosine", "dot": "dot", "dot_product": "dot", "euclidean": "euclidean"}
ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh"}
EMBEDDING = "sentence_embedding"


class Behind(NamedTuple):
    """What stands between the pooling and unit length: activation(weight (dim, hidden) @ pooled + bias (dim,))."""

    weight: Tensor
    bias: Tensor
    activation: str


class SentenceFolder(NamedTuple):
    """What was read.

    trunk: the folder of the network and the tokeniser; listed: whether modules.json names modules, so that
    sentence-transformers can run it; settings: fields of RetrieverConfig; behind: None where the pooling is the last.
    """

    trunk: Path
    listed: bool
    settings: dict[str, Any]
    behind: Behind | None


def read_sentence_folder(base: str, folder: Path) -> SentenceFolder:
    """Read the folder of a sentence-transformers model, old layout or new, or of a plain network; `base` names it.

    Raises:
        UserError: it is damaged, or has something that our encoder has no place for; names it, and the way out.
    """
    refuse = _Refusal(base)
    modules = _modules(base, folder)
    kinds = [_kind(module) for module in modules]
    if modules and kinds[:2] != ["Transformer", "Pooling"]:
        raise refuse(f"begins with the modules {' and '.join(kinds[:2])}, need Transformer and Pooling")
    trunk = folder / str(modules[0].get("path", "")) if modules else folder
    path = str(modules[1].get("path", "")) if modules else "1_Pooling"
    sentence = _read(folder / "config_sentence_transformers.json")
    pooling = _read(folder / path / "config.json")
    settings: dict[str, Any] = {"pooling": _pooling(refuse, pooling, plain="Dense" not in kinds)}
    length = _read(trunk / "sentence_bert_config.json").get("max_seq_length")
    length = length or _read(trunk / "tokenizer_config.json").get("model_max_length")
    if isinstance(length, int) and length < LONGEST:
        settings["max_length"] = length
    prompts = sentence.get("prompts") or {}
    settings["query_prompt"] = prompts.get("query") or ""
    settings["document_prompt"] = next(
        (prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), ""
    )
    settings["prompt_in_pooling"] = pooling.get("include_prompt") is not False
    if sentence.get("truncate_dim") and not modules:
        raise refuse("cuts its vectors (truncate_dim), but modules.json, which says what they are, is missing")
    behind = _cut(_fold(refuse, folder, modules[2:]), sentence.get("truncate_dim"), _read(trunk / "config.json"))
    unit = kinds[-1:] == ["Normalize"] and not sentence.get("truncate_dim")
    similarity = SIMILARITIES.get(str(sentence.get("similarity_fn_name") or "cosine"), "another")
    if similarity == "another" or (similarity != "cosine" and not unit):
        raise refuse(f"compares vectors of any length by {sentence['similarity_fn_name']!r}, ours are of unit length")
    return SentenceFolder(trunk, bool(modules), settings, behind)


class _Refusal:
    """Makes the one line that says what has no place in our encoder, and the way out."""

    def __init__(self, base: str) -> None:
        self._base = base

    def __call__(self, reason: str) -> UserError:
        return UserError(f"{self._base}: {reason}; use it as it is with --encoder st:{self._base}")


def _modules(base: str, folder: Path) -> list[dict[str, Any]]:
    """Return the modules of a sentence-transformers folder that do something at inference, none for a plain one."""
    found = _read(folder / "modules.json")
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        if found == {}:
            return []
        raise UserError(f"{base}: modules.json is damaged (no list of modules); copy or save the model again")
    return [module for module in found if _kind(module) != "Dropout"]


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rpartition(".")[2]


def _pooling(refuse: _Refusal, pooling: dict[str, Any], *, plain: bool) -> str:
    """Return how our encoder pools; plain: nothing but unit length comes behind it."""
    old = [name.removeprefix("pooling_mode_") for name, on in pooling.items() if "pooling_mode_" in name and on is True]
    found = pooling.get("pooling_mode") or "+".join(old) or "mean"
    if isinstance(found, list):
        found = "+".join(map(str, found))
    if plain and found in BY_ROOT:
        return "mean"
    if found not in POOLINGS:
        raise refuse(f"pools by {found!r}; the dense head knows the mean and the maximum of the tokens, and [CLS]")
    return POOLINGS[found]


def _fold(refuse: _Refusal, folder: Path, modules: Sequence[dict[str, Any]]) -> Behind | None:
    """Return what the modules behind the pooling do, but for unit length at the end."""
    found: Behind | None = None
    normalised = False
    for module in modules:
        kind, path = _kind(module), str(module.get("path", ""))
        config = _read(folder / path / "config.json")
        names = {config.get(name) or EMBEDDING for name in ("module_input_name", "module_output_name")}
        if kind not in ("Dense", "Normalize") or names != {EMBEDDING}:
            raise refuse(f"has a {kind} module ({path}), which the encoder made of it would leave out")
        if kind == "Normalize":
            normalised = True
            continue
        layer = _dense(refuse, folder / path, config)
        if found is not None and found.activation != "identity":
            raise refuse(f"has a Dense module ({path}) behind one with an activation, which is no single matrix")
        if normalised and (layer.activation != "identity" or layer.bias.any()):
            raise refuse(f"has a Dense module ({path}) with a bias or an activation behind a Normalize module")
        if found is not None:
            layer = Behind(layer.weight @ found.weight, layer.weight @ found.bias + layer.bias, layer.activation)
        found = layer
    return found if found is None else Behind(found.weight.float(), found.bias.float(), found.activation)


def _dense(refuse: _Refusal, folder: Path, config: dict[str, Any]) -> Behind:
    """Read a Dense module, in float64: products of several are taken."""
    name = str(config.get("activation_function") or "Tanh").rpartition(".")[2]
    if name not in ACTIVATIONS:
        raise refuse(
            f"has a Dense module ({folder.name}) with {name}, the dense head knows {' and '.join(ACTIVATIONS)}"
        )
    state = _weights(folder)
    try:
        weight = state["linear.weight"].double()
        bias = state.get("linear.bias", torch.zeros(len(weight))).double()
        sizes = int(config["out_features"]), int(config["in_features"])
        if weight.shape != sizes or bias.shape != sizes[:1] or not (weight.isfinite().all() and bias.isfinite().all()):
            raise ValueError
        if config.get("use_residual"):
            if name != "Identity":
                raise refuse(f"has a Dense module ({folder.name}) with a residual beside {name}")
            weight = weight + state.get("residual.weight", torch.eye(*sizes)).double()
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"{folder}: damaged (weights and config.json do not fit); copy or save the model again"
        ) from None
    return Behind(weight, bias, ACTIVATIONS[name])


def _weights(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            return load_file(safe)
        found: dict[str, Tensor] = torch.load(old, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError, EOFError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{folder}: its weights cannot be read ({reason}); copy or save the model again") from None
    else:
        return found


def _cut(behind: Behind | None, length: int | None, network: dict[str, Any]) -> Behind | None:
    """Return the first `length` rows; of a matrix that changes nothing where there is none yet."""
    if not length:
        return behind
    if behind is None:
        hidden = int(network.get("hidden_size") or 0)
        if length >= hidden:
            return None
        behind = Behind(torch.eye(hidden), torch.zeros(hidden), "identity")
    return Behind(behind.weight[:length].clone(), behind.bias[:length].clone(), behind.activation)


def _read(path: Path) -> Any:
    """Return the values of a JSON file, {} if it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise UserError(f"{path}: damaged (no JSON); copy or save the model again") from None
