"""Where the time of encoding goes, and how far the network is from the machine's measured matmuls."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.bench.encoding.encode import count_tokens
from retriever.bench.encoding.systems import VIEWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retriever.encoder.moe.encoder import MoEEncoder
    from retriever.network.model import RetrieverConfig

__all__ = ["EncodingProfile", "flops", "matrix_peak", "profile_encoding"]

REST = "rows and counts"
MATMULS_OF = ": matmuls"
ROWS, HIDDEN, INNER = 512, 384, 1536
"""The matmul whose speed is the machine's limit: of the size of the network's own."""
PEAK_SECONDS = 0.5


class EncodingProfile(NamedTuple):
    """One view in one precision.

    flops: operations of the network's matmuls per token; peak: operations per second of one such matmul alone;
    share: of the peak that is reached; parts: of the time, each part's share, without the parts inside it.
    """

    view: str
    precision: str
    tokens_per_second: float
    flops: float
    peak: float
    share: float
    parts: dict[str, float]


class _Clock:
    """Adds up the time of parts; a part inside another one is not counted to that."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inside: list[str] = []
        self._since = 0.0

    def start(self, part: str) -> None:
        self._count()
        self._inside.append(part)

    def stop(self) -> None:
        self._count()
        self._inside.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._inside:
            self.spent[self._inside[-1]] += now - self._since
        self._since = now

    def timed(self, part: str | None, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work` with its time counted to a part, or to the matmuls of the part that it runs in."""

        @wraps(work)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.start(part or f"{self._inside[-1] if self._inside else REST}{MATMULS_OF}")
            try:
                return work(*args, **kwargs)
            finally:
                self.stop()

        return run


def profile_encoding(encoder: MoEEncoder, texts: Sequence[str]) -> Iterator[EncodingProfile]:
    """Encode texts with the dense view alone and with both, timing the parts; on one thread."""
    lengths = count_tokens(encoder, texts)
    peak = matrix_peak(encoder.precision)
    for view in ("dense", "both"):
        encoder.encode_documents(texts[:16], **VIEWS[view])
        clock = _Clock()
        with _hooked(clock):
            clock.timed(REST, encoder.encode_documents)(texts, **VIEWS[view])
        total = sum(clock.spent.values())
        work = flops(encoder.config, lengths, sparse=VIEWS[view]["sparse"])
        yield EncodingProfile(
            view,
            encoder.precision,
            sum(lengths) / total,
            work / sum(lengths),
            peak,
            work / total / peak,
            {
                part: clock.spent[part] / total
                for part in sorted(clock.spent, key=clock.spent.__getitem__, reverse=True)
            },
        )


@contextmanager
def _hooked(clock: _Clock) -> Iterator[None]:
    """Time the methods of `_parts`, and matmuls inside them, until the end of the block."""
    places = list(_parts())
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, part in places:
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


def _parts() -> Iterator[tuple[Any, str, str | None]]:
    """Yield what is timed: class or module, name, and the part that the time goes to; None for matmuls."""
    import torch

    from retriever.encoder.moe.passes import Passes
    from retriever.encoder.moe.texts import TextReader
    from retriever.network import attention, model, moe, sparse_head
    from retriever.network.int8 import attention as int8_attention
    from retriever.network.int8 import decoder, query
    from retriever.network.int8 import network as int8_network

    for name in ("forward", "summed"):  # int8 takes the sum and normalises it itself
        yield model.Embeddings, name, "embeddings"
    yield attention.Attention, "forward", "attention"
    yield int8_attention.Attention, "mix", "attention"
    yield int8_attention.Attention, "add", "attention"
    yield model.FeedForward, "forward", "feed-forward"
    yield int8_network.FeedForward, "add", "feed-forward"
    yield moe.MoELayer, "forward", "experts"
    yield int8_network.Experts, "add", "experts"
    for head in (sparse_head.SparseHead, int8_network.Head):
        yield head, "forward", "vocabulary head"
        yield head, "transformed", "head transform"
    yield query.QueryNetwork, "_embedded", "embeddings"
    yield query.QueryNetwork, "_pass", "attention and feed-forward"
    yield query.QueryNetwork, "_read", "head transform"
    yield decoder.Decoder, "weights", "vocabulary head"
    for network in (model.RetrieverModel, int8_network.Int8Network, query.QueryNetwork):
        yield network, "encode", "norms, pooling, the rest of the network"
    yield TextReader, "tokenise", "tokeniser"
    yield Passes, "_run", "batches and top terms"
    for name in ("_int_mm", "mm", "addmm", "bmm"):
        yield torch, name, None
    for name in ("linear", "scaled_dot_product_attention"):
        yield torch.nn.functional, name, None


def flops(config: RetrieverConfig, lengths: Sequence[int], *, sparse: bool) -> float:
    """Return the operations of the matmuls for texts of these lengths: 2 for each weight that a token meets."""
    tokens = sum(lengths)
    hidden = config.hidden_size
    total = 0.0
    for layer in range(config.num_hidden_layers):
        weights = 4 * hidden**2
        if layer in config.moe_layers:
            routed, shared, active, _, inner = config.expert_shape
            weights += hidden * (routed + 2 * inner * (active + shared))
        else:
            weights += 2 * hidden * config.intermediate_size
        # Attention multiplies each token with all of its text, twice.
        total += 2 * weights * tokens + 4 * hidden * sum(length**2 for length in lengths)
    if sparse:
        reached = config.vocabulary_experts_per_token / config.vocabulary_experts if config.vocabulary_experts else 1
        weights = hidden**2 + round(hidden * config.vocab_size * reached)
        if config.head_experts:
            routed, shared, active, _, inner = config.head_expert_shape
            weights += hidden * (routed + 2 * inner * (active + shared))
        total += 2 * weights * tokens
    return total


def matrix_peak(precision: str) -> float:
    """Return the operations per second that one matmul reaches in this precision, on torch's threads."""
    matmul = MATMULS[precision]()
    best = float("inf")
    matmul()
    end = time.perf_counter() + PEAK_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        begun = time.perf_counter()
        matmul()
        best = min(best, time.perf_counter() - begun)
    return 2 * ROWS * HIDDEN * INNER / best


def _float_matmul(dtype: str) -> Callable[[], object]:
    import torch

    rows = torch.randn(ROWS, HIDDEN).to(getattr(torch, dtype))
    weight = torch.randn(INNER, HIDDEN).to(rows.dtype)
    return lambda: torch.nn.functional.linear(rows, weight)


def _int8_matmul() -> Callable[[], object]:
    """Return a matmul of bytes, unsigned by signed, as oneDNN has it for quantised networks."""
    import torch

    rows = torch.randint(0, 255, (ROWS, HIDDEN), dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(
        torch.randint(-127, 127, (INNER, HIDDEN), dtype=torch.int8), [ROWS, HIDDEN]
    )
    scale, zero = torch.full((INNER,), 0.01), torch.zeros(INNER, dtype=torch.int32)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        rows, 0.02, 128, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


MATMULS: dict[str, Callable[[], Callable[[], object]]] = {
    "float32": partial(_float_matmul, "float32"),
    "bfloat16": partial(_float_matmul, "bfloat16"),
    "int8": _int8_matmul,
}
