"""The weights of an encoder folder as the int8 kernels for queries read them: rounded as the batch path rounds them.

They are laid out once and kept as a file, which later processes map: nothing is read or copied that a query does not
touch, and processes share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.lazy import lazy
from retriever.network.checkpoint import SCALE, read_settings, read_values, stored_shapes
from retriever.network.int8.decoder import Decoder, VocabularyRouter, decoder_arrays, router_arrays, slots_of
from retriever.network.int8.kernels.packed import BLOCK, bfloat16_bits, pack_bfloat16, pack_int8
from retriever.network.int8.packed_file import kept_arrays
from retriever.network.int8.pooling import Projection
from retriever.network.reach import Reach
from retriever.network.settings import DEFAULTS, NUMBERS, check_numbers, check_settings, expected_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.types import FloatArray

__all__ = ["Experts", "Matrix", "Weights", "runs_alone"]

LOG2_E = 1.4426950408889634
VOCABULARY, DECODER = "sparse_head.vocabulary", "decoder."
LAYOUT = "3"
"""Changed when the arrays of the same weights are others than before."""


def runs_alone(folder: Path) -> bool:
    """Say whether the kernels can run an encoder folder: its activation, and widths that fill a step.

    Not one whose settings and weights do not fit each other either: loading the network says what is wrong.
    """
    settings = DEFAULTS | read_settings(folder)
    try:
        check_settings(settings)
        shapes = expected_shapes(settings)
        widths = [settings[name] for name in ("hidden_size", "intermediate_size", "head_intermediate_size")]
        parts = [settings["granularity"], settings["head_granularity"]]
        whole = all(width % (4 * part) == 0 for width in widths for part in parts)
        whole = whole and settings["hidden_size"] % (2 * settings["num_attention_heads"]) == 0
        stored = stored_shapes(folder)
        fits = all(stored.get(name) == shape for name, shape in shapes.items())
        if fits:
            check_numbers(settings, read_values(folder, [name for name in NUMBERS if name in shapes]))
    except (ValueError, ZeroDivisionError):
        return False
    return whole and fits and settings["hidden_act"] == "gelu" and settings["num_hidden_layers"] > 0


class Matrix(NamedTuple):
    """Packed uint8 weights with a float32 scale and bias for each output; those of experts one after another."""

    weights: NDArray[Any]
    scale: NDArray[Any]
    bias: NDArray[Any]


class Experts(NamedTuple):
    """Feed-forward layers; router (experts, hidden), of no rows where all tokens go through the one that there is."""

    up: Matrix
    down: Matrix
    router: FloatArray
    active: int
    routed_scale: float


class Sizes(NamedTuple):
    """The largest of each kind: qkv and outputs in columns of whole blocks, experts of a layer, active ones a token."""

    hidden: int
    qkv: int
    outputs: int
    inner: int
    experts: int
    active: int


class Weights:
    """The weights by the names of the encoder's file, packed; mapped where they could be kept, else in memory."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Map the arrays of this folder, whose files have this digest; they are made where that was never done."""
        self.settings = DEFAULTS | read_settings(folder)
        self._arrays = kept_arrays(f"{identity[:32]}-{LAYOUT}", lambda: dict(_Folder(folder).packed(self.settings)))

    def array(self, name: str) -> NDArray[Any]:
        """Return an array."""
        return self._arrays[name]

    def matrix(self, name: str) -> Matrix:
        """Return a layer."""
        return Matrix(*(self._arrays[f"{name}.{part}"] for part in ("weights", "scale", "bias")))

    def norm(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return gain and shift of a layer norm."""
        return self._arrays[f"{name}.weight"], self._arrays[f"{name}.bias"]

    def attention(self, name: str) -> tuple[NDArray[np.uint16], FloatArray]:
        """Return what makes queries, keys and values in a layer: packed bfloat16 weights, and the bias."""
        return self._arrays[f"{name}.attention.qkv.weights"], self._arrays[f"{name}.attention.qkv.bias"]

    def words(self, ids: NDArray[np.int64]) -> FloatArray:
        """Return word embeddings as the batch path has them, rounded to bfloat16, float32 (n, hidden)."""
        bits = self._arrays["words.bfloat16"][ids]
        found: FloatArray = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return found

    @property
    def projection(self) -> Projection | None:
        """Return the matrix behind the pooling, if there is one."""
        if not self.settings["dense_dim"]:
            return None
        weight, bias = self._arrays["projection.weight"], self._arrays["projection.bias"]
        return Projection(weight, bias, self.settings["dense_activation"])

    def feed_forward(self, index: int) -> list[Experts]:
        """Return what stands in the place of a layer's feed-forward part, one after another."""
        settings = self.settings
        active = settings["experts_per_token"] * settings["granularity"]
        return self._experts(f"layers.{index}.feed_forward", active, settings["routed_scale"])

    def decoder(self) -> Decoder:
        """Return what gives the terms their weights."""
        arrays = {name.removeprefix(DECODER): self._arrays[name] for name in self._arrays if name.startswith(DECODER)}
        settings = self.settings
        reach = Reach(settings["vocabulary_experts_per_token"], settings["vocabulary_experts_per_text"])
        return Decoder(arrays, vocabulary=settings["vocab_size"], reach=reach)

    @lazy
    def head_experts(self) -> list[Experts]:
        """Return the experts of the sparse head."""
        settings = self.settings
        if not settings["head_experts"]:
            return []
        granularity = settings["head_granularity"]
        return self._experts("sparse_head.experts", settings["head_experts_per_token"] * granularity, granularity)

    def _experts(self, name: str, active: int, routed_scale: float) -> list[Experts]:
        """Return the routed experts, or the one that there is, and the shared ones, which are one layer together."""
        none = np.empty((0, int(self.settings["hidden_size"])), np.float32)

        def layer(kind: str) -> Experts:
            return Experts(self.matrix(f"{name}.{kind}up"), self.matrix(f"{name}.{kind}down"), none, 1, 1.0)

        router = self._arrays.get(f"{name}.router")
        if router is None:
            return [layer("")]
        routed = layer("")._replace(router=router, active=active, routed_scale=routed_scale)
        return [routed, layer("shared_")] if f"{name}.shared_up.weights" in self._arrays else [routed]

    @lazy
    def sizes(self) -> Sizes:
        """Return how large the parts of the network are."""
        layers = [self.feed_forward(index) for index in range(int(self.settings["num_hidden_layers"]))]
        experts = [one for found in (*layers, self.head_experts) for one in found]
        blocks = {name: array.shape[-3] for name, array in self._arrays.items() if name.endswith(".weights")}
        return Sizes(
            hidden=int(self.settings["hidden_size"]),
            qkv=BLOCK * max(count for name, count in blocks.items() if name.endswith("qkv.weights")),
            outputs=BLOCK * max(count for name, count in blocks.items() if not name.startswith(DECODER)),
            inner=max(one.up.scale.shape[-1] for one in experts),
            experts=max(len(one.router) for one in experts),
            active=max(one.active for one in experts),
        )


class _Folder:
    """Reads an encoder folder; what it yields are names and arrays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def packed(self, settings: dict[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield all arrays of `Weights`."""
        yield "embeddings.position.weight", self.floats("embeddings.position.weight")
        yield from self._norm("embeddings.norm")
        for index in range(settings["num_hidden_layers"]):
            yield from self._layer(f"layers.{index}", settings["num_attention_heads"], index in settings["moe_layers"])
        if settings["dense_dim"]:
            for part in ("weight", "bias"):
                yield f"projection.{part}", self.floats(f"projection.{part}")
        yield from self._matrix("sparse_head.transform")
        yield from self._norm("sparse_head.norm")
        if settings["head_experts"]:
            yield from self._experts("sparse_head.experts")
        yield from self._decoder(settings)

    def floats(self, name: str) -> FloatArray:
        """Return values in float32, restored where they are stored compactly."""
        values = self._values(name)
        if values.dtype == np.int8:
            restored: FloatArray = values.astype(np.float32) * self._values(name + SCALE)[..., None]
            return restored
        return np.ascontiguousarray(values, np.float32)

    def _values(self, name: str) -> NDArray[Any]:
        return read_values(self._folder, [name])[name]

    def _norm(self, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
        for part in ("weight", "bias"):
            yield f"{name}.{part}", self.floats(f"{name}.{part}")

    def _matrix(
        self, name: str, weight: str = ".weight", bias: str = ".bias", *, single: bool = False
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield a layer; `single`: as the only expert."""
        values, scale = _int8(self.floats(name + weight))
        for part, array in (("weights", pack_int8(values)), ("scale", scale), ("bias", self.floats(name + bias))):
            yield f"{name}.{part}", array[None] if single else array

    def _layer(self, name: str, heads: int, experts: bool) -> Iterator[tuple[str, NDArray[Any]]]:
        weight, bias = self.floats(f"{name}.attention.qkv.weight"), self.floats(f"{name}.attention.qkv.bias")
        width = weight.shape[1]
        for values in weight, bias:  # queries are scaled so that attention's exponentials are powers of 2
            values[:width] *= np.float32(LOG2_E / (width // heads) ** 0.5)
        padded = np.zeros(-(-len(bias) // BLOCK) * BLOCK, np.float32)
        padded[: len(bias)] = _rounded(bias)
        yield f"{name}.attention.qkv.weights", pack_bfloat16(bfloat16_bits(weight))
        yield f"{name}.attention.qkv.bias", padded
        yield from self._matrix(f"{name}.attention.out")
        for part in ("attention", "feed_forward"):
            yield from self._norm(f"{name}.{part}_norm")
        inner = f"{name}.feed_forward"
        if experts:
            yield from self._experts(inner)
            return
        for part in ("up", "down"):
            yield from self._matrix(f"{inner}.{part}", single=True)

    def _experts(self, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
        yield f"{name}.router", self.floats(f"{name}.router")
        for part in ("up", "down"):
            yield from self._matrix(f"{name}.{part}", "_proj", "_bias")
        if self.floats(f"{name}.shared_up_bias").size:
            for part in ("shared_up", "shared_down"):
                yield from self._matrix(f"{name}.{part}", "_proj", "_bias", single=True)

    def _decoder(self, settings: dict[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the word embeddings, which are also looked up."""
        name = "embeddings.word.weight"
        values, scale = _int8(self.floats(name))
        scale *= self.floats("sparse_head.scale")
        allowed, stem = self._values("sparse_head.allowed"), self._values("sparse_head.stem").astype(np.int32)
        cluster = None
        arrays: dict[str, NDArray[Any]] = {}
        clusters = settings["vocabulary_experts"]
        if clusters:
            cluster = self._values(f"{VOCABULARY}.cluster").astype(np.int32)
            router = VocabularyRouter(
                *_int8(self.floats(f"{VOCABULARY}.router")), self.floats(f"{VOCABULARY}.router_bias"), cluster
            )
            arrays |= router_arrays(router)
        slots = slots_of(allowed, cluster, max(clusters, 1))
        arrays |= decoder_arrays(values, scale, bias=self.floats("sparse_head.bias"), stem=stem, slots=slots)
        yield from ((DECODER + name, array) for name, array in arrays.items())
        yield "words.bfloat16", bfloat16_bits(self.floats(name))


def _int8(values: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Return float32 values (..., out, in) as int8 with a scale for each output, as `quantise_rows` does."""
    scale = np.maximum(np.abs(values).max(-1, initial=0), np.float32(1e-30)) / np.float32(127)
    return np.rint(values / scale[..., None]).astype(np.int8), scale


def _rounded(values: FloatArray) -> FloatArray:
    """Return float32 values as bfloat16 would have them."""
    rounded: FloatArray = (bfloat16_bits(values).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return rounded
