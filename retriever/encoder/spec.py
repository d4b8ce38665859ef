"""The name of an encoder, read: which kind it is, and where its models are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from retriever.network.checkpoint import local_folder
from retriever.types import UserError

__all__ = ["EncoderKind", "EncoderSpec", "SentenceTransformerNames", "default_encoder_path", "parse_spec"]

EncoderKind: TypeAlias = Literal["default", "none", "ours", "sentence-transformers"]
PEERS = "st:"
PROMPT = re.compile(";(query|document)=")


def default_encoder_path() -> Path:
    """Return where the package looks for its default encoder."""
    return Path(__file__).parents[1] / "assets" / "default-encoder"


class SentenceTransformerNames(NamedTuple):
    """Folders (absolute) or hub names; "" for a model that is not used.

    query, document: prompts for the dense model in place of its own, None for its own.
    """

    dense: str
    sparse: str
    query: str | None = None
    document: str | None = None

    @property
    def text(self) -> str:
        """Return what `EncoderSpec.models` reads these names from."""
        models = f"{self.dense}+{self.sparse}" if self.sparse else self.dense
        prompts = {"query": self.query, "document": self.document}
        return PEERS + models + "".join(f";{name}={text}" for name, text in prompts.items() if text is not None)


class EncoderSpec(NamedTuple):
    """The name of an encoder as it was given, and what kind of one it names."""

    text: str
    kind: EncoderKind

    @property
    def own(self) -> bool:
        """Say whether it names an encoder folder of this package."""
        return self.kind in ("default", "ours")

    @property
    def name(self) -> str:
        """Return what an index remembers: a folder as a whole path, so that it is found from wherever one searches."""
        return str(Path(self.text).resolve()) if self.kind == "ours" and Path(self.text).is_dir() else self.text

    def folder(self) -> Path:
        """Return the folder of an encoder of our own, fetched from the hub if it is named there.

        Raises:
            UserError: it is not there.
        """
        assert self.own
        if self.kind == "ours":
            return local_folder(self.text)
        folder = default_encoder_path()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder}: the default encoder is not there, the installation is incomplete; install again, or use "
                "another with --encoder (`none` for BM25 alone)"
            )
        return folder

    def models(self) -> SentenceTransformerNames:
        """Tell DENSE from SPARSE in "st:DENSE+SPARSE"; the name of a folder may itself contain a plus sign.

        Prompts may follow: "st:DENSE;query=TEXT;document=TEXT".
        """
        assert self.kind == "sentence-transformers"
        rest, *found = PROMPT.split(self.text.removeprefix(PEERS))
        prompts = dict(zip(found[::2], found[1::2], strict=True))
        if 2 * len(prompts) < len(found):
            raise UserError(f"{self.text!r} names a prompt twice; keep one of them")
        if not rest:
            raise UserError(f"{self.text!r} names no model; give st:DENSE, st:DENSE+SPARSE or st:+SPARSE")
        signs = [i for i, sign in enumerate(rest[:-1]) if sign == "+"]
        pairs = [(rest, ""), *((rest[:i], rest[i + 1 :]) for i in signs)]
        there = (names for names in pairs if all(Path(name).is_dir() for name in names if name))
        dense, sparse = next(there, pairs[min(1, len(pairs) - 1)])
        return SentenceTransformerNames(_whole(dense), _whole(sparse), **prompts)


def parse_spec(text: str) -> EncoderSpec:
    """Read "default", "none", "st:DENSE", "st:DENSE+SPARSE", a folder, or a hub name (OWNER/NAME).

    Raises:
        UserError: an empty name, or one that is none of these.

    >>> parse_spec("st:sentence-transformers/all-MiniLM-L6-v2").kind
    'sentence-transformers'
    """
    if not text:
        raise UserError("the encoder's name is empty; give a folder, a hub name, 'default', 'st:MODEL' or 'none'")
    if text == "default":
        return EncoderSpec(text, "default")
    if text == "none":
        return EncoderSpec(text, "none")
    if text.startswith(PEERS):
        return EncoderSpec(text, "sentence-transformers")
    if "/" not in text and not Path(text).is_dir():
        raise UserError(f"{text}: no such encoder; give a folder, a hub name, 'default', 'st:MODEL' or 'none'")
    return EncoderSpec(text, "ours")


def _whole(name: str) -> str:
    return str(Path(name).resolve()) if name and Path(name).is_dir() else name
