"""What a collection knows of all its documents: counts, document frequencies, settings, in points without vectors.

They follow the live documents, unlike Qdrant's own idf modifier, which never forgets a deleted point. A writer changes
them in memory and writes them with its commit; until then they are those of the commit before.

One point holds settings and counts (`Head`). Document frequencies stand in buckets: those of analysed terms by a hash
of the term, which is its index in sparse vectors, too; those of impacts and of tokens by vocabulary ids.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.settings import IndexSettings, parse_settings, settings_bytes
from retriever.index.vectors.rows import EMPTY, SEARCHABLE, TRUNCATED
from retriever.qdrant.bm25 import Collection
from retriever.qdrant.engine import Point
from retriever.qdrant.points import point_id
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from retriever.qdrant.engine import Engine

__all__ = ["Contribution", "Head", "IdFrequencies", "State", "TermFrequencies", "as_written", "read_head"]

FORMAT, VERSION = "retriever-qdrant", 1
BUCKET_BITS = ((1_000, 4), (100_000, 8), (10_000_000, 10))
"""Up to how many chunks at first so many bits of a term's hash choose its bucket; beyond, 12: a bucket then has some
hundred terms, some thousand in a collection that has grown."""
IDS = 1_024
"""Vocabulary ids whose frequencies stand together."""
CRC_MODULUS = 1 << 61
"""Checksums of points are summed up modulo this: the order in which they were written does not matter."""


class Contribution(NamedTuple):
    """What a chunk adds to the statistics.

    first: whether it is its document's first one. length: how many terms it has. mean_length: that its vector was made
    with. words: indices of its terms. impacts, tokens: vocabulary ids. values: of its metadata.
    """

    first: bool
    length: int
    mean_length: float
    words: Iterable[int]
    impacts: NDArray[np.uint32]
    tokens: NDArray[np.int32]
    flags: int
    language: str
    values: Mapping[str, Mapping[str, list[Any]]]
    crc: int


@dataclass
class State:
    """The counts of a commit. Chunks where nothing else is said.

    worded: chunks with a term, `words` terms in all. impacts: how many there are. tokened: chunks with tokens.
    empty, truncated, unread: as in the commits of folders. fields: of each metadata field in how many documents there
    is a value of each kind, under "" of any kind, and under "values s" and "values t" how many texts and moments.
    least_mean, greatest_mean: bounds of the mean lengths that BM25's vectors were made with, 0 of nothing.
    crc: the sum of all checksums. note: as in the commits of folders. writer: who is changing the collection, "" for
    nobody; also "" once a change was committed.
    """

    number: int = 0
    documents: int = 0
    chunks: int = 0
    worded: int = 0
    words: int = 0
    impacts: int = 0
    tokened: int = 0
    empty: int = 0
    truncated: int = 0
    unread: int = 0
    crc: int = 0
    least_mean: float = 0.0
    greatest_mean: float = 0.0
    languages: dict[str, int] = field(default_factory=dict)
    fields: dict[str, dict[str, int]] = field(default_factory=dict)
    note: dict[str, str] = field(default_factory=dict)
    writer: str = ""

    def count(self, part: Contribution, sign: int, *, dense: bool) -> None:
        """Count a chunk that was added (1) or removed (-1). dense: whether the index has vectors."""
        self.documents += sign * part.first
        self.chunks += sign
        self.worded += sign * (part.length > 0)
        self.words += sign * part.length
        self.impacts += sign * len(part.impacts)
        self.tokened += sign * (len(part.tokens) > 0)
        self.empty += sign * bool(part.flags & EMPTY)
        self.truncated += sign * bool(part.flags & TRUNCATED)
        self.unread += sign * (dense and not part.flags & (EMPTY | SEARCHABLE))
        self.crc = (self.crc + sign * part.crc) % CRC_MODULUS
        if part.language:
            _count(self.languages, part.language, sign)
        if part.first:
            self._count_fields(part.values, sign)
        if sign > 0 and part.length:
            self.least_mean = min(self.least_mean or part.mean_length, part.mean_length)
            self.greatest_mean = max(self.greatest_mean, part.mean_length)

    def _count_fields(self, values: Mapping[str, Mapping[str, list[Any]]], sign: int) -> None:
        for name in {name for fields in values.values() for name in fields}:
            counts = self.fields.setdefault(name, {})
            _count(counts, "", sign)
            for kind, fields in values.items():
                if name in fields:
                    _count(counts, kind, sign)
                    _count(counts, f"values {kind}", sign * len(fields[name]))
            if not counts:
                del self.fields[name]

    def collection(self, settings: IndexSettings) -> Collection:
        """Return what BM25 knows of the collection."""
        return Collection(self.worded, self.words, settings.k1, settings.b)


def _count(counts: dict[str, int], name: str, change: int) -> None:
    counts[name] = counts.get(name, 0) + change
    if not counts[name]:
        del counts[name]


class Head(NamedTuple):
    """The settings of a collection, and its counts at the last commit.

    key: tells it from others of its name. bits: of a term's hash, which choose its bucket.
    """

    settings: IndexSettings
    state: State
    key: str
    bits: int

    @classmethod
    def new(cls, settings: IndexSettings, chunks: int, note: Mapping[str, str]) -> Head:
        """Return the head of an empty collection that is about to get so many chunks."""
        bits = next((bits for most, bits in BUCKET_BITS if chunks <= most), 12)
        return cls(settings, State(note=dict(note)), uuid.uuid4().hex, bits)


HEAD = point_id("head", "")


def head_point(head: Head) -> Point:
    """Return the point that holds a head."""
    payload = {
        "format": FORMAT,
        "version": VERSION,
        "key": head.key,
        "bits": head.bits,
        "settings": settings_bytes(head.settings).decode(),
        "state": dataclasses.asdict(head.state),
    }
    return Point(HEAD, payload, {})


def read_head(engine: Engine, name: str) -> Head:
    """Return the head of a collection; raise UserError if it is not one of ours, or of another version."""
    found = engine.get([HEAD], ["format", "version", "key", "bits", "settings", "state"]).get(HEAD)
    if found is None or found.payload.get("format") != FORMAT:
        raise UserError(f"{name}: not a collection of `retriever push`; give one that is, or push to another name")
    version = found.payload.get("version")
    if version != VERSION:
        raise UserError(
            f"{name}: found format version {version!r}, this program reads {VERSION}; push it again to another name"
        )
    try:
        state = State(**found.payload["state"])
        state.least_mean, state.greatest_mean = as_written(state.least_mean), as_written(state.greatest_mean)
        settings = parse_settings(name, found.payload["settings"].encode())
        return Head(settings, state, found.payload["key"], found.payload["bits"])
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{name}: its counts cannot be read; push it again to another name") from None


def as_written(mean_length: float) -> float:
    """Return a mean length, a float32 value, as it was written: Qdrant's engine reads long numbers a bit off."""
    return float(np.float32(mean_length))


class _Bucket:
    """Terms with their indices and document frequencies."""

    def __init__(self, rows: Iterable[tuple[str, int, int]] = ()) -> None:
        self.index_of: dict[str, int] = {}
        self.term_of: dict[int, str] = {}
        self.frequency: dict[int, int] = {}
        for term, index, frequency in rows:
            self.index_of[term], self.term_of[index], self.frequency[index] = index, term, frequency

    def place(self, term: str, home: int, size: int) -> int:
        """Return the index of a term: a new one has its hash or, where another term has that, the next free number.

        size: how many numbers a bucket has.
        """
        if term not in self.index_of:
            first, index = home - home % size, home
            while index in self.term_of:
                index = first + (index + 1) % size
            self.index_of[term], self.term_of[index], self.frequency[index] = index, term, 0
        return self.index_of[term]

    def rows(self) -> list[tuple[str, int, int]]:
        """Return the terms that any chunk holds."""
        return [(self.term_of[index], index, held) for index, held in sorted(self.frequency.items()) if held]


class TermFrequencies:
    """In how many chunks analysed terms stand; buckets are fetched when they are first needed."""

    def __init__(self, engine: Engine, bits: int) -> None:
        self._engine, self._size = engine, 1 << (32 - bits)
        self._all = range(1 << bits)
        self._buckets: dict[int, _Bucket] = {}
        self._changed: set[int] = set()

    def _load(self, numbers: Iterable[int]) -> None:
        missing = [number for number in set(numbers) if number not in self._buckets]
        if missing:
            ids = {number: point_id("terms", str(number)) for number in missing}
            found = self._engine.get(list(ids.values()), ["terms"])
            for number, own in ids.items():
                self._buckets[number] = _Bucket(found[own].payload["terms"] if own in found else ())

    def find(self, terms: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return index and document frequency of those terms that have been seen."""
        homes = {term: _home(term) for term in terms}
        self._load(home // self._size for home in homes.values())
        found = {}
        for term, home in homes.items():
            bucket = self._buckets[home // self._size]
            if term in bucket.index_of:
                index = bucket.index_of[term]
                found[term] = index, bucket.frequency[index]
        return found

    def place(self, terms: Iterable[str]) -> dict[str, int]:
        """Return the indices of terms, new ones included."""
        homes = {term: _home(term) for term in terms}
        self._load(home // self._size for home in homes.values())
        return {term: self._buckets[home // self._size].place(term, home, self._size) for term, home in homes.items()}

    def count(self, counts: Mapping[int, int]) -> None:
        """Change document frequencies, by index."""
        self._load(index // self._size for index in counts)
        for index, change in counts.items():
            frequency = self._buckets[index // self._size].frequency
            frequency[index] = frequency.get(index, 0) + change
            self._changed.add(index // self._size)

    def forget(self) -> None:
        """Set all document frequencies to 0; indices stay as they are."""
        self._load(self._all)
        for number, bucket in self._buckets.items():
            bucket.frequency = dict.fromkeys(bucket.frequency, 0)
            self._changed.add(number)

    def points(self) -> Iterator[Point]:
        """Yield the points of the buckets that changed."""
        for number in sorted(self._changed):
            rows = [list(row) for row in self._buckets[number].rows()]
            yield Point(point_id("terms", str(number)), {"terms": rows}, {})
        self._changed.clear()


def _home(term: str) -> int:
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")


class IdFrequencies:
    """In how many chunks each vocabulary id stands. kind: "impact" or "token"."""

    def __init__(self, engine: Engine, kind: str, size: int) -> None:
        self._engine, self._kind, self._size = engine, kind, size
        self._all: NDArray[np.int64] | None = None
        self._changed: set[int] = set()

    @property
    def all(self) -> NDArray[np.int64]:
        """Return them all, int64 (vocab_size,)."""
        if self._all is None:
            ids = [point_id(self._kind, str(number)) for number in range(-(-self._size // IDS))]
            found = self._engine.get(ids, ["frequencies"])
            parts = [found[own].payload["frequencies"] if own in found else [0] * IDS for own in ids]
            self._all = np.array(parts, np.int64).reshape(-1)[: self._size]
        return self._all

    def of(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return those of some ids."""
        found: NDArray[np.int64] = self.all[terms]
        return found

    def count(self, terms: NDArray[Any], sign: int) -> None:
        """Count the ids of a chunk, each once, that was added (1) or removed (-1)."""
        if len(terms):
            self.all[terms] += sign
            self._changed.update(np.unique(terms // IDS).tolist())

    def forget(self) -> None:
        """Set all to 0."""
        self.all[:] = 0
        self._changed.update(range(-(-self._size // IDS)))

    def points(self) -> Iterator[Point]:
        """Yield the points of the ids that changed."""
        for number in sorted(self._changed):
            part = np.zeros(IDS, np.int64)
            own = self.all[number * IDS : (number + 1) * IDS]
            part[: len(own)] = own
            yield Point(point_id(self._kind, str(number)), {"frequencies": part.tolist()}, {})
        self._changed.clear()
