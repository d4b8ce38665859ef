"""What a frozen trunk says of a text, computed once: every later pass over the data trains the heads alone."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from retriever.network.packing import Packed, pack
from retriever.network.settings import dense_size
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retriever.network.model import RetrieverModel

__all__ = ["StateCache", "States", "trunk_key"]


class States(NamedTuple):
    """Texts as the trunk leaves them, packed in the order of `order`.

    hidden: (n_tokens, hidden), what the sparse head reads; dense: float32 (n, dense_dim) unit vectors, in the order of
    the texts; packed: the tokens that the sparse head reads; order: the text at each place of the pack.
    """

    hidden: Tensor
    dense: Tensor
    packed: Packed
    order: list[int]


def trunk_key(model: RetrieverModel) -> str:
    """Return the sha256 of all that decides what the trunk says: its weights, the pooling and the hidden states taken.

    The sparse head does not enter it: runs that differ in nothing else share their states.
    """
    config = model.config
    said: tuple[object, ...] = config.pooling, list(config.sparse_layers)
    if config.dense_activation != "identity" or not config.prompt_in_pooling:
        said += config.dense_activation, config.prompt_in_pooling
    digest = hashlib.sha256(repr(said).encode())
    for name, value in model.state_dict().items():
        if name.startswith(("embeddings.", "layers.", "projection.")):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


class StateCache:
    """Hidden states and vectors of token lists, on disk in float16, append-only.

    A folder belongs to one trunk, whose key it keeps, and to one run at a time; each of its processes has files of its
    own there, named by `rank`.
    """

    def __init__(self, folder: Path, width: int, rank: int = 0) -> None:
        """Open or make the folder; what a killed process left behind is cut off.

        Raises:
            UserError: another process has it open.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._width = folder, width
        stem = f"states-{rank}" if rank else "states"
        self._path, self._log = folder / f"{stem}.f16", folder / f"{stem}.jsonl"
        self._places: dict[str, int] = {}
        self._rows = 0  # a text has rows for its vector, as many as that fills, and one for each token
        self._checked = False
        self._log.touch()
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"{folder}: another run has these states open; wait for its end, or name another folder under `states`"
            ) from None
        self._read_log(self._path.stat().st_size // (2 * width))
        self._file.truncate(self._rows * width * 2)

    def _read_log(self, rows: int) -> None:
        """Take in the lines that are whole and whose rows are there, and cut the log off behind them."""
        end = 0
        with self._log.open("rb") as log:
            for line in log:
                if not line.endswith(b"\n"):
                    break
                key, first, count = json.loads(line)
                if first + count > rows:
                    break
                self._places[key] = first
                self._rows = first + count
                end += len(line)
        os.truncate(self._log, end)

    def states(self, model: RetrieverModel, tokens: Sequence[Sequence[int]], prompt: int = 0) -> States:
        """Return the states of token lists, computing those not seen before with `model` and caching them.

        prompt: how many tokens of each, from the second on, are a prompt's.

        Raises:
            UserError: the folder holds the states of another trunk.
        """
        if not self._checked:
            self._check(model)
        mark = b"" if model.config.prompt_in_pooling else f"{prompt} ".encode()
        keys = [hashlib.sha1(mark + np.array(ids, np.int32).tobytes()).hexdigest() for ids in tokens]
        missing = {key: ids for key, ids in zip(keys, tokens, strict=True) if key not in self._places}
        if missing:
            self._add(model, missing, prompt)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        values = np.memmap(self._path, np.float16, "r", shape=(self._rows, self._width))
        size = dense_size(vars(model.config))
        above = -(-size // self._width)
        starts = [self._places[keys[i]] + above for i in order]
        spans = [values[start : start + len(tokens[i])] for start, i in zip(starts, order, strict=True)]
        hidden = torch.from_numpy(np.concatenate(spans)).to(model.device).float()
        vectors = np.stack([values[self._places[key] : self._places[key] + above].reshape(-1)[:size] for key in keys])
        packed, device = pack([tokens[i] for i in order]), model.device
        packed = Packed(packed.input_ids.to(device), packed.positions.to(device), packed.groups)
        hidden, packed = model.read_by_terms(hidden, packed, prompt)
        return States(hidden, torch.from_numpy(vectors.astype(np.float32)).to(device), packed, order)

    def close(self) -> None:
        """Close the file that is written to."""
        self._file.close()

    def _check(self, model: RetrieverModel) -> None:
        """Compare the folder's key with that of `model`, or write it into a folder that is new."""
        path, key = self._folder / "trunk.key", trunk_key(model)
        if not path.exists() and not self._rows:
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_text(key, encoding="ascii")
            part.replace(path)
        found = path.read_text(encoding="ascii") if path.exists() else "none"
        if found != key:
            raise UserError(
                f"{self._folder}: holds the states of another trunk (key {found[:12]}, this one's is {key[:12]}); "
                "name another folder under `states`, or remove this one"
            )
        self._checked = True

    def _add(self, model: RetrieverModel, texts: dict[str, Sequence[int]], prompt: int) -> None:
        keys = sorted(texts, key=lambda key: len(texts[key]))
        packed = pack([texts[key] for key in keys])
        packed = Packed(packed.input_ids.to(model.device), packed.positions.to(model.device), packed.groups)
        with torch.no_grad():
            last, mixed, _ = model.trunk(packed)
            dense = model.pool(last, packed, prompt).to(torch.float16).cpu().numpy()
        dense = np.pad(dense, ((0, 0), (0, -dense.shape[1] % self._width)))
        above = dense.shape[1] // self._width
        values = mixed.to(torch.float16).cpu().numpy()
        lines, start = [], 0
        for row, key in enumerate(keys):
            length = len(texts[key])
            self._file.write(dense[row].tobytes())
            self._file.write(values[start : start + length].tobytes())
            lines.append(json.dumps([key, self._rows, length + above]))
            self._places[key] = self._rows
            self._rows += length + above
            start += length
        self._file.flush()  # before the log, which says that the rows are there
        with self._log.open("a", encoding="utf-8") as log:
            log.write("\n".join(lines) + "\n")
