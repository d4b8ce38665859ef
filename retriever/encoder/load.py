"""Encoders by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retriever.encoder.base import EncoderBase
from retriever.encoder.spec import default_encoder_path, parse_spec
from retriever.types import Encoded, Encoder, EncoderIdentity, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.encoder.moe.encoder import MoEEncoder
    from retriever.encoder.runtime import RuntimeConfig
    from retriever.encoder.spec import EncoderSpec

__all__ = ["NoEncoder", "default_encoder_path", "load_encoder", "load_own_encoder"]


def load_encoder(spec: str = "default", runtime: RuntimeConfig | None = None, *, lazy: bool = False) -> Encoder:
    """Return the encoder named by `spec`.

    spec: "default" is the one that comes with the package; a folder or hub name is an encoder of ours; "st:DENSE" or
    "st:DENSE+SPARSE" are sentence-transformers models (folders or hub names); "none" is BM25 alone.
    runtime: how its network runs, for encoders of our own.
    lazy: load the network, and find out whether its weights fit, with the first text that needs it.

    Raises:
        UserError: nothing is there, it is no encoder, its parts do not fit each other, or it cannot run in this way.
    """
    found = parse_spec(spec)
    if found.own:
        return load_own_encoder(found, runtime, lazy=lazy)
    if runtime is not None:
        _refuse_runtime(spec, runtime)
    if found.kind == "none":
        return NoEncoder()
    from retriever.encoder.sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(spec)


def load_own_encoder(
    spec: EncoderSpec, runtime: RuntimeConfig | None = None, *, lazy: bool = False, folder: Path | None = None
) -> MoEEncoder:
    """Return an encoder of our own, which runs in worker processes where `runtime` asks for some.

    folder: where it is, if not where `spec` says.
    """
    folder = folder or spec.folder()
    if runtime is not None and (runtime.workers or "," in runtime.device):
        from retriever.encoder.workers import WorkerEncoder

        return WorkerEncoder(folder, spec.name, runtime)
    from retriever.encoder.moe.encoder import MoEEncoder

    return MoEEncoder(folder, spec.name, runtime, lazy=lazy)


def _refuse_runtime(spec: str, runtime: RuntimeConfig) -> None:
    for name, default in (("precision", "auto"), ("device", "cpu"), ("workers", 0), ("quick_queries", False)):
        given = getattr(runtime, name)
        if given != default:
            raise UserError(f"{name} {given!r} is for encoders of our own, not for {spec}; leave it out")


class NoEncoder(EncoderBase):
    """Neither view: an index built with it answers BM25 queries."""

    identity = EncoderIdentity("none", "", 0, 0)

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return no view of n texts."""
        return Encoded(None, None, np.zeros(len(texts), dtype=np.bool_))
