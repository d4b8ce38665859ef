"""What a frozen trunk says of a text, computed once: every later pass over the data trains the heads alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from retriever.packing import Packed, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retriever.model import RetrieverModel

__all__ = ["StateCache", "States"]


class States(NamedTuple):
    """Texts as the trunk leaves them, packed in the order of `order`.

    hidden: (n_tokens, hidden), what the sparse head reads; dense: float32 (n, hidden) unit vectors; packed: the groups
    and ids; order: the text at each place of the pack.
    """

    hidden: Tensor
    dense: Tensor
    packed: Packed
    order: list[int]


class StateCache:
    """Hidden states and vectors of token lists, on disk in float16, append-only; one process writes a folder.

    A folder belongs to one trunk: give another trunk another folder.
    """

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._width = width
        self._path, self._log = folder / "states.f16", folder / "states.jsonl"
        self._places: dict[str, int] = {}
        self._rows = 0  # a text has a row for each token and one more for its vector
        if self._log.is_file():
            for line in self._log.read_text(encoding="utf-8").splitlines():
                key, first, count = json.loads(line)
                self._places[key] = first
                self._rows = first + count
        self._path.touch()
        self._file = self._path.open("r+b")
        self._file.truncate(self._rows * width * 2)
        self._file.seek(0, 2)

    def states(self, model: RetrieverModel, tokens: Sequence[Sequence[int]]) -> States:
        """Return the states of token lists, those not seen before computed with `model` and kept."""
        keys = [hashlib.sha1(np.array(ids, np.int32).tobytes()).hexdigest() for ids in tokens]
        missing = {key: ids for key, ids in zip(keys, tokens, strict=True) if key not in self._places}
        if missing:
            self._add(model, missing)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        packed = pack([tokens[i] for i in order])
        values = np.memmap(self._path, np.float16, "r", shape=(self._rows, self._width))
        spans = [values[self._places[keys[i]] : self._places[keys[i]] + len(tokens[i]) + 1] for i in order]
        device = model.device
        hidden = torch.from_numpy(np.concatenate([span[1:] for span in spans])).to(device).float()
        vectors = np.stack([values[self._places[key]] for key in keys]).astype(np.float32)
        packed = Packed(packed.input_ids.to(device), packed.positions.to(device), packed.groups)
        return States(hidden, torch.from_numpy(vectors).to(device), packed, order)

    def _add(self, model: RetrieverModel, texts: dict[str, Sequence[int]]) -> None:
        keys = sorted(texts, key=lambda key: len(texts[key]))
        packed = pack([texts[key] for key in keys])
        packed = Packed(packed.input_ids.to(model.device), packed.positions.to(model.device), packed.groups)
        with torch.no_grad():
            last, mixed, _ = model.trunk(packed)
            dense = model.pool(last, packed.groups).to(torch.float16).cpu().numpy()
        values = mixed.to(torch.float16).cpu().numpy()
        lines, start = [], 0
        for row, key in enumerate(keys):
            length = len(texts[key])
            self._file.write(dense[row].tobytes())
            self._file.write(values[start : start + length].tobytes())
            lines.append(json.dumps([key, self._rows, length + 1]))
            self._places[key] = self._rows
            self._rows += length + 1
            start += length
        self._file.flush()
        with self._log.open("a", encoding="utf-8") as log:
            log.write("\n".join(lines) + "\n")
