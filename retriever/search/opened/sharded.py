"""Sharded indexes as a kind of place, see `retriever.index.places`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from retriever.index.info import describe_reader
from retriever.index.shards.reader import ShardedReader
from retriever.index.shards.verify import verify_index as verify
from retriever.search.opened.commit_view import open_legs
from retriever.search.opened.joined import joined_legs

if TYPE_CHECKING:
    from pathlib import Path

    from retriever.index.info import IndexInfo
    from retriever.index.shards.writer import ShardedWriter
    from retriever.search.leg import LegOptions, OpenLeg

__all__ = ["describe", "open_reader", "open_writer", "verify"]


def open_reader(place: str | Path, *, verify: bool) -> ShardedReader:
    """Open the last commits of the shards in this process."""
    return ShardedReader.open(place, verify=verify)


def open_writer(place: str | Path) -> ShardedWriter:
    """Open the shards for changes."""
    from retriever.index.shards.writer import ShardedWriter

    return ShardedWriter.open(place)


def describe(place: str | Path) -> IndexInfo:
    """Return what the shards hold together."""
    with closing(ShardedReader.open(place)) as reader:
        counts = (shard.num_documents for shard in reader.shards)
        return describe_reader(reader, dict(zip(reader.manifest.shards, counts, strict=True)))


@open_legs.register(ShardedReader)
def _(reader: ShardedReader, options: LegOptions | None = None) -> dict[str, OpenLeg]:
    return joined_legs(reader, [open_legs(shard, options) for shard in reader.shards])
