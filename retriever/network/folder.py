"""Encoder folders: a network with its settings and tokenizer, read and written whole."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.network.checkpoint import read_settings, read_weights, write_weights
from retriever.network.settings import NUMBERS, check_numbers
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from transformers import PreTrainedTokenizerBase

    from retriever.network.model import RetrieverConfig, RetrieverModel


__all__ = ["load_config", "load_model", "new_folder", "save_encoder"]


def load_config(folder: Path) -> RetrieverConfig:
    """Return the settings of an encoder folder; raise UserError where they are impossible."""
    from huggingface_hub.errors import StrictDataclassError

    from retriever.network.model import RetrieverConfig

    values = read_settings(folder)
    try:
        return RetrieverConfig(**values)
    except (StrictDataclassError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        path = folder / "config.json"
        raise UserError(f"{path}: impossible settings ({reason}); correct them or build the encoder again") from None


def load_model(folder: Path) -> RetrieverModel:
    """Return the network of an encoder folder, in float32; raise UserError where the folder does not hold one."""
    import torch

    from retriever.network.model import RetrieverModel

    config = load_config(folder)
    state = read_weights(folder)
    if state is None:
        raise UserError(f"{folder}: model.safetensors is missing; copy or build the encoder again")
    try:
        with torch.device("meta"):  # nothing is drawn at random only to be overwritten
            model = RetrieverModel(config)
        model.load_state_dict(state, assign=True)
        check_numbers(config.to_dict(), {name: state[name] for name in NUMBERS if name in state})
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: weights and config.json do not fit each other ({reason}); copy it again") from None
    model.train(False)
    return model


def save_encoder(
    model: RetrieverModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    storage: str,
    *,
    languages: Collection[str] | None = None,
) -> Path:
    """Write an encoder folder: config.json, tokenizer, weights; all of it or nothing.

    languages: that the network was trained for, by code, for a card (README.md) that says so; None where nobody knows.

    Raises UserError if the folder exists and is not empty, or if `storage` is unknown.
    """
    with new_folder(folder) as part:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_weights(model.state_dict(), part, storage)
        if languages:
            named = "".join(f"- {code}\n" for code in sorted(languages))
            (part / "README.md").write_text(f"---\nlanguage:\n{named}---\n", encoding="utf-8")
    return Path(folder)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the name `folder` at the end: all of it or nothing.

    Raises UserError if there is a folder of that name that is not empty, or a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: the output folder is a file; choose another or remove it first")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: the output folder is not empty; choose another or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        part = Path(name) / "encoder"
        part.mkdir()
        yield part
        part.replace(folder)
