"""The decoder of the sparse head in int8: from what it reads of tokens to the weights of terms, with or without torch.

Documents and queries take the same compiled steps, so that their weights, and the vocabulary experts that tokens
choose, are the same to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.lazy import lazy
from retriever.machine_code import Argument, Kernel, argument, load_kernels
from retriever.network.int8.kernels.packed import BLOCK, pack_int8
from retriever.network.reach import WHOLE, Reach

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from retriever.types import FloatArray

    Wholes = NDArray[np.int32]
    Places = NDArray[np.int64]

__all__ = ["Decoder", "Slots", "VocabularyRouter", "decoder_arrays", "decoder_kernels", "router_arrays", "slots_of"]

FORBIDDEN = np.float32(-1e30)
"""The bias of a slot without a term: it never comes near a weight."""
PORTION = 64
STEP = 4
"""Inputs that are multiplied at once."""
LARGEST_PART = 512
"""Tokens that meet all terms at once, or those of one text: their rows stay in the cache."""


def decoder_kernels() -> dict[str, Kernel]:
    """Return the compiled steps."""
    names = "packed", "products", "shaped", "steps", "tiles"
    sources = [f"retriever.network.int8.kernels.{name}" for name in names]
    return load_kernels("retriever.network.int8.kernels.terms", ("choose", "largest", "weigh"), sources=sources)


class Slots(NamedTuple):
    """Where terms stand: term int64 (slots,), -1 where there is none; blocks int64 (clusters + 1,): a cluster's own."""

    term: Places
    blocks: Places


class VocabularyRouter(NamedTuple):
    """The scores of clusters: int8 values (clusters, hidden), scale and bias (clusters,); own int32 (vocab,)."""

    values: NDArray[np.int8]
    scale: FloatArray
    bias: FloatArray
    own: Wholes


def slots_of(allowed: NDArray[np.bool_], cluster: Wholes | None, clusters: int) -> Slots:
    """Give each allowed term (vocab,) a slot beside those of its cluster; without clusters all are of one."""
    number = np.zeros(len(allowed), np.int32) if cluster is None else cluster
    counted = allowed & (number >= 0)
    terms = np.flatnonzero(counted)[np.argsort(number[counted], kind="stable")]
    counts = np.bincount(number[counted], minlength=clusters)
    blocks = np.concatenate([[0], np.cumsum(-(-counts // BLOCK))])
    term = np.full(int(blocks[-1]) * BLOCK, -1, np.int64)
    starts = blocks[:-1] * BLOCK
    term[np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(len(terms))] = terms
    return Slots(term, blocks.astype(np.int64))


def decoder_arrays(
    values: NDArray[np.int8], scale: FloatArray, *, bias: FloatArray, stem: Wholes, slots: Slots
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a decoder: int8 values (vocab, hidden) with scale and bias of each term, and its stem."""
    found = slots.term >= 0
    shape = (-1, BLOCK)
    return {
        "weights": _packed(np.where(found[:, None], values[slots.term], np.int8(0))),
        "scale": np.where(found, scale[slots.term], np.float32(0)).reshape(shape),
        "bias": np.where(found, bias[slots.term], FORBIDDEN).reshape(shape),
        "stem": np.where(found, stem[slots.term].clip(0), 0).astype(np.int32).reshape(shape),
        "blocks": slots.blocks,
    }


def router_arrays(router: VocabularyRouter) -> dict[str, NDArray[Any]]:
    """Return the arrays of a decoder with vocabulary experts beside those of `decoder_arrays`."""
    return {
        "router": _packed(router.values),
        "router_scale": router.scale,
        "router_bias": router.bias,
        "own": router.own,
    }


def _packed(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return values (rows, hidden) packed; a width that fills no step is filled up with zeros."""
    packed: NDArray[np.uint8] = pack_int8(np.pad(values, ((0, 0), (0, -values.shape[1] % STEP))))
    return packed


class Decoder:
    """Computes the weights of terms. Thread-safe: nothing is kept between two calls."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, vocabulary: int, reach: Reach = WHOLE) -> None:
        """Take the arrays of `decoder_arrays`, and of `router_arrays`, of which a token computes as many as `reach`."""
        self._vocabulary, self._reach = vocabulary, reach
        names = "blocks", "weights", "scale", "bias", "stem"
        self._terms = tuple(argument(arrays[name]) for name in names)
        self._clusters = len(arrays["blocks"]) - 1
        self._router: tuple[Argument, ...] = ()
        if "router" in arrays:
            self._router = tuple(argument(arrays[name]) for name in ("router", "router_scale", "router_bias", "own"))

    @lazy
    def _kernels(self) -> dict[str, Kernel]:
        return decoder_kernels()

    def weights(self, values: NDArray[np.int8], step: FloatArray, *, ends: Places, token_ids: Places) -> FloatArray:
        """Return float32 (texts, vocab) weights for quantised tokens (n, hidden) with a step each.

        token_ids: (n,), their own terms. Text i has the tokens from ends[i] to ends[i + 1].
        """
        out = np.zeros((len(ends) - 1, self._vocabulary), np.float32)
        if values.shape[1] % STEP:
            values = np.pad(values, ((0, 0), (0, -values.shape[1] % STEP)))
        first = 0
        while first < len(out):
            last = len(out) if self._router else _next_part(ends, first)
            part = slice(int(ends[first]), int(ends[last]))
            bounds = ends[first : last + 1] - ends[first]
            self._text_weights(values[part], step[part], bounds, token_ids[part], out[first:last])
            first = last
        return out

    def _text_weights(
        self, values: NDArray[np.int8], step: FloatArray, ends: Places, token_ids: Places, out: FloatArray
    ) -> None:
        rows, steps = argument(values), argument(step)
        first, tokens = self._chosen(rows, steps, token_ids, np.diff(ends))
        self._weigh(rows, steps, ends, first, tokens, out)

    def _weigh(
        self, values: Argument, step: Argument, ends: Places, first: Places, tokens: Places, out: FloatArray
    ) -> None:
        most = int(np.diff(first).max(initial=0))
        small = np.empty(most * values.array.shape[1], np.int8)
        floats, wholes = np.empty(BLOCK, np.float32), np.empty(most * (1 + BLOCK), np.int32)
        self._kernels["weigh"](values, step, ends, first, tokens, *self._terms, out, small, floats, wholes)

    def _chosen(self, values: Argument, step: Argument, token_ids: Places, lengths: Places) -> tuple[Places, Places]:
        """Return the tokens that compute each cluster, all one after another, and where those of each begin.

        lengths: (texts,), tokens of each text.
        """
        n = len(values.array)
        if not self._router:
            return np.array([0, n], np.int64), np.arange(n)
        counts = np.repeat(self._reach.clusters(lengths, self._clusters), lengths)
        first, tokens = np.empty(self._clusters + 1, np.int64), np.empty(int(counts.sum()), np.int64)
        chosen = np.empty((n, int(counts.max(initial=1))), np.int64)
        columns = self._router[0].array.shape[0] * BLOCK
        room = np.empty(columns + chosen.shape[1], np.float32), np.empty(PORTION * (1 + columns), np.int32)
        chosen_by = values, step, token_ids, counts, *self._router, self._clusters
        self._kernels["choose"](*chosen_by, first, tokens, chosen, *room)
        return first, tokens


def _next_part(ends: Places, first: int) -> int:
    """Return the end of the texts from `first` on that meet the terms together."""
    return max(first + 1, int(np.searchsorted(ends, ends[first] + LARGEST_PART, "right")) - 1)
