"""Weights on disk: safetensors, either as they are or compactly (int8 with a scale per row, float16, or a mixture).

A matrix stored as int8 stands beside its scales, `name` int8 (..., rows, columns), `name.scale8` float32 (..., rows):
value = int8 * scale, the largest magnitude of each row mapped to 127 (symmetric per-channel quantisation, Jacob et al.
2018). Vectors stay in float32: they are few and the layer norms are sensitive.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor


__all__ = [
    "ADDED",
    "MODEL_TYPE",
    "QUERY_TERMS",
    "SCALE",
    "STORAGE",
    "WEIGHT_FILES",
    "add_weights",
    "dequantise_rows",
    "quantise_rows",
    "read_settings",
    "read_values",
    "read_weights",
    "stored_shapes",
    "write_weights",
]

MODEL_TYPE = "retriever-moe"
WEIGHTS = "model.safetensors"
ADDED = "vocabulary.safetensors"
"""What was added to an encoder later, or replaces weights of it: a small file, so that the large one stays."""
QUERY_TERMS = "queries.safetensors"
"""What only queries need, so that it is none of the weights: `retriever.encoder.vocabulary.query_terms`."""
WEIGHT_FILES = (WEIGHTS, ADDED)
STORAGE = ("float32", "float16", "int8", "mixed")
# On CISI int8 for all matrices costs the dense view 0.4 points of nDCG@10, for all but these ones nothing.
HALF_IN_MIXED = re.compile(r"attention\.|feed_forward\.up")
# The matrix behind the pooling is small, and every number of the dense view depends on it alone.
HALF_IN_INT8 = re.compile(r"^projection\.")
SCALE = ".scale8"


def quantise_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values of the shape of `matrix` (..., rows, columns) and float32 scales (..., rows)."""
    import torch

    scale = matrix.abs().amax(-1).clamp_min(1e-30) / 127
    return (matrix / scale.unsqueeze(-1)).round().to(torch.int8), scale


def dequantise_rows(values: Tensor, scale: Tensor) -> Tensor:
    """Return the float32 matrix of int8 values and row scales."""
    return values.float() * scale.unsqueeze(-1)


def write_weights(state: dict[str, Tensor], folder: Path, storage: str = "float32") -> None:
    """Write `state` to folder/model.safetensors, matrices in `storage`, vectors and flags as they are."""
    if storage not in STORAGE:
        raise UserError(f"storage {storage!r} is unknown; choose one of {', '.join(STORAGE)}")
    _save(_compact(state, storage), folder / WEIGHTS, storage)


def add_weights(folder: Path, state: dict[str, Tensor]) -> None:
    """Write weights to folder/vocabulary.safetensors, stored as those of folder/model.safetensors are.

    What stands there already goes; weights of the same name in folder/model.safetensors are read no longer.
    """
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        storage = (file.metadata() or {}).get("storage", "float32")
    _save(_compact(state, storage), folder / ADDED, storage)


def _compact(state: dict[str, Tensor], storage: str) -> dict[str, Tensor]:
    """Return weights as they are stored."""
    import torch

    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().contiguous()
        if not (value.is_floating_point() and value.ndim > 1 and value.numel()) or storage == "float32":
            stored[name] = value.clone()
        elif storage == "float16" or HALF_IN_INT8.search(name) or (storage == "mixed" and HALF_IN_MIXED.search(name)):
            stored[name] = value.to(torch.float16)
        else:
            stored[name], stored[name + SCALE] = quantise_rows(value.float())
    return stored


def _save(stored: dict[str, Tensor], path: Path, storage: str) -> None:
    from safetensors.torch import save_file

    save_file(stored, path, metadata={"format": "pt", "storage": storage})
    path.chmod(0o644)  # safetensors leaves it readable by its owner alone


def read_weights(folder: str | Path) -> dict[str, Tensor] | None:
    """Read a folder's weights and restore compact ones to float32; None where it has no model.safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (Path(folder) / WEIGHTS).is_file():
        return None
    stored: dict[str, Tensor] = {}
    for path in _weight_files(Path(folder)):
        try:
            found = load_file(path)
        except (SafetensorError, json.JSONDecodeError, OSError) as error:
            raise UserError(f"{path}: damaged weights file ({error}); copy or build the encoder again") from None
        names = {name.removesuffix(SCALE) for name in found}
        stored = {name: value for name, value in stored.items() if name.removesuffix(SCALE) not in names} | found
    state = {}
    for name, value in stored.items():
        if name.endswith(SCALE):
            continue
        scale = stored.get(name + SCALE)
        if scale is not None:
            value = dequantise_rows(value, scale)
        state[name] = value.float() if value.is_floating_point() else value
    return state


def read_values(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read some arrays of a folder's weights as they are stored, without torch."""
    with _opened(folder) as files:
        missing = [name for name in names if name not in files]
        if missing:
            raise UserError(f"{folder}: damaged weights file (no {missing[0]}); copy or build the encoder again")
        return {name: files[name].get_tensor(name) for name in names}


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight of a folder, the scales of compact ones among them."""
    with _opened(folder) as files:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in files.items()}


@contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield for the name of each stored array the file that has it."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder}: {WEIGHTS} is missing; copy or build the encoder again")
    try:
        with ExitStack() as stack:
            files: dict[str, Any] = {}
            for path in _weight_files(folder):
                file = stack.enter_context(safe_open(path, framework="numpy"))
                names = {name.removesuffix(SCALE) for name in file.keys()}  # noqa: SIM118  # not a dict
                files = {name: one for name, one in files.items() if name.removesuffix(SCALE) not in names}
                files |= dict.fromkeys(file.keys(), file)
            yield files
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged weights file ({reason}); copy or build the encoder again") from None


def _weight_files(folder: Path) -> list[Path]:
    return [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the config.json of an encoder folder, its values unchecked; raise UserError where it is none of ours."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no encoder here (config.json is missing); build one with `retriever upcycle`")
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = values["model_type"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not the JSON settings of a model; copy or build the encoder again") from None
    if kind != MODEL_TYPE:
        raise UserError(
            f"{folder}: found a {kind!r} model, need {MODEL_TYPE!r}; turn it into one "
            "with `retriever upcycle`, or use it as it is with --encoder st:FOLDER"
        )
    return values


def local_folder(spec: str) -> Path:
    """Return the folder of a checkpoint, fetched from the hub if `spec` is a hub name (OWNER/NAME)."""
    folder = Path(spec)
    if folder.is_dir():
        return folder.resolve()
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", spec):
        raise UserError(f"{spec}: no such folder; give a folder or a hub name (OWNER/NAME)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.txt", "*.safetensors", "*_Dense/*", "README.md"]
        return Path(snapshot_download(spec, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{spec}: no such folder, and the hub did not give it ({reason})") from None
