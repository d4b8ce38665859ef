"""Training examples: read from files of pairs, mixed and shuffled as a stream, and put into batches.

A file holds one JSON object a line (plain or gzip): `query` and `positive`; if wanted `negatives` (a list of texts, or
a string that is one in JSON), `scores` (a teacher's scores of the positive and then of the negatives) and `document`
(which document the passage is from).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import deque
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retriever.corpus_formats import read_jsonl
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Example", "PairRecord", "SourceConfig", "batches", "held_out", "normalised", "read_pairs", "stream"]

HELD_OUT_PERCENT = 5
SHUFFLE_BUFFER = 4096
"""Examples of each file that are held for shuffling: at 2 kB an example 8 MB, whatever the size of the file."""
DEFERRED_BATCHES = 8


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


@dataclass(frozen=True)
class SourceConfig:
    """A file of pairs and its weight in the mixture: examples are drawn from each file in proportion to it."""

    path: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is none."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UserError(f"{self.path}: the weight is {self.weight}, need a number above 0; or leave the file out")


def held_out(positive: str, percent: int = HELD_OUT_PERCENT) -> bool:
    """Return whether a passage is kept from training, by its text alone: the same in every file and every run.

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
    return _keep_negatives(example, [negative != positive for negative in negatives])


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


def _keep_negatives(example: Example, kept: Sequence[bool]) -> Example:
    """Return the example with those negatives for which `kept` is true, and their scores."""
    if all(kept):
        return example
    negatives = tuple(text for text, keep in zip(example.negatives, kept, strict=True) if keep)
    scores = example.scores
    if scores is not None:
        scores = scores[:1] + tuple(score for score, keep in zip(scores[1:], kept, strict=True) if keep)
    return example._replace(negatives=negatives, scores=scores)


def stream(
    sources: Sequence[SourceConfig],
    *,
    seed: int = 0,
    skip: int = 0,
    endless: bool = True,
    held_out_percent: int = HELD_OUT_PERCENT,
    shuffle_buffer: int = SHUFFLE_BUFFER,
) -> Iterator[Example]:
    """Mix the examples of several files, each shuffled within a buffer that bounds the memory.

    The order follows from `seed` and the arguments alone. Held-out passages come out neither as positives nor as
    negatives. endless: begin a file again at its end, in another order; otherwise each is read once, and the mixture
    goes on with those that are left. skip: how many examples were used already (about 25,000 a second are passed over).

    Raises:
        UserError: no source, a line that cannot be used, or a file without an example to train on.
    """
    if not sources:
        raise UserError("no training data; name at least one file of pairs")
    streams = [
        _source(source, f"{seed}/{place}", endless, held_out_percent, shuffle_buffer)
        for place, source in enumerate(sources)
    ]
    weights = [source.weight for source in sources]
    return islice(_mixture(streams, weights, random.Random(f"{seed}/mixture")), skip, None)


def _mixture(streams: list[Iterator[Example]], weights: list[float], chooser: random.Random) -> Iterator[Example]:
    left = list(range(len(streams)))
    while left:
        [place] = chooser.choices(left, [weights[i] for i in left])
        example = next(streams[place], None)
        if example is None:
            left.remove(place)
        else:
            yield example


def _source(source: SourceConfig, seed: str, endless: bool, percent: int, buffer: int) -> Iterator[Example]:
    for epoch in count() if endless else (0,):
        empty = True
        for example in _shuffled(_trainable(source.path, percent), buffer, random.Random(f"{seed}/{epoch}")):
            empty = False
            yield example
        if empty:
            raise UserError(f"{source.path}: holds no example outside the held-out part; leave the file out")


def _trainable(path: str, percent: int) -> Iterator[Example]:
    for record in read_pairs(path):
        example = record.example
        if not held_out(example.positive, percent):
            yield _keep_negatives(example, [not held_out(text, percent) for text in example.negatives])


def _shuffled(examples: Iterable[Example], size: int, chooser: random.Random) -> Iterator[Example]:
    """Give out, for each example that comes in, a random one of the `size` held."""
    held: list[Example] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        place = chooser.randrange(size)
        yield held[place]
        held[place] = example
    chooser.shuffle(held)
    yield from held


class _Keyed(NamedTuple):
    """An example with what it must not share with another of its batch, normalised."""

    example: Example
    own: frozenset[str]
    positive: str
    negatives: frozenset[str]


class _Batch:
    """Examples among which none is a negative of another by mistake."""

    def __init__(self) -> None:
        self.examples: list[Example] = []
        self._own: set[str] = set()
        self._positives: set[str] = set()
        self._negatives: set[str] = set()

    def take(self, found: _Keyed) -> bool:
        """Take an example in, unless it conflicts with one that is there; return whether it did."""
        if (
            not self._own.isdisjoint(found.own)
            or not self._positives.isdisjoint(found.negatives)
            or found.positive in self._negatives
        ):
            return False
        self.examples.append(found.example)
        self._own |= found.own
        self._positives.add(found.positive)
        self._negatives |= found.negatives
        return True


def batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """Put examples into batches in which every other passage is a fair negative (DPR, Karpukhin et al. 2020).

    No two of a batch share their document, their passage or their question, and no negative of one is the positive of
    another. What conflicts waits for a later batch; at most 8 batches' worth waits: a batch is cut short rather than
    made unfair. `islice(batches(...), done, None)` resumes after `done` batches exactly.
    """
    incoming = map(_keyed, examples)
    waiting: deque[_Keyed] = deque()
    while True:
        batch = _Batch()
        for _ in range(len(waiting)):
            found = waiting.popleft()
            if len(batch.examples) == size or not batch.take(found):
                waiting.append(found)
        while len(batch.examples) < size and len(waiting) < DEFERRED_BATCHES * size:
            following = next(incoming, None)
            if following is None:
                break
            if not batch.take(following):
                waiting.append(following)
        if not batch.examples:
            return
        yield batch.examples


def _keyed(example: Example) -> _Keyed:
    positive = normalised(example.positive)
    own = {f"query {normalised(example.query)}", f"passage {positive}"}
    if example.document:
        own.add(f"document {normalised(example.document)}")
    return _Keyed(example, frozenset(own), positive, frozenset(map(normalised, example.negatives)))
