"""BM25 over a part of a collection: by the statistics of all of it, so that scores do not depend on how it is cut."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retriever.index.lucene.jvm import as_class, as_type, class_loader, java, lucene, lucene_object, one_at_a_time
from retriever.index.lucene.searchers import Searchers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Collection", "CollectionSearchers", "JoinedCollection", "LanguageCounts", "joined_counts"]

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


class CollectionSearchers(Searchers):
    """Searchers that score `contents` by the statistics of a collection: `java/CollectionSearcher.java`."""

    def __init__(self, index: Any, similarity: Any, collection: Collection) -> None:
        self._collection = collection
        self._told: set[str] = set()
        self._frequencies = java("java.util.concurrent.ConcurrentHashMap")()
        super().__init__(index, similarity)

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

    def _new(self, number: int) -> Any:
        of = str(self._collection.documents), str(self._collection.length)
        arguments = java("java.util.ArrayList")()
        for argument in (as_type("index.IndexReader", self._index), "contents", *of, self._frequencies):
            arguments.add(argument)
        made = _maker().make(arguments)
        return as_class(java("org.apache.lucene.search.IndexSearcher", twin=number), made)


class _Maker:
    """Makes searchers of a class that Java finds in this package, not where it was started with.

    pyjnius looks up the class of whatever Java returns, and does not find this one: the new object goes from hand to
    hand inside of Java, to a method that returns it as the IndexSearcher that it is.
    """

    def __init__(self) -> None:
        made = class_loader(Path(__file__).parent / "java").loadClass("CollectionSearcher")
        handles, kinds = java("java.lang.invoke.MethodHandles"), java("java.lang.invoke.MethodType")
        self._constructor = handles.publicLookup().unreflectConstructor(made.getConstructors()[0])
        keeper, searcher = (lucene_object(f"search.{name}") for name in ("SearcherLifetimeManager", "IndexSearcher"))
        record = kinds.methodType(java("java.lang.Long").TYPE, searcher)
        self._record = handles.publicLookup().findVirtual(keeper, "record", record)
        self._handles, self._class = handles, made

    def make(self, arguments: Any) -> Any:
        keeper = lucene("search.SearcherLifetimeManager")()  # one for each: it knows a reader by its version alone
        keep = self._record.bindTo(keeper)
        keep = keep.asType(keep.type().changeParameterType(0, self._class))
        made = self._handles.filterReturnValue(self._constructor, keep).invokeWithArguments(arguments)
        return keeper.acquire(made)


@functools.cache
def _maker() -> _Maker:
    return _Maker()
