"""The default encoder as it was before: indexes built with it are searched and changed as they were.

Its weights are today's, without what was added since: a folder of links to them with the settings of then.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retriever.encoder.load import load_own_encoder
from retriever.encoder.spec import EncoderSpec, default_encoder_path
from retriever.network.checkpoint import ADDED, QUERY_TERMS

if TYPE_CHECKING:
    from retriever.encoder.moe.encoder import MoEEncoder
    from retriever.encoder.runtime import RuntimeConfig

__all__ = ["FORMER", "former_default"]

FORMER: dict[str, tuple[str, ...]] = {"0.2-dev": (), "0.1": (ADDED, QUERY_TERMS)}
"""Earlier versions of it, the newest first, and which of today's files each did not have."""


def former_default(version: str, runtime: RuntimeConfig | None = None, *, lazy: bool = False) -> MoEEncoder:
    """Return the default encoder of a version in `FORMER`, under the name that an index has of it, "default".

    runtime, lazy: as for `load_encoder`.
    """
    return load_own_encoder(EncoderSpec("default", "default"), runtime, lazy=lazy, folder=Path(_folder(version).name))


@cache
def _folder(version: str) -> tempfile.TemporaryDirectory[str]:
    """Make the encoder's folder, once; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="retriever-encoder-")
    current = default_encoder_path()
    shutil.copyfile(current.parent / f"default-{version}.json", Path(folder.name, "config.json"))
    for file in current.iterdir():
        if file.name not in ("config.json", *FORMER[version]):
            Path(folder.name, file.name).symlink_to(file)
    return folder
