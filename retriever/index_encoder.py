"""The encoder that an index was built with, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.encoder import RuntimeConfig, load_encoder
from retriever.types import Encoder, EncoderIdentity, UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["load_index_encoder"]


def load_index_encoder(
    folder: Path,
    wanted: EncoderIdentity,
    given: str | Encoder | None = None,
    runtime: RuntimeConfig | None = None,
) -> Encoder:
    """Return the encoder of the index in `folder`, whose settings name the `wanted` one.

    given: the encoder, or where it is, if not where it was when the index was built.

    Raises:
        UserError: it is not there, or not the same any more.
    """
    encoder = load_encoder(given or wanted.name, runtime) if given is None or isinstance(given, str) else given
    if encoder.identity.sha256 != wanted.sha256:
        raise UserError(
            f"{folder}: built with the encoder {wanted.name} (sha256 {wanted.sha256[:12]}), "
            f"found {encoder.identity.name} ({encoder.identity.sha256[:12]}); "
            "give the original one with --encoder, or build the index again"
        )
    return encoder
