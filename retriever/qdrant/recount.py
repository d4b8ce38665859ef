"""Going through a whole collection: to count it anew, to write BM25's vectors anew, to see that nothing is damaged."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from retriever.index.stored import read_stored
from retriever.qdrant.bm25 import counts_of, saturated
from retriever.qdrant.chunks import contribution
from retriever.qdrant.engine import ALL, Point, SparseVector
from retriever.qdrant.fields import FIRSTS
from retriever.qdrant.points import CHUNKS, chunk_id, content_crc, sparse_vector, token_bytes
from retriever.qdrant.scan import pages
from retriever.qdrant.statistics import CRC_MODULUS, State, as_written
from retriever.types import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retriever.index.settings import IndexSettings
    from retriever.qdrant.engine import Engine, Record
    from retriever.qdrant.writer import CollectionWriter

__all__ = ["recount", "saturate_anew", "wrong_points"]


def vector_names(settings: IndexSettings) -> list[str]:
    """Return the names of the vectors that points of a collection have."""
    views = {"dense": settings.encoder.dense_dim, "sparse": settings.encoder.vocab_size}
    return ["bm25", *(name for name, size in views.items() if size)]


def recount(writer: CollectionWriter) -> None:
    """Count all documents of a collection from their stored texts; what is left of half-written ones is deleted."""
    engine, state = writer.engine, writer.state
    bounds = state.least_mean, state.greatest_mean
    writer.state = State(number=state.number, note=state.note, least_mean=bounds[0], greatest_mean=bounds[1])
    for frequencies in (writer.terms, writer.impacts, writer.tokens):
        frequencies.forget()
    for page in pages(engine, FIRSTS, ["id", "chunks"]):
        ids = [[chunk_id(one.payload["id"], n) for n in range(one.payload["chunks"])] for one in page]
        found = engine.get([own for part in ids for own in part], None, vector_names(writer.settings))
        whole = [[found[own] for own in part] for part in ids if all(own in found for own in part)]
        mended = list(_with_terms_of(writer, whole))
        writer.upsert([point for point in mended if isinstance(point, Point)])
        writer.count([contribution(point) for point in mended], 1)
        if broken := [own for part in ids for own in part if own in found and not all(one in found for one in part)]:
            engine.delete(broken)
    _delete_others(writer)


def _with_terms_of(writer: CollectionWriter, documents: list[list[Record]]) -> Iterator[Point | Record]:
    """Yield the chunks of documents, anew where their terms have other indices than the table says by now."""
    for records in documents:
        stored = read_stored(writer.path, records[0].payload["raw"])
        spans = stored.chunks or [Span(0, len(stored.document.text))]
        for record, part in zip(records, stored.document.split(spans), strict=True):
            terms = Counter(writer.words.of_document(part.contents, record.payload["language"]))
            places = writer.terms.place(terms)
            counts = sparse_vector({places[term]: count for term, count in terms.items()})
            old = record.vectors.get("bm25")
            if isinstance(old, SparseVector) and np.array_equal(old.indices, counts.indices):
                yield record
            elif len(counts.indices):
                payload = record.payload
                norm = writer.state.collection(writer.settings).inverse_norm(payload["length"], payload["mean"])
                new = counts._replace(values=saturated(counts.values, norm))
                yield _checked(Point(record.id, payload, {**record.vectors, "bm25": new}))
            else:
                yield record


def _checked(point: Point) -> Point:
    return point._replace(payload={**point.payload, "crc": _crc(point)})


def _crc(point: Point | Record) -> int:
    bm25, sparse, dense = (point.vectors.get(name) for name in ("bm25", "sparse", "dense"))
    empty = SparseVector(np.empty(0, np.uint32), np.empty(0, np.float32))
    return content_crc(
        point.payload.get("raw", ""),
        point.payload["length"],
        (bm25 if isinstance(bm25, SparseVector) else empty).indices,
        sparse if isinstance(sparse, SparseVector) else empty,
        dense if isinstance(dense, np.ndarray) else None,
        token_bytes(point.payload),
    )


def _delete_others(writer: CollectionWriter) -> None:
    """Delete chunks that belong to no document, if there are any."""
    if writer.engine.count(CHUNKS) == writer.state.chunks:
        return
    for page in pages(writer.engine, ALL, ["id", "chunk"]):
        firsts = writer.engine.get([chunk_id(one.payload["id"], 0) for one in page], ["chunks"])
        sizes = {own: first.payload["chunks"] for own, first in firsts.items()}
        lost = [one.id for one in page if one.payload["chunk"] >= sizes.get(chunk_id(one.payload["id"], 0), 0)]
        if lost:
            writer.engine.delete(lost)


def saturate_anew(writer: CollectionWriter) -> None:
    """Write BM25's vectors anew, with today's mean length; a point is whole at any time."""
    collection = writer.state.collection(writer.settings)
    mean = collection.mean_length
    for page in pages(writer.engine, ALL, None, vector_names(writer.settings)):
        points = []
        for record in page:
            old = record.vectors.get("bm25")
            if as_written(record.payload["mean"]) != mean and isinstance(old, SparseVector):
                length = record.payload["length"]
                counts = counts_of(old.values, collection.inverse_norm(length, record.payload["mean"]))
                new = old._replace(values=saturated(counts, collection.inverse_norm(length)))
                points.append(Point(record.id, {**record.payload, "mean": mean}, {**record.vectors, "bm25": new}))
        writer.upsert(points)
    writer.state.least_mean = writer.state.greatest_mean = mean


def wrong_points(engine: Engine, settings: IndexSettings, state: State) -> tuple[int, list[tuple[str, str]]]:
    """Read all chunks; return how many there are, and what is wrong with which, in words."""
    count, total = 0, 0
    wrong: list[tuple[str, str]] = []
    collection = state.collection(settings)
    for page in pages(engine, ALL, None, vector_names(settings)):
        count += len(page)
        for record in page:
            total += record.payload["crc"]
            bm25 = record.vectors.get("bm25")
            norm = collection.inverse_norm(record.payload["length"], record.payload["mean"])
            counts_fit = not isinstance(bm25, SparseVector) or np.array_equal(
                saturated(counts_of(bm25.values, norm), norm), bm25.values
            )
            if _crc(record) != record.payload["crc"] or not counts_fit:
                chunk = f"chunk {record.payload['chunk']} of document {record.payload['id']!r}"
                wrong.append((chunk, "wrong checksum"))
    if count != state.chunks or total % CRC_MODULUS != state.crc:
        wrong.append(("the whole", f"{count} chunks, the last commit has {state.chunks}, or others than these"))
    return count, wrong
