"""What an index folder is and may never change: index.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple

from retriever.index.chunks import Chunking
from retriever.index.files import MissingError, checksum, damaged, write_whole
from retriever.index.vectors.row_formats import ROW_TYPES, RowFormat
from retriever.languages import analyzer_named
from retriever.types import EncoderIdentity, UserError

__all__ = [
    "FILE",
    "FORMAT",
    "VERSION",
    "Bm25",
    "IndexSettings",
    "TokenSettings",
    "check_settings",
    "parse_settings",
    "read_settings",
    "settings_bytes",
    "settings_identity",
    "write_settings",
]

FORMAT = "retriever-index"
VERSION = 1
FILE = "index.json"


class Bm25(NamedTuple):
    """How the words of documents are read and scored: the analyser's name, and the parameters k1 and b."""

    analyzer: str
    k1: float
    b: float


class TokenSettings(NamedTuple):
    """The token encoder of an index: its name, the sha256 of what decides its vectors, and their size.

    bits: 8, or 2, of each number of a vector as it is stored.
    """

    name: str
    sha256: str
    dim: int
    bits: int = 8


@dataclass(frozen=True)
class IndexSettings:
    """Settings that every document of an index shares; changing one means building the index again.

    encoder: identity of the encoder whose vectors and terms are stored; its sizes are 0 for a missing view.
    analyzer, k1, b: how BM25 reads and scores `contents`; analyzer: "english", "auto", "other", or a language's code.
    impact_scale: a stored impact is round(weight * impact_scale).
    row_dtype: number format of the vectors. max_terms: how many terms of a document are stored, None for all.
    min_weight: terms that weigh less are not stored, None for all.
    chunking: how documents are split; None for an index of whole ones. tokens: what encodes them token by token, for
    late interaction; None for an index without token vectors.
    """

    encoder: EncoderIdentity
    analyzer: str = "english"
    k1: float = 0.9
    b: float = 0.4
    impact_scale: int = 100
    row_dtype: str = "float32"
    max_terms: int | None = None
    chunking: Chunking | None = None
    tokens: TokenSettings | None = None
    min_weight: float | None = None

    def __post_init__(self) -> None:
        """Refuse what this version cannot store."""
        if analyzer_named(self.analyzer) != self.analyzer:
            raise UserError(f"analyzer {self.analyzer!r} is not known; use {analyzer_named(self.analyzer)!r}")
        if self.row_dtype not in ROW_TYPES:
            raise UserError(f"rows {self.row_dtype!r} is not known; allowed: {', '.join(ROW_TYPES)}")
        for name in ("k1", "b", "impact_scale"):
            if not isinstance(getattr(self, name), int | float):
                raise UserError(f"{name} {getattr(self, name)!r} is not a number; give one, or leave it out")
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise UserError(f"k1 {self.k1} and b {self.b} are out of range; need k1 >= 0 and 0 <= b <= 1")
        if self.impact_scale != int(self.impact_scale) or self.impact_scale < 1:
            raise UserError(f"impact_scale {self.impact_scale} is out of range; need a whole number from 1")
        if self.max_terms is not None and (type(self.max_terms) is not int or self.max_terms < 1):
            raise UserError(
                f"max_terms {self.max_terms!r} is out of range; need a whole number from 1, or none for all"
            )
        if self.min_weight is not None and not (isinstance(self.min_weight, int | float) and 0 < self.min_weight < inf):
            raise UserError(f"min_weight {self.min_weight!r} is out of range; need a number above 0, or none for all")

    @property
    def bm25(self) -> Bm25:
        """Return how this index reads and scores words."""
        return Bm25(self.analyzer, self.k1, self.b)

    @property
    def row_format(self) -> RowFormat:
        """Return how the vectors of this index are stored."""
        tokens = (self.tokens.dim, self.tokens.bits) if self.tokens else ()
        return RowFormat(self.row_dtype, self.encoder.dense_dim, *tokens)


def settings_bytes(settings: IndexSettings) -> bytes:
    """Return the content of index.json."""
    values = {"format": FORMAT, "version": VERSION} | dataclasses.asdict(settings)
    values["encoder"] = settings.encoder._asdict()
    values["tokens"] = settings.tokens and settings.tokens._asdict()
    for name in ("tokens", "min_weight"):
        if values[name] is None:  # as it was written before there were any
            del values[name]
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def write_settings(folder: Path, settings: IndexSettings) -> None:
    """Write index.json in one step: a folder has it completely or not at all."""
    write_whole(folder / FILE, settings_bytes(settings))


def settings_identity(folder: Path) -> tuple[int, ...]:
    """Return what changes when a folder is built again: its index.json is written once.

    Raises:
        UserError: it is not there.
    """
    try:
        found = (folder / FILE).stat()
    except OSError:
        raise UserError(
            f"{folder}: not an index folder (it has no {FILE}); give a folder made by `retriever index`"
        ) from None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def read_settings(folder: Path) -> IndexSettings:
    """Read index.json; raise UserError for a missing folder, a foreign one, another version or damage."""
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give an index folder, as `retriever index` makes it")
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such index folder; create one with `retriever index CORPUS --index {folder}`")
    path = folder / FILE
    try:
        text = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            f"{folder}: not an index folder (it has no {FILE}); give a folder made by `retriever index`"
        ) from None
    except PermissionError:
        raise UserError(f"{path}: permission denied; give the user read access to the index folder") from None
    return parse_settings(path, text)


def parse_settings(path: Path | str, text: bytes) -> IndexSettings:
    """Read what `settings_bytes` wrote; raise UserError, which names `path`, for anything else."""
    try:
        values = json.loads(text)
    except ValueError:
        raise damaged(path, "not JSON") from None
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise UserError(f"{path}: not the settings of a retriever index; need format {FORMAT!r}")
    version = values.pop("version", None)
    if version != VERSION:
        raise UserError(
            f"{path}: found format version {version!r}, this program reads {VERSION}; build it with `retriever index`"
        )
    try:
        chunking = Chunking(**values["chunking"]) if values.get("chunking") else None
        tokens = TokenSettings(**values["tokens"]) if values.get("tokens") else None
        read = {"encoder": EncoderIdentity(**values["encoder"]), "chunking": chunking, "tokens": tokens}
        return IndexSettings(**values | read)
    except (KeyError, TypeError):
        raise damaged(path, "settings missing or unknown") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_settings(folder: Path, crc: int) -> None:
    """Raise UserError if index.json is not the one that was committed, CRC-32 `crc`."""
    if checksum(folder / FILE) != crc:
        raise damaged(folder / FILE, "wrong checksum")
