"""Documents, an index and a command line for the tests of complaints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from retriever.cli.main import cli
from retriever.index import FolderWriter, IndexSettings
from retriever.indexing.writer import IndexWriter
from retriever.search.legs.backends import SPARSE_BACKENDS
from retriever.testing import SeededEncoder
from retriever.types import Document

WORDS = ["river", "stone", "bread", "winter", "garden", "paper"]
PAIRS = ("bm25+sparse", "bm25+dense", "dense+sparse")


def backends() -> list[str]:
    """Return the back ends of the sparse leg that can be used here."""
    from importlib.util import find_spec

    return [name for name in SPARSE_BACKENDS if name != "seismic" or find_spec("seismic") is not None]


def document(number: int, version: int = 0) -> Document:
    """Return a document of up to nine words, the same ones for the same numbers."""
    random = np.random.default_rng([number, version])
    return Document(f"d{number:02}", " ".join(random.choice(WORDS, 1 + number % 9)), metadata={"n": number})


def make(folder: Path, documents: Sequence[Document], encoder: SeededEncoder | None = None) -> Path:
    """Make an index of documents."""
    encoder = encoder or SeededEncoder()
    FolderWriter.create(folder, IndexSettings(encoder.identity)).close()
    with IndexWriter.open(folder, encoder) as writer:
        writer.add(documents)
        writer.commit()
    return folder


def call(*args: object) -> Any:
    """Run a command."""
    return CliRunner().invoke(cli, list(map(str, args)))
