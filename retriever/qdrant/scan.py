"""Reading all points of a condition, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.qdrant.engine import AllOf
from retriever.qdrant.filters import Selection
from retriever.qdrant.points import CHUNKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.qdrant.engine import Engine, Payload, Record, Within

__all__ = ["pages", "scan"]

PAGE = 512


def pages(engine: Engine, within: Within, payload: Payload, vectors: Sequence[str] = ()) -> Iterator[list[Record]]:
    """Yield the points of chunks within a condition, by ascending id of the point, some hundred at a time."""
    after: str | None = None
    while True:
        found, after = engine.scan(AllOf((CHUNKS, within)), payload, vectors, PAGE, after)
        if found:
            yield found
        if after is None:
            return


def scan(engine: Engine, selection: Selection, payload: Sequence[str], vectors: Sequence[str] = ()) -> Iterator[Record]:
    """Yield the points of the chunks of a selection."""
    wanted = payload if selection.check is None else [*payload, "s", "d", "b", "t", "x"]
    for page in pages(engine, selection.within, wanted, vectors):
        yield from (record for record in page if selection.check is None or selection.check(record.payload))
