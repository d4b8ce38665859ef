"""Collections as a kind of place, see `retriever.index.places`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.index.info import describe_reader
from retriever.index.verify import Damage, Verification
from retriever.qdrant.address import parse_address
from retriever.qdrant.reader import CollectionReader
from retriever.qdrant.recount import wrong_points
from retriever.qdrant.writer import CollectionWriter
from retriever.types import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.index.contract import IndexReader, IndexWriter
    from retriever.index.info import IndexInfo
    from retriever.qdrant.engine import Engine

__all__ = ["describe", "open_engine", "open_reader", "open_writer", "verify"]


def open_engine(place: str | Path) -> tuple[str, Engine]:
    """Return the name of a collection for messages, and what speaks to it."""
    address = parse_address(str(place))
    if address.scheme == "qdrant-edge":
        from retriever.qdrant.edge import EdgeEngine

        return str(address), EdgeEngine(address)
    from retriever.qdrant.client import ClientEngine

    return str(address), ClientEngine(address)


def open_reader(place: str | Path, *, verify: bool) -> IndexReader:
    """Open a collection for searching. verify: read all of it first, and refuse a damaged one."""
    name, engine = open_engine(place)
    reader = CollectionReader.open(name, engine)
    if verify:
        _, wrong = wrong_points(engine, reader.settings, reader.head.state)
        if wrong:
            reader.close()
            raise UserError(f"{name}: damaged ({len(wrong)} faults, such as {': '.join(wrong[0])}); push it again")
    return reader


def open_writer(place: str | Path) -> IndexWriter:
    """Open a collection for changes."""
    return CollectionWriter.open(*open_engine(place))


def describe(place: str | Path) -> IndexInfo:
    """Return what the last commit of a collection holds."""
    name, engine = open_engine(place)
    with CollectionReader.open(name, engine) as reader:
        return describe_reader(reader)


def verify(place: str | Path) -> Verification:
    """Read all points of a collection, and compare them with their checksums; a file is a point."""
    name, engine = open_engine(place)
    with CollectionReader.open(name, engine) as reader:
        count, wrong = wrong_points(engine, reader.settings, reader.head.state)
        damages = tuple(Damage(point, problem) for point, problem in wrong)
        return Verification(reader.commit_data.number, count, engine.size(), damages)
