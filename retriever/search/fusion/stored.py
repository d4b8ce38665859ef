"""The fusion that an index was tuned to: it stands in the note of a commit, so it changes with one, or not at all."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from retriever.config import from_mapping
from retriever.index.commit import unfinished
from retriever.index.places import open_writer
from retriever.search.fusion.fusion import FusionConfig
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["store_fusion", "stored_fusion"]

KEY = "fusion"


def stored_fusion(note: Mapping[str, str]) -> FusionConfig | None:
    """Return the fusion that was stored in the index with this note of its last commit, None where none was."""
    return from_mapping(FusionConfig, json.loads(note[KEY]), "the index's fusion") if KEY in note else None


def store_fusion(folder: str | Path, fusion: FusionConfig) -> None:
    """Make `fusion` the default of hybrid search in this index.

    Raises:
        UserError: the index is not finished, open in another writer, or cannot be opened.
    """
    with open_writer(folder) as writer:
        if unfinished(writer.committed):
            raise UserError(
                f"{folder}: its making was interrupted, so it is no base for weights; finish it with"
                " `retriever index ... --resume` first"
            )
        writer.commit({**writer.committed.note, KEY: json.dumps(dataclasses.asdict(fusion))})
