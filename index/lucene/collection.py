"""BM25 over a part of a collection: by the statistics of all of it, so that scores do not depend on how it is cut."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retriever.index.lucene.jvm import as_type, define_class, java, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Collection", "CollectionSearcher", "JoinedCollection", "LanguageCounts", "joined_counts"]

LanguageCounts = dict[str, int]


class Collection(Protocol):
    """What BM25 knows of documents that are ranked together: all of them alive, chunks where documents are split.

    documents: how many have a term. length: how many terms they have together. languages: how many are in each
    language, the most frequent one first; none where all are read alike.
    """

    @property
    def documents(self) -> int: ...  # noqa: D102
    @property
    def length(self) -> int: ...  # noqa: D102
    @property
    def languages(self) -> Mapping[str, int]: ...  # noqa: D102

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many documents each analysed term stands."""
        ...


class JoinedCollection:
    """A collection of parts. Frequencies are asked for once a term."""

    def __init__(self, parts: Sequence[Collection]) -> None:
        self._parts = parts
        self.documents = sum(part.documents for part in parts)
        self.length = sum(part.length for part in parts)
        self.languages = joined_counts(part.languages for part in parts)
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many documents each analysed term stands."""
        new = [term for term in dict.fromkeys(terms) if term not in self._known]
        if new:
            found = [part.frequencies(new) for part in self._parts]
            self._known |= {term: sum(counts) for term, *counts in zip(new, *found, strict=True)}
        return [self._known[term] for term in terms]


def joined_counts(parts: Iterable[Mapping[str, int]]) -> LanguageCounts:
    """Return sums of counts, the largest first, those that are equal by name.

    >>> joined_counts([{"en": 2, "de": 1}, {"fr": 4, "de": 1}])
    {'fr': 4, 'de': 2, 'en': 2}
    """
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {name: total[name] for name in sorted(total, key=lambda name: (-total[name], name))}


class CollectionSearcher:
    """Scores `contents` by the statistics of a collection. java: the searcher, see `java/CollectionSearcher.java`."""

    def __init__(self, index: Any, similarity: Any, collection: Collection) -> None:
        self._collection = collection
        self._told: set[str] = set()
        self._frequencies = java("java.util.concurrent.ConcurrentHashMap")()
        of = str(collection.documents), str(collection.length)
        frequencies = as_type("java.util.Map", self._frequencies)
        self.java = as_type("search.IndexSearcher", _searcher()(index, "contents", *of, frequencies))
        self.java.setSimilarity(similarity)

    def know(self, terms: Iterable[str]) -> None:
        """Ask for the frequencies of the terms of a query before it is searched. Holds no lock while it asks."""
        new = [term for term in dict.fromkeys(terms) if term not in self._told]
        if new:
            found = self._collection.frequencies(new)
            with one_at_a_time():
                for term, frequency in zip(new, found, strict=True):
                    if frequency:
                        self._frequencies.put(term, str(frequency))
            self._told |= set(new)


@functools.cache
def _searcher() -> Any:
    return define_class("CollectionSearcher", Path(__file__).parent / "java" / "CollectionSearcher.class")
