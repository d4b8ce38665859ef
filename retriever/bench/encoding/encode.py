"""Encoding beside other systems on the same texts, in turn on each block of them, so that drift hits all alike."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.bench.encoding.indexing import corpus_start
from retriever.bench.encoding.systems import VIEWS, EncoderSystem, build_encoder, save_control, save_splade
from retriever.experiments.environment import peak_mib
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from retriever.encoder.moe.encoder import MoEEncoder

__all__ = ["EncodeBench", "EncodingSpeed", "bench_encode", "count_tokens", "on_cores", "read_texts"]

STAND_IN = "stand-in"
WARM_UP = 16
"""Texts before the first block: they pay for what is set up once."""
PEERS = ("sentence-transformers, dense", "SPLADE")


@dataclass(frozen=True)
class EncodeBench:
    """What to compare.

    encoder: ours, in each of `precisions` and `views` (dense, sparse, both). parent: a SentenceTransformer, timed with
    its `encode` at its defaults and as plain transformers. splade: a SparseEncoder, control: an encoder of ours without
    experts, or "stand-in" to make one of the same size from the parent, from the encoder. documents: texts to encode;
    block: texts of one turn. workers: ours with both views in so many worker processes, too, if above 0.
    peak_memory: measure it, each system in a process of its own, on one block.
    """

    encoder: str = "default"
    parent: str | None = None
    splade: str | None = None
    control: str | None = None
    precisions: tuple[str, ...] = ("float32", "bfloat16", "int8")
    views: tuple[str, ...] = ("dense", "sparse", "both")
    documents: int = 400
    block: int = 50
    workers: int = 0
    peak_memory: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be compared before anything is loaded."""
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or not self.views:
            raise UserError(f"view {', '.join(unknown)!r} is unknown; choose among {', '.join(VIEWS)}")
        if self.splade == STAND_IN and self.parent is None:
            raise UserError("a stand-in of a SPLADE is made from the dense parent; name it with --parent")
        if self.documents < 1 or self.block < 1:
            raise UserError(f"documents {self.documents} and block {self.block}: need whole numbers from 1")


class EncodingSpeed(NamedTuple):
    """One system: its speed, and that as a multiple of the first system's, median and quartiles over the blocks.

    tokens_per_second: of the tokens that ours reads of the same texts. peak_mib: memory of its process, 0 if it was not
    asked for, or of several processes.
    """

    system: str
    texts_per_second: float
    tokens_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float
    peak_mib: float


def bench_encode(config: EncodeBench, texts: Sequence[str], tokens: int) -> list[EncodingSpeed]:
    """Time the systems on `texts`, which have `tokens` tokens; two peers one after the other are a system as well."""
    # oneDNN keeps 1,024 kernels for a process: in one process, each system would find its own thrown out by the others.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100000")
    with tempfile.TemporaryDirectory() as folder:
        systems = _plan(config, Path(folder), texts[:WARM_UP])
        seconds = _interleaved(systems, texts, config.block)
        measured = [one for one in systems if config.peak_memory and not one.workers]
        peaks = {one.name: _peak_memory(one, texts[: config.block]) for one in measured}
    dense, sparse = ([name for name in seconds if name.startswith(peer)] for peer in PEERS)
    if dense and sparse:
        seconds["both peers, one after the other"] = seconds[dense[0]] + seconds[sparse[0]]
    first = next(iter(seconds.values()))
    found = []
    for name, spent in seconds.items():
        low, ratio, high = np.percentile(first / spent, [25, 50, 75]).tolist()
        total = float(spent.sum())
        found.append(EncodingSpeed(name, len(texts) / total, tokens / total, ratio, low, high, peaks.get(name, 0.0)))
    return found


def _plan(config: EncodeBench, folder: Path, sample: Sequence[str]) -> list[EncoderSystem]:
    """Return the systems in the order of the table, stand-ins saved in `folder`."""
    systems = []
    if config.parent is not None:
        systems += [
            EncoderSystem(PEERS[0], "sentence-transformer", config.parent),
            EncoderSystem("transformers, dense, float32", "transformers", config.parent),
        ]
    if config.splade == STAND_IN:
        assert config.parent is not None
        made = save_splade(config.parent, folder / "splade", sample)
        systems.append(EncoderSystem(f"{PEERS[1]} ({STAND_IN}), sparse", "splade", made))
    elif config.splade is not None:
        systems.append(EncoderSystem(f"{PEERS[1]}, sparse", "splade", config.splade))
    for precision in config.precisions:
        systems += [
            EncoderSystem(f"retriever, {view}, {precision}", "ours", config.encoder, precision, view)
            for view in config.views
        ]
        if config.workers:
            name = f"retriever, both, {precision}, {config.workers} workers"
            systems.append(EncoderSystem(name, "ours", config.encoder, precision, "both", config.workers))
    if config.control is not None:
        stand_in = config.control == STAND_IN
        made = save_control(config.encoder, folder / "control") if stand_in else config.control
        name = f"control ({STAND_IN})" if stand_in else "control"
        for precision in config.precisions:
            systems.append(EncoderSystem(f"{name}, both, {precision}", "ours", made, precision, "both"))
    return systems


def _interleaved(systems: Sequence[EncoderSystem], texts: Sequence[str], block: int) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of each system on each block; another system begins each block."""
    encoders = {system.name: build_encoder(system) for system in systems}
    for encode in encoders.values():
        encode(texts[:WARM_UP])
    starts = range(0, len(texts), block)
    seconds = {name: np.zeros(len(starts)) for name in encoders}
    names = list(encoders)
    for turn, start in enumerate(starts):
        for name in np.roll(names, -turn).tolist():
            begun = time.perf_counter()
            encoders[name](texts[start : start + block])
            seconds[name][turn] = time.perf_counter() - begun
    return seconds


def _peak_memory(system: EncoderSystem, texts: Sequence[str]) -> float:
    """Return the most memory, in MiB, of a process that loads one system and encodes the texts."""
    command = [sys.executable, "-c", "from retriever.bench.encoding.encode import report_peak; report_peak()"]
    done = subprocess.run(command, input=pickle.dumps((system, list(texts))), capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"{system.name}: failed in a process of its own: {reason[-1] if reason else 'killed'}")
    return float(done.stdout)


def report_peak() -> None:
    """Encode what comes through the standard input; write how much memory that took, the life of a process."""
    system, texts = pickle.load(sys.stdin.buffer)
    build_encoder(system)(texts)
    sys.stdout.write(str(peak_mib()))


def read_texts(corpus: str, documents: int) -> Iterator[str]:
    """Yield title and text of the first documents of a corpus, or of the positives of a file of training pairs."""
    for record in corpus_start(corpus, documents):
        if record.document is not None:
            yield record.document.contents


def count_tokens(encoder: MoEEncoder, texts: Sequence[str]) -> list[int]:
    """Return how many tokens the network reads of each text, special ones and the prompt included."""
    own = encoder.lexicon.token_ids(texts, encoder.config.document_prompt)
    return [min(len(ids) + 2, encoder.config.max_length) if ids else 0 for ids in own]


@contextmanager
def on_cores(count: int | None) -> Iterator[int]:
    """Use so many processor cores, and threads; all that there are for None. Yield how many."""
    import torch

    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    if count is not None and count > len(before):
        raise UserError(f"{count} threads are asked for, and there are {len(before)} processor cores; give fewer")
    cores = sorted(before)[-(count or len(before)) :]
    os.sched_setaffinity(0, cores)  # holds for tokenisers' threads, too
    torch.set_num_threads(len(cores))
    try:
        yield len(cores)
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)
