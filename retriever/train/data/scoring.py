"""Teachers: scores of a question's passages, to distil from."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from retriever.encoder.load import NoEncoder, load_encoder
from retriever.index.reader import FolderReader
from retriever.search.fusion.normalisation import NORMALISATIONS
from retriever.train.data.passages import index_passages, passage_id
from retriever.train.data.resumable import Rewriting
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retriever.train.data.pairs import PairRecord
    from retriever.train.data.vectors import VectorStore
    from retriever.types import Encoded, Encoder, FloatArray

__all__ = [
    "DECIMALS",
    "BM25Teacher",
    "Candidates",
    "DenseTeacher",
    "Teacher",
    "dense_teacher",
    "ensemble",
    "load_teacher",
    "score_pairs",
]

BM25 = "bm25"

DECIMALS = 6


class Candidates(NamedTuple):
    """A question and the passages to score for it."""

    query: str
    passages: tuple[str, ...]


class Teacher(Protocol):
    """Scores passages for questions; higher is better."""

    def scores(self, lists: Sequence[Candidates]) -> list[list[float]]:
        """Return the scores of each list, in order."""
        ...


class DenseTeacher:
    """Scores by the cosine of an encoder's dense views; no passage is encoded twice."""

    def __init__(self, encoder: Encoder, store: VectorStore) -> None:
        self._encoder, self._store = encoder, store
        self._queries: dict[str, FloatArray] = {}

    def begin_block(self) -> None:
        """Forget the questions: they seldom come again, and memory stays bounded."""
        self._queries.clear()

    def scores(self, lists: Sequence[Candidates]) -> list[list[float]]:
        """Return the cosines of each list, in order."""
        queries = list(dict.fromkeys(item.query for item in lists if item.query not in self._queries))
        if queries:
            self._queries |= zip(queries, _dense(self._encoder.encode_queries(queries, sparse=False)), strict=True)
        missing = self._store.missing([text for item in lists for text in item.passages])
        if missing:
            self._store.append(missing, _dense(self._encoder.encode_documents(missing, sparse=False)))
        # Product by product: the rounding of a matrix product depends on how many rows it has.
        return [
            [float(np.dot(self._queries[item.query], vector)) for vector in self._store.vectors(item.passages)]
            for item in lists
        ]


def _dense(encoded: Encoded) -> FloatArray:
    assert encoded.dense is not None
    return encoded.dense


def load_teacher(spec: str) -> Encoder:
    """Return an encoder to score with, as `load_encoder` takes it; raise UserError if it has no dense view."""
    encoder = load_encoder(spec)
    if not encoder.identity.dense_dim:
        raise UserError(f"{spec}: has no dense view to score with; give st:MODEL, another encoder, or bm25")
    return encoder


def dense_teacher(encoder: Encoder, rewriting: Rewriting) -> DenseTeacher:
    """Return a teacher whose vectors lie with what is being written."""
    identity = encoder.identity
    return DenseTeacher(encoder, rewriting.vectors(identity.sha256[:16], identity.dense_dim))


class BM25Teacher:
    """Scores by Lucene's BM25, with the statistics of an index that `index_passages` made."""

    def __init__(self, reader: FolderReader) -> None:
        self._reader = reader

    def scores(self, lists: Sequence[Candidates]) -> list[list[float]]:
        """Return BM25 scores, 0 for a passage that shares no term with its question."""
        return [self._scores(item) for item in lists]

    def _scores(self, item: Candidates) -> list[float]:
        ids = [passage_id(text) for text in item.passages]
        names = ", ".join(f'"{doc_id}"' for doc_id in dict.fromkeys(ids))
        found = dict(self._reader.bm25(item.query, len(ids), self._reader.select(f"id in ({names})")))
        return [found.get(doc_id, 0.0) for doc_id in ids]


def ensemble(scores: Sequence[Sequence[float]], normalisation: str) -> list[float]:
    """Return the mean of several teachers' scores of one list, each normalised within the list.

    scores: (n_teachers, n_passages). Cosines and BM25 scores have different scales; what a list needs is their order
    and relative distances.

    >>> ensemble([[0.9, 0.5, 0.1], [12.0, 0.0, 6.0]], "min-max")
    [1.0, 0.25, 0.25]
    """
    normalised = [NORMALISATIONS[normalisation](np.array(row, np.float64)).tolist() for row in scores]
    return [math.fsum(column) / len(normalised) for column in zip(*normalised, strict=True)]


def score_pairs(
    pairs: str | Path,
    output: str | Path,
    teachers: Sequence[str],
    *,
    normalisation: str = "min-max",
    progress: bool = False,
) -> int:
    """Write the pairs with `scores`, the teachers' of the positive and then of the negatives; return how many.

    teachers: "bm25", or encoders with a dense view as `load_encoder` takes them, such as "st:MODEL". One teacher's
    scores are written as they are, several are normalised within each list and averaged. A call after an interruption
    continues where it stopped.

    Raises:
        UserError: a teacher that cannot be loaded, a bad line, an output that is there or was begun otherwise.
    """
    if not teachers:
        raise UserError("no teacher; give st:MODEL or bm25")
    encoders = {spec: load_teacher(spec) for spec in teachers if spec != BM25}
    settings = {
        "teachers": [encoders[spec].identity.sha256 if spec in encoders else spec for spec in teachers],
        "normalisation": normalisation if len(teachers) > 1 else "none",
    }
    with Rewriting(pairs, output, settings) as rewriting, ExitStack() as opened:
        dense = {spec: dense_teacher(encoder, rewriting) for spec, encoder in encoders.items()}
        panel: dict[str, Teacher] = dict(dense)
        if BM25 in teachers:
            folder = rewriting.folder / "passages"
            index_passages(pairs, folder, NoEncoder(), negatives=True, progress=progress)
            panel[BM25] = BM25Teacher(opened.enter_context(FolderReader.open(folder)))

        def work(records: list[PairRecord]) -> list[dict[str, Any]]:
            for teacher in dense.values():
                teacher.begin_block()
            examples = [record.example for record in records]
            lists = [Candidates(example.query, (example.positive, *example.negatives)) for example in examples]
            columns = [panel[spec].scores(lists) for spec in teachers]
            combined = (
                found[0] if len(found) == 1 else ensemble(found, normalisation) for found in zip(*columns, strict=True)
            )
            return [_scored(record, scores) for record, scores in zip(records, combined, strict=True)]

        rewriting.run(work, progress=progress)
        opened.close()
        return rewriting.finish()


def _scored(record: PairRecord, scores: Sequence[float]) -> dict[str, Any]:
    """Return the fields with the scores, and with the negatives as they were scored."""
    negatives = {"negatives": list(record.example.negatives)} if "negatives" in record.fields else {}
    return record.fields | negatives | {"scores": [round(score, DECIMALS) for score in scores]}
