"""Files of pairs: the training examples in them, and which of their passages are held out from training.

A file holds one JSON object a line (plain or gzip): `query` and `positive`; if wanted `negatives` (a list of texts, or
a string that is one in JSON), `scores` (a teacher's scores of the positive and then of the negatives) and `document`
(which document the passage is from).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.corpus.formats import read_jsonl
from retriever.streams import refuse_stream
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "HELD_OUT_PERCENT",
    "PAIRS_AGAIN",
    "Example",
    "PairRecord",
    "held_out",
    "keep_negatives",
    "normalised",
    "read_pairs",
]

HELD_OUT_PERCENT = 5
PAIRS_AGAIN = "pairs are read several times"


class Example(NamedTuple):
    """One training example.

    scores: a teacher's scores of the positive and then of the negatives, or None.
    source: the name of its file. document: the document that the passage is from, "" where it is not known.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    scores: tuple[float, ...] | None
    source: str
    document: str


class PairRecord(NamedTuple):
    """One line of a file of pairs: where it stands ("file:line"), all its fields, and the example they make."""

    where: str
    fields: dict[str, Any]
    example: Example


def held_out(positive: str, percent: int = HELD_OUT_PERCENT) -> bool:
    """Return whether a passage is held out from training, by its text alone: the same in every file and every run.

    >>> [held_out("Trees make wood.", percent) for percent in (0, 100)]
    [False, True]
    """
    return int(hashlib.sha256(positive.encode()).hexdigest()[:8], 16) % 100 < percent


def normalised(text: str) -> str:
    """Return what two texts share that differ in nothing but case and white space."""
    return " ".join(text.split()).casefold()


def read_pairs(path: str | Path) -> Iterator[PairRecord]:
    """Yield the records of a file of pairs, one at a time.

    A negative that is the positive itself is left out of the example, its score with it.

    Raises:
        UserError: the file or a line cannot be read, or a field is missing or of the wrong kind; names file and line.
    """
    path = Path(path)
    refuse_stream(path, PAIRS_AGAIN)
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    for where, fields, problem in read_jsonl(path):
        if fields is None:
            raise UserError(f"{where}: {problem}")
        try:
            yield PairRecord(where, fields, _example(fields, name))
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None


def _example(fields: dict[str, Any], source: str) -> Example:
    query, positive = (_text(fields, key) for key in ("query", "positive"))
    negatives = _negatives(fields.get("negatives"))
    scores = _scores(fields.get("scores"), 1 + len(negatives))
    document = fields.get("document") or ""
    if not isinstance(document, str):
        raise ValueError(f"'document' is a {type(document).__name__}, need a string; put it in double quotes")
    example = Example(query, positive, negatives, scores, source, document)
    return keep_negatives(example, [negative != positive for negative in negatives])


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if isinstance(value, str) and value.strip():
        return value
    found = f"a {type(value).__name__}" if key in fields else f"the keys {', '.join(fields) or '(none)'}"
    found = "an empty one" if isinstance(value, str) else found
    raise ValueError(f"need a text under {key!r}, found {found}; add it or remove the line")


def _negatives(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("'negatives' is a string that is no JSON list; write a list of texts") from None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise ValueError("'negatives' is no list of texts that are not empty; write one, or leave it out")
    return tuple(value)


def _scores(value: object, wanted: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or any(isinstance(x, bool) or not isinstance(x, int | float) for x in value):
        raise ValueError(
            "'scores' is no list of numbers; write the positive's and then the negatives', or leave it out"
        )
    if len(value) != wanted:
        raise ValueError(f"found {len(value)} scores, need {wanted}: the positive's and then the negatives'")
    return tuple(map(float, value))


def keep_negatives(example: Example, kept: Sequence[bool]) -> Example:
    """Return the example with those negatives for which `kept` is true, and their scores."""
    if all(kept):
        return example
    negatives = tuple(text for text, keep in zip(example.negatives, kept, strict=True) if keep)
    scores = example.scores
    if scores is not None:
        scores = scores[:1] + tuple(score for score, keep in zip(scores[1:], kept, strict=True) if keep)
    return example._replace(negatives=negatives, scores=scores)
