"""The int8 network for a few short texts, without torch: what a query needs.

The same function as `Int8Network.encode`, from the same folder, to the bit; a dozen tokens take a quarter of the time
there, since nothing is prepared for hundreds of them, and a process that only searches imports neither torch,
transformers nor numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from retriever.lazy import lazy
from retriever.machine_code import Argument, argument, load_kernels
from retriever.network.int8.kernels.packed import BLOCK, FED, HALF, PORTION, STRIP, TILE
from retriever.network.int8.pooling import pooled, without_tokens
from retriever.network.int8.weights import Experts, Matrix, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from retriever.network.int8.decoder import Decoder
    from retriever.types import FloatArray

    _Seen: TypeAlias = list[NDArray[np.int64]] | None

__all__ = ["QueryNetwork", "Views", "few_kernels"]

LAYERS = "retriever.network.int8.kernels.layers"
SOURCES = [
    f"retriever.network.int8.kernels.{name}" for name in ("few", "packed", "products", "shaped", "steps", "tiles")
]
NAMES = ("add_product", "feed", "norm", "pass_layers", "pool", "quantise")
LENGTH_STEP = 16
"""The batch path pads texts to multiples of it for attention, and the order of a sum depends on that."""


class Views(NamedTuple):
    """Unit vectors (texts, hidden), and weights of expanded terms (texts, vocab); None for what was not asked for.

    states: the last hidden states (tokens, hidden), those of one text behind those of another.
    """

    dense: FloatArray | None
    sparse: FloatArray | None
    states: FloatArray


def few_kernels() -> dict[str, Any]:
    """Return the compiled steps for a few texts; compiling them, once after an installation, takes ten seconds."""
    return load_kernels(LAYERS, NAMES, sources=SOURCES)


class QueryNetwork:
    """Encodes token ids. Thread-safe: nothing is kept between two calls."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Read what the folder's dense view needs; `identity` is the digest of the folder's files."""
        self._weights = Weights(folder, identity)
        self._kernels = few_kernels()
        settings = self._settings = self._weights.settings
        self._heads, self._eps = int(settings["num_attention_heads"]), float(settings["layer_norm_eps"])
        self._norm = _arguments(self._weights.norm("embeddings.norm"))
        self._layers = _Layers.of(self._weights, int(settings["num_hidden_layers"]))

    def encode(self, texts: Sequence[Sequence[int]], *, dense: bool, sparse: bool, prompt: int = 0) -> Views:
        """Encode texts, each of one token at least; the results of one do not depend on the others.

        prompt: how many tokens of each text, from its second on, are a prompt's.
        """
        return self._run(texts, dense, sparse, prompt)

    def routes(self, text: Sequence[int]) -> list[NDArray[np.int64]]:
        """Return for each layer of experts, that of the sparse head last, those of each token (tokens, active)."""
        seen: list[NDArray[np.int64]] = []
        self._run([text], False, True, 0, seen)
        return seen

    def _run(self, texts: Sequence[Sequence[int]], dense: bool, sparse: bool, prompt: int, seen: _Seen = None) -> Views:
        """Encode texts; seen: is given the experts of each token in each layer that has any."""
        ends = np.cumsum([0, *map(len, texts)])
        x = self._embedded(texts)
        room = self._room(ends)
        run = self._kernels
        read = list(self._settings["sparse_layers"]) if sparse else []
        rows = argument(x)
        run["norm"](rows, *self._norm, self._eps)
        hidden = x.copy() if 0 in read else np.zeros_like(x)
        self._pass(rows, argument(ends), read, hidden, room, seen)
        weights = None
        if sparse:
            hidden /= np.float32(len(read))
            ids = np.array([token for text in texts for token in text], np.int64)
            own = ends
            if prompt and not self._settings["prompt_in_terms"]:
                kept, own = without_tokens(ends, 1, prompt)
                hidden, ids = hidden[kept], ids[kept]
            values, step = self._read(hidden, room, seen)
            weights = self._head.decoder.weights(values, step, ends=own, token_ids=ids)
        return Views(self._pooled(x, ends, prompt) if dense else None, weights, x)

    def _pass(
        self, rows: Argument, ends: Argument, read: Sequence[int], hidden: FloatArray, room: _Room, seen: _Seen
    ) -> None:
        """Put the last layer's output in the place of the first one's input; add those that are read to hidden."""
        layers, x = self._layers, rows.array
        taken = np.array([number + 1 in read for number in range(layers.number)], np.int64)
        chosen = np.empty((len(layers.feeds.array), 2 * layers.active * len(x)), np.int64)
        self._kernels["pass_layers"](
            rows,
            ends,
            self._heads,
            LENGTH_STEP,
            self._eps,
            *layers.all,
            taken,
            hidden,
            np.empty_like(x),
            chosen,
            *room.all,
        )
        if seen is not None:
            for own, (_, active), routed in zip(chosen, layers.feeds.array.tolist(), layers.routed, strict=True):
                if routed:
                    seen.append(own[: active * len(x)].reshape(-1, active))

    def _embedded(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """Return the sums of word and position embeddings, (tokens, hidden)."""
        words = self._weights.words(np.array([token for text in texts for token in text], np.int64))
        positions = np.concatenate([np.arange(len(text)) for text in texts])
        embedded: FloatArray = words + self._weights.array("embeddings.position.weight")[positions]
        return embedded

    def _pooled(self, x: FloatArray, ends: NDArray[np.int64], prompt: int) -> FloatArray:
        """Return the dense view of the last hidden states."""
        if prompt and not self._settings["prompt_in_pooling"]:
            kept, ends = without_tokens(ends, 0, 1 + prompt)
            x = x[kept]
        pooling, projection = self._settings["pooling"], self._weights.projection
        if projection is not None or pooling == "max":
            return pooled(x, ends, pooling, projection)
        vectors = np.empty((len(ends) - 1, x.shape[1]), np.float32)
        self._kernels["pool"](x, ends, pooling == "cls", vectors)
        return vectors

    def _read(self, hidden: FloatArray, room: _Room, seen: _Seen) -> tuple[NDArray[np.int8], FloatArray]:
        """Return what the decoder reads, quantised: int8 (tokens, hidden), and steps (tokens,)."""
        head, run = self._head, self._kernels
        read, out = argument(hidden), argument(hidden.copy())
        self._add(head.experts, read, out, room, seen)
        values, step = argument(np.empty(hidden.shape, np.int8)), argument(np.empty(len(hidden), np.float32))
        run["quantise"](read, values, step)
        run["add_product"](values, step, *head.transform, out, room.wholes)
        run["norm"](out, *head.norm, self._eps)
        run["quantise"](out, values, step)
        return values.array, step.array

    def _add(self, layers: Sequence[_Experts], x: Argument, out: Argument, room: _Room, seen: _Seen) -> None:
        """Add what the layers make of x, one after another, to out."""
        for layer in layers:
            chosen = np.empty(2 * layer.active * len(x.array), np.int64)
            self._kernels["feed"](
                x, layer.router, layer.active, layer.routed_scale, *layer.up, *layer.down, out, chosen, *room.all
            )
            if seen is not None and len(layer.router.array):
                seen.append(chosen[: layer.active * len(x.array)].reshape(-1, layer.active))

    @lazy
    def _head(self) -> _Head:
        weights = self._weights
        return _Head(
            _arguments(weights.matrix("sparse_head.transform")),
            [_Experts.of(found) for found in weights.head_experts],
            _arguments(weights.norm("sparse_head.norm")),
            weights.decoder(),
        )

    def _room(self, ends: NDArray[np.int64]) -> _Room:
        """Return the room that the kernels need for these texts; see there what lies in it."""
        n, longest = int(ends[-1]), int(np.diff(ends).max())
        sizes = self._weights.sizes
        size = sizes.hidden // self._heads
        together, fed = min(n, max(longest, PORTION)), min(n, FED)
        padded = longest + -longest % LENGTH_STEP
        key_blocks, value_blocks = -(-longest // BLOCK), -(-size // HALF)
        mixing = together * max(sizes.hidden, BLOCK) + STRIP * (BLOCK * key_blocks + HALF * value_blocks + 1)
        feeding = n * (3 + sizes.active + sizes.experts) + FED + sizes.inner
        heads = BLOCK * (key_blocks * size + value_blocks * (longest + 1)) + STRIP * padded
        return _Room.of(
            np.empty(2 * TILE + max(mixing + together, feeding), np.float32),
            np.empty(together * sizes.qkv + max(together * sizes.hidden, heads), np.uint16),
            np.empty(n + max(fed * sizes.outputs, n * BLOCK), np.int32),
            np.empty(2 * n * sizes.hidden + FED * sizes.inner, np.int8),
        )


class _Room(NamedTuple):
    floats: Argument
    halves: Argument
    wholes: Argument
    small: Argument

    @classmethod
    def of(cls, *arrays: NDArray[Any]) -> _Room:
        return cls(*map(argument, arrays))

    @property
    def all(self) -> tuple[Argument, ...]:
        return tuple(self)


class _Experts(NamedTuple):
    """Feed-forward layers as the kernels take them; router (experts, hidden), of no rows where all tokens pass all."""

    up: tuple[Argument, ...]
    down: tuple[Argument, ...]
    router: Argument
    active: int
    routed_scale: float

    @classmethod
    def of(cls, found: Experts) -> _Experts:
        return cls(
            _arguments(found.up), _arguments(found.down), argument(found.router), found.active, found.routed_scale
        )


class _Layers(NamedTuple):
    """The transformer layers as the kernel takes them, see there; routed: which of their feed-forward layers choose.

    held: what their places are of. active: the most experts that a token passes in one of them.
    """

    number: int
    places: Argument
    feeds: Argument
    scales: Argument
    routed: list[bool]
    active: int
    held: list[NDArray[Any]]

    @property
    def all(self) -> tuple[Argument, ...]:
        return self.places, self.feeds, self.scales

    @classmethod
    def of(cls, weights: Weights, number: int) -> _Layers:
        held: list[NDArray[Any]] = []
        feeds: list[Experts] = []
        owners = []
        for index in range(number):
            name = f"layers.{index}"
            attention = (*weights.attention(name), *weights.matrix(f"{name}.attention.out"))
            held += (*attention, *weights.norm(f"{name}.attention_norm"), *weights.norm(f"{name}.feed_forward_norm"))
            for experts in weights.feed_forward(index):
                held += (*experts.up, *experts.down, experts.router)
                feeds.append(experts)
                owners.append(index)
        places = np.zeros((len(held), 1 + max(array.ndim for array in held)), np.int64)
        for place, array in zip(places, held, strict=True):
            place[: 1 + array.ndim] = argument(array).address, *array.shape
        return cls(
            number,
            argument(places),
            argument(
                np.array([[owner, experts.active] for owner, experts in zip(owners, feeds, strict=True)], np.int64)
            ),
            argument(np.array([experts.routed_scale for experts in feeds], np.float64)),
            [len(experts.router) > 0 for experts in feeds],
            max(experts.active for experts in feeds),
            held,
        )


class _Head(NamedTuple):
    """The sparse head: what comes before the decoder, and the decoder, which is the word embeddings."""

    transform: tuple[Argument, ...]
    experts: list[_Experts]
    norm: tuple[Argument, ...]
    decoder: Decoder


def _arguments(arrays: Matrix | tuple[NDArray[Any], ...]) -> tuple[Argument, ...]:
    return tuple(map(argument, arrays))
