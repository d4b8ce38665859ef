"""The encoder that an index was built with, and no other."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from retriever.encoder.former import FORMER, former_default
from retriever.encoder.load import load_encoder
from retriever.encoder.runtime import RuntimeConfig
from retriever.types import Encoder, EncoderIdentity, UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["load_index_encoder"]


def load_index_encoder(
    folder: Path | str,
    wanted: EncoderIdentity,
    given: str | Encoder | None = None,
    runtime: RuntimeConfig | None = None,
    *,
    lazy: bool = False,
) -> Encoder:
    """Return the encoder of the index in `folder`, whose settings name the `wanted` one.

    given: the encoder, or where it is, if not where it was when the index was built. lazy: as for `load_encoder`. An
    index of the default encoder of an earlier version gets that one.

    Raises:
        UserError: it is not there, or not the same any more.
    """
    if given is None:
        try:
            encoder = load_encoder(wanted.name, runtime, lazy=lazy)
        except UserError as error:
            raise UserError(f"{folder}: its encoder is not where it was ({error}); say where with --encoder") from None
    else:
        encoder = load_encoder(given, runtime, lazy=lazy) if isinstance(given, str) else given
    if encoder.identity.name == wanted.name == "default":
        former = (former_default(version, runtime, lazy=lazy) for version in FORMER)
        encoder = next((one for one in chain([encoder], former) if one.identity.sha256 == wanted.sha256), encoder)
    if encoder.identity.sha256 != wanted.sha256:
        raise UserError(
            f"{folder}: built with the encoder {_shown(wanted)}, found {_shown(encoder.identity)}; "
            "give the original one with --encoder, or build the index again"
        )
    return encoder


def _shown(identity: EncoderIdentity) -> str:
    return f"{identity.name} (sha256 {identity.sha256[:12]})" if identity.sha256 else identity.name
