"""The int8 network for one short text at a time, without torch: what a query needs.

The same function as `Int8Network.encode`, from the same folder; a dozen tokens take a tenth of the time there, since
nothing is prepared for hundreds of them, and a process that only searches imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.lazy import lazy
from retriever.network.checkpoint import SCALE, read_settings, read_values
from retriever.network.int8 import few
from retriever.network.int8.tiles import BLOCK, pack_bfloat16, pack_int8

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = ["SingleTextNetwork", "runs_alone"]

LOG2_E = 1.4426950408889634
DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "pooling": "mean", "moe_layers": (), "head_experts": 0}
FORBIDDEN = np.float32(-1e30)
"""The bias of a term that is not allowed: it never comes near a weight."""


def runs_alone(settings: dict[str, Any]) -> bool:
    """Say whether this network can run an encoder of these settings: its activation, and widths that fill a step."""
    sizes = [settings.get(name, 4) for name in ("hidden_size", "intermediate_size", "head_intermediate_size")]
    parts = [settings.get("granularity", 1), settings.get("head_granularity", 1)]
    whole = all(size % (4 * part) == 0 for size in sizes for part in parts)
    if settings.get("moe_layers") and settings.get("shared_experts"):
        return False
    return whole and settings.get("hidden_act", "gelu") == "gelu"


class Matrix(NamedTuple):
    """Packed uint8 weights with a float32 scale and bias for each output; those of experts one after another."""

    weights: NDArray[Any]
    scale: NDArray[Any]
    bias: NDArray[Any]


class Experts(NamedTuple):
    """Feed-forward layers; router (experts, hidden): None where all tokens go through the one that there is."""

    up: Matrix
    down: Matrix
    router: FloatArray | None
    active: int
    routed_scale: np.float32


class SingleTextNetwork:
    """Encodes the token ids of one text. Thread-safe: nothing is kept between two."""

    def __init__(self, folder: Path) -> None:
        """Read what the folder's dense view needs; the sparse head is read with the first text that needs it."""
        self._folder = folder
        self._settings = {**DEFAULTS, **read_settings(folder)}
        self._heads = int(self._settings["num_attention_heads"])
        self._eps = float(self._settings["layer_norm_eps"])
        self._words, self._word_scale = self._int8("embeddings.word.weight")
        self._positions = self._float("embeddings.position.weight")
        self._norm = self._norm_of("embeddings.norm")
        self._layers = [self._layer(index) for index in range(int(self._settings["num_hidden_layers"]))]

    def encode(
        self, token_ids: Sequence[int], *, dense: bool, sparse: bool
    ) -> tuple[FloatArray | None, FloatArray | None]:
        """Return the vector (hidden,) and the weights of expanded terms (vocab,), None for what is not asked for."""
        ids = np.array(token_ids, np.int64)
        words = self._words[ids].astype(np.float32) * self._word_scale[ids, None]
        x = _rounded(words) + self._positions[: len(ids)]
        few.norm(x, *self._norm, self._eps)
        chosen = list(self._settings["sparse_layers"]) if sparse else []
        hidden = np.zeros_like(x)
        for index in range(len(self._layers) + 1):
            if index:
                attention, attention_norm, feed_forward, feed_forward_norm = self._layers[index - 1]
                few.attend(x, self._heads, *attention)
                few.norm(x, attention_norm[0], attention_norm[1], self._eps)
                self._add(feed_forward, x, x)
                few.norm(x, feed_forward_norm[0], feed_forward_norm[1], self._eps)
            if index in chosen:
                hidden += x
        if sparse:
            hidden /= np.float32(len(chosen))
        weights = self._expansion(hidden) if sparse else None
        return self._pooled(x) if dense else None, weights

    def _pooled(self, x: FloatArray) -> FloatArray:
        vector: FloatArray = x[0] if self._settings["pooling"] == "cls" else x.mean(0)
        unit: FloatArray = vector / np.maximum(np.linalg.norm(vector), np.float32(1e-12))
        return unit

    def _expansion(self, hidden: FloatArray) -> FloatArray:
        head = self._head
        out = hidden.copy()
        for experts in head.experts:
            self._add(experts, hidden, out)
        few.add_product(*_quantised(hidden), *head.transform, out)
        few.norm(out, *head.norm, self._eps)
        weights = np.zeros(len(head.stem), np.float32)
        few.vocabulary(*_quantised(out), *head.decoder, head.stem, weights)
        return weights

    def _add(self, experts: Experts, x: FloatArray, out: FloatArray) -> None:
        """Add what experts make of x to out."""
        if experts.router is None:
            chosen, share = np.zeros((len(x), 1), np.int64), np.ones((len(x), 1), np.float32)
        else:
            logits = x @ experts.router.T
            chosen = np.argsort(-logits, axis=1, kind="stable")[:, : experts.active].copy()
            best = np.take_along_axis(logits, chosen, 1)
            share = np.exp(best - best.max(1, keepdims=True))
            share *= experts.routed_scale / share.sum(1, keepdims=True)
        few.add_experts(*_quantised(x), chosen, share, *experts.up, *experts.down, out)

    def _layer(self, index: int) -> tuple[Any, Any, Experts, Any]:
        name = f"layers.{index}"
        weight, bias = self._float(f"{name}.attention.qkv.weight"), self._float(f"{name}.attention.qkv.bias")
        width = weight.shape[1]
        for values in weight, bias:  # queries are scaled so that attention's exponentials are powers of 2
            values[:width] *= np.float32(LOG2_E / (width // self._heads) ** 0.5)
        packed_bias = np.zeros(-(-len(bias) // BLOCK) * BLOCK, np.float32)
        packed_bias[: len(bias)] = _rounded(bias)
        attention = (pack_bfloat16(_bits(weight)), packed_bias, *self._matrix(f"{name}.attention.out"))
        inner = f"{name}.feed_forward"
        if index in self._settings["moe_layers"]:
            active = self._settings["experts_per_token"] * self._settings["granularity"]
            found = self._experts(inner, active, self._settings["routed_scale"])
            assert len(found) == 1, "shared experts of the trunk take the batch path"
            feed_forward = found[0]
        else:
            up, down = (self._matrix(f"{inner}.{part}") for part in ("up", "down"))
            feed_forward = Experts(_one(up), _one(down), None, 1, np.float32(1))
        norms = [self._norm_of(f"{name}.{part}_norm") for part in ("attention", "feed_forward")]
        return attention, norms[0], feed_forward, norms[1]

    @lazy
    def _head(self) -> Head:
        settings = self._settings
        experts: list[Experts] = []
        if settings["head_experts"]:
            granularity = settings.get("head_granularity", 1)
            active = settings.get("head_experts_per_token", 1) * granularity
            experts = self._experts("sparse_head.experts", active, granularity)
        scale, bias, allowed = (self._float(f"sparse_head.{name}") for name in ("scale", "bias", "allowed"))
        decoder = Matrix(pack_int8(self._words), self._word_scale * scale, np.where(allowed, bias, FORBIDDEN))
        stem = self._values("sparse_head.stem").astype(np.int32)
        return Head(self._matrix("sparse_head.transform"), experts, self._norm_of("sparse_head.norm"), decoder, stem)

    def _experts(self, name: str, active: int, routed_scale: float) -> list[Experts]:
        """Return the routed experts and, if there are any, the shared ones, which are one layer together."""
        router = self._float(f"{name}.router")
        up, down = (self._matrix(f"{name}.{part}", "_proj", "_bias") for part in ("up", "down"))
        found = [Experts(up, down, router, active, np.float32(routed_scale))]
        shared = [self._matrix(f"{name}.shared_{part}", "_proj", "_bias") for part in ("up", "down")]
        if shared[0].scale.size:
            found.append(Experts(_one(shared[0]), _one(shared[1]), None, 1, np.float32(1)))
        return found

    def _matrix(self, name: str, weight: str = ".weight", bias: str = ".bias") -> Matrix:
        values, scale = self._int8(name + weight)
        return Matrix(pack_int8(values), scale, self._float(name + bias))

    def _norm_of(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self._float(f"{name}.weight"), self._float(f"{name}.bias")

    def _int8(self, name: str) -> tuple[NDArray[np.int8], FloatArray]:
        """Return a matrix as int8 with a scale for each output: as it is stored, or rounded."""
        values = self._values(name)
        if values.dtype == np.int8:
            return values, self._values(name + SCALE)
        floats = values.astype(np.float32)
        scale = np.maximum(np.abs(floats).max(-1, initial=0), np.float32(1e-30)) / np.float32(127)
        return np.rint(floats / scale[..., None]).astype(np.int8), scale

    def _float(self, name: str) -> FloatArray:
        values = self._values(name)
        if values.dtype == np.int8:
            restored: FloatArray = values.astype(np.float32) * self._values(name + SCALE)[..., None]
            return restored
        return np.ascontiguousarray(values, np.float32)

    def _values(self, name: str) -> NDArray[Any]:
        return read_values(self._folder, [name])[name]


class Head(NamedTuple):
    """The sparse head: what comes before the decoder, which is the word embeddings, and the stem of each term."""

    transform: Matrix
    experts: list[Experts]
    norm: tuple[FloatArray, FloatArray]
    decoder: Matrix
    stem: NDArray[np.int32]


def _one(matrix: Matrix) -> Matrix:
    """Return a layer as the only expert."""
    return Matrix(matrix.weights[None], matrix.scale[None], matrix.bias[None])


def _quantised(x: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    values, step = np.empty(x.shape, np.int8), np.empty(len(x), np.float32)
    few.quantise(x, values, step)
    return values, step


def _bits(values: FloatArray) -> NDArray[np.uint16]:
    """Return values in bfloat16, to the nearest, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def _rounded(values: FloatArray) -> FloatArray:
    """Return float32 values as bfloat16 would have them."""
    rounded: FloatArray = (_bits(values).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rounded
