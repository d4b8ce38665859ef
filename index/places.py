"""Where indexes stand: folders of ours, and other kinds of places, each with a reader and a writer of its own."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.index.shards.manifest import is_sharded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from retriever.index.contract import IndexReader, IndexWriter
    from retriever.index.info import IndexInfo
    from retriever.index.verify import Verification

__all__ = ["KINDS", "Kind", "describe", "is_elsewhere", "open_reader", "open_writer", "verify"]


class Kind(NamedTuple):
    """A kind of place that indexes stand in.

    is_one: says whether an address or a path is of this kind, cheaply. module: has `open_reader(place, verify=...)`,
    `open_writer(place)`, `describe(place)` and `verify(place)`; imported when the first one is opened.
    """

    is_one: Callable[[str], bool]
    module: str


KINDS: dict[str, Kind] = {
    "shards": Kind(is_sharded, "retriever.search.opened.sharded"),
    "qdrant": Kind(
        lambda place: re.match(r"qdrants?:(/|$)|qdrant-(edge|local):", place) is not None, "retriever.qdrant.place"
    ),
}
"""The kinds by name, asked in this order; what none of them claims is a folder of ours."""
FOLDERS = "retriever.index.folders"


def is_elsewhere(place: str | Path) -> bool:
    """Say whether something is the place of an index, but no folder of ours, which alone `build_index` makes."""
    return any(kind.is_one(str(place)) for kind in KINDS.values())


def _module(place: str | Path) -> Any:
    found = (kind.module for kind in KINDS.values() if kind.is_one(str(place)))
    return import_module(next(found, FOLDERS))


def open_reader(place: str | Path, *, verify: bool = False) -> IndexReader:
    """Open the last commit of an index; raise UserError for one that is missing, foreign or damaged.

    verify: read all of it first, where the kind of place can.
    """
    reader: IndexReader = _module(place).open_reader(place, verify=verify)
    return reader


def open_writer(place: str | Path) -> IndexWriter:
    """Open an index for changes; raise UserError as `open_reader`, or for one that another writer has open."""
    writer: IndexWriter = _module(place).open_writer(place)
    return writer


def describe(place: str | Path) -> IndexInfo:
    """Return what the last commit of an index holds; raise UserError if it cannot be opened."""
    found: IndexInfo = _module(place).describe(place)
    return found


def verify(place: str | Path) -> Verification:
    """Compare all of an index with its checksums; raise UserError if it cannot be read at all."""
    found: Verification = _module(place).verify(place)
    return found
