"""Encoders by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retriever.encoder.moe_encoder import MoEEncoder
from retriever.network.checkpoint import local_folder
from retriever.types import Encoded, Encoder, EncoderIdentity, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retriever.encoder.runtime import RuntimeConfig


__all__ = ["NoEncoder", "_load_ours", "_refuse_for_peers", "default_encoder_path", "load_encoder"]


def default_encoder_path() -> Path:
    """Return where the package looks for its default encoder."""
    return Path(__file__).parents[1] / "assets" / "default-encoder"


def load_encoder(spec: str = "default", runtime: RuntimeConfig | None = None, *, lazy: bool = False) -> Encoder:
    """Return the encoder named by `spec`.

    "default": the one that comes with the package; a folder or hub name: an encoder of ours; "st:DENSE" or
    "st:DENSE+SPARSE": sentence-transformers models (folders or hub names); "none": BM25 alone.
    lazy: as for `MoEEncoder`.
    """
    if not spec:
        raise UserError("the encoder's name is empty; give a folder, a hub name, 'default', 'st:MODEL' or 'none'")
    if runtime is not None and (spec == "none" or spec.startswith("st:")):
        _refuse_for_peers(spec, runtime)
    if spec == "none":
        return NoEncoder()
    if spec.startswith("st:"):
        from retriever.encoder.sentence_transformers import SentenceTransformersEncoder

        return SentenceTransformersEncoder(spec)
    if spec == "default":
        folder = default_encoder_path()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder}: the default encoder is not there, the installation is incomplete; install again, or use "
                "another with --encoder (`none` for BM25 alone)"
            )
        return _load_ours(folder, spec, runtime, lazy)
    if "/" not in spec and not Path(spec).is_dir():
        raise UserError(f"{spec}: no such encoder; give a folder, a hub name, 'default', 'st:MODEL' or 'none'")
    folder = local_folder(spec)
    # A folder is remembered as a whole path, so that the index finds it from wherever it is searched.
    return _load_ours(folder, str(folder) if Path(spec).is_dir() else spec, runtime, lazy)


def _load_ours(folder: Path, name: str, runtime: RuntimeConfig | None, lazy: bool) -> Encoder:
    if runtime is not None and (runtime.workers or "," in runtime.device):
        from retriever.encoder.workers import WorkerEncoder

        return WorkerEncoder(folder, name, runtime)
    return MoEEncoder(folder, name, runtime, lazy=lazy)


def _refuse_for_peers(spec: str, runtime: RuntimeConfig) -> None:
    for name, default in (("precision", "auto"), ("device", "cpu"), ("workers", 0)):
        given = getattr(runtime, name)
        if given != default:
            raise UserError(f"{name} {given!r} is for encoders of our own, not for {spec}; leave it out")


class NoEncoder:
    """Neither view: an index built with it answers BM25 queries."""

    identity = EncoderIdentity("none", "", 0, 0)
    vocabulary: Sequence[str] = ()

    def encode_documents(self, texts: Sequence[str], *, dense: bool = True, sparse: bool = True) -> Encoded:
        """Return no view of n texts."""
        return Encoded(None, None, np.zeros(len(texts), dtype=np.bool_))

    encode_queries = encode_documents
