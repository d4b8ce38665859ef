"""Arrays that took time to make, kept as one file that later processes map: a cache, checked, and never needed.

The file: the `_HEAD`, a description of the arrays in JSON, and their bytes, each from a place that 64 divides.
"""

from __future__ import annotations

import json
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from retriever.files import atomic_file, cache_errors, cache_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["kept_arrays"]

_HEAD = struct.Struct("<8sII")  # magic, size of the description, CRC-32 of all that follows
_MAGIC = b"arrays01"
ALIGNMENT = 64
FILES = 4
"""How many files are kept, the newest: of the default encoder one has 60 MB."""


def kept_arrays(key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays kept under a key, mapped; where there are none, they are made, and kept if possible."""
    made: dict[str, NDArray[Any]] | None = None
    with cache_errors("weights as queries read them"):
        path = cache_root() / "weights" / f"{key}.arrays"
        try:
            return _mapped(path)
        except FileNotFoundError:
            pass
        except ValueError:
            path.unlink()
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, made)
        _drop_old(path.parent)
        return _mapped(path)
    return make() if made is None else made


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Map a file; raise ValueError where it is damaged."""
    if path.stat().st_size < _HEAD.size:
        raise ValueError("too short")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)
    magic, size, crc = _HEAD.unpack(data[: _HEAD.size].tobytes())
    if magic != _MAGIC or zlib.crc32(data[_HEAD.size :].data) != crc:
        raise ValueError("wrong checksum")
    described = json.loads(data[_HEAD.size : _HEAD.size + size].tobytes())
    return {name: np.ndarray(shape, kind, data, start) for name, kind, shape, start in described}


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    described: list[tuple[str, str, tuple[int, ...], int]] = []
    room = _HEAD.size + 200 * len(arrays)  # enough for the description
    start = room + -room % ALIGNMENT
    parts = []
    for name, array in arrays.items():
        described.append((name, array.dtype.str, array.shape, start))
        parts.append(np.ascontiguousarray(array).tobytes() + bytes(-array.nbytes % ALIGNMENT))
        start += len(parts[-1])
    text = json.dumps(described).encode()
    content = b"".join([text, bytes(described[0][3] - _HEAD.size - len(text)), *parts])
    with atomic_file(path) as file:
        file.write(_HEAD.pack(_MAGIC, len(text), zlib.crc32(content)) + content)


def _drop_old(folder: Path) -> None:
    files = sorted(folder.glob("*.arrays"), key=lambda file: file.stat().st_mtime)
    for file in files[:-FILES]:
        with suppress(OSError):  # another process may drop it, too
            file.unlink()
