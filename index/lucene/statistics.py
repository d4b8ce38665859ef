"""Term statistics of the live documents: Lucene's own count a deleted one until it is merged away.

With them two indexes of the same documents answer alike, whatever their history. Where nothing is deleted they are
Lucene's, and cost nothing. Else document frequencies are counted once for each term, and the lengths of the deleted
documents, which Lucene's sum of all lengths includes, are found by analysing their stored texts again, once.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retriever.index.lucene.calls import frequencies
from retriever.index.lucene.jvm import as_type, bm25_similarity, lucene
from retriever.types import Document, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from retriever.index.lucene.analysis import Analysis

__all__ = ["Lengths", "LiveBm25", "LiveStatistics"]

Lengths = dict[tuple[str, int], int]
"""How many terms deleted documents have, by the id of the segment and the number in it.

Its name would not do: an index that was built anew in the same folder begins with the same names.
"""


class LiveStatistics:
    """Counts the live documents of one reader. Every call is one of Java's: make them one at a time.

    deleted: how many documents Lucene still holds that are deleted. lengths: what is known of them from another reader.
    """

    def __init__(self, index: Any, searcher: Any, lengths: Lengths) -> None:
        self._index, self._searcher, self.lengths = index, searcher, lengths
        self.deleted = int(index.numDeletedDocs())
        self._known: dict[str, dict[str, int]] = {}
        self._documents: dict[str, int] = {}

    def document_frequencies(self, field: str, terms: Iterable[str]) -> list[int]:
        """Return in how many documents each term stands."""
        wanted = list(terms)
        known = {} if field == "id" else self._known.setdefault(field, {})  # ids are asked for once, and are many
        new = [term for term in dict.fromkeys(wanted) if term not in known]
        known |= zip(new, frequencies(self._searcher, field, new), strict=True)
        return [known[term] for term in wanted]

    def documents(self, field: str) -> int:
        """Return how many documents have a term in a field."""
        if field not in self._documents:
            self._documents[field] = self._count(field)
        return self._documents[field]

    def _count(self, field: str) -> int:
        total = 0
        for leaf in self._leaves():
            terms = leaf.terms(field)
            held = int(terms.getDocCount()) if terms is not None else 0
            if leaf.hasDeletions() and held not in (0, leaf.maxDoc()):
                every = lucene("search.TermRangeQuery")(field, None, None, True, True)
                return int(self._searcher.count(as_type("search.Query", every)))
            total += int(leaf.numDocs()) if leaf.hasDeletions() and held else held
        return total

    def counts(self, field: str) -> dict[str, int]:
        """Return in how many documents each term of a small field stands, the most frequent ones first."""
        terms = lucene("index.MultiTerms").getTerms(self._index, field)
        walk = None if terms is None else terms.iterator()
        names = []
        while walk is not None and (term := walk.next()) is not None:
            names.append(str(term.utf8ToString()))
        counts = dict(zip(names, self.document_frequencies(field, names), strict=True))
        return {name: counts[name] for name in sorted(counts, key=lambda name: -counts[name]) if counts[name]}

    def _leaves(self) -> list[Any]:
        leaves = self._index.leaves()
        return [as_type("index.LeafReaderContext", leaves.get(n)).reader() for n in range(leaves.size())]

    def length(self, analysis: Analysis) -> int:
        """Return how many terms the `contents` of the documents have."""
        terms = lucene("index.MultiTerms").getTerms(self._index, "contents")
        return 0 if terms is None else int(terms.getSumTotalTermFreq()) - self.deleted_length(analysis)

    def deleted_length(self, analysis: Analysis) -> int:
        """Return how many terms the `contents` of the deleted documents have."""
        total = 0
        for leaf in self._leaves() if self.deleted else ():
            if leaf.hasDeletions():
                segment = _segment_id(leaf)
                for number in _deleted(leaf):
                    if (segment, number) not in self.lengths:
                        self.lengths[segment, number] = self._length(leaf, number, analysis)
                    total += self.lengths[segment, number]
        return total

    def _length(self, leaf: Any, number: int, analysis: Analysis) -> int:
        """Return the length of the chunks of a deleted document if this is the first of them, which stores it."""
        raw = leaf.storedFields().document(number).get("raw")
        if raw is None:
            return 0
        fields = json.loads(raw)
        document = Document(fields["id"], fields["text"], fields["title"], expansion=fields.get("expansion", ""))
        spans = [Span(*span) for span in fields.get("chunks", ())] or [Span(0, len(document.text))]
        language = fields.get("language", "")
        return sum(len(analysis.terms(part.contents, language)) for part in document.split(spans))


def _segment_id(leaf: Any) -> str:
    """Return the id that Lucene drew for a segment when it was written."""
    info = as_type("index.SegmentReader", leaf).getSegmentInfo().info
    return str(lucene("util.StringHelper").idToString(info.getId()))


def _deleted(leaf: Any) -> list[int]:
    """Return the numbers of the deleted documents of a segment."""
    count = int(leaf.maxDoc())
    words = np.array(lucene("util.FixedBitSet").copyOf(leaf.getLiveDocs()).getBits(), dtype="<i8")
    live = np.unpackbits(words.view(np.uint8), count=count, bitorder="little")
    found: list[int] = np.flatnonzero(live == 0).tolist()
    return found


class _Collection(NamedTuple):
    """What BM25 knows of all documents: how many have a term, and how long they are on average, in terms."""

    documents: int
    mean_length: float


class LiveBm25:
    """BM25 with the statistics of the live documents, made from parts that Lucene computes with its own.

    BM25 = idf * tf / (tf + k1 * (1 - b + b * length / mean length)). Another mean length is another k1 and b: what
    counts is k1 * (1 - b) and k1 * b / mean length. Another document frequency is told to the query, and another number
    of documents is a boost of each term, the ratio of the two idf.
    """

    def __init__(self, statistics: LiveStatistics, analysis: Analysis, k1: float, b: float) -> None:
        self._statistics, self._analysis, self._k1, self._b = statistics, analysis, k1, b

    @cached_property
    def _lucene(self) -> _Collection:
        terms = lucene("index.MultiTerms").getTerms(self._statistics._index, "contents")
        documents = 0 if terms is None else int(terms.getDocCount())
        return _Collection(documents, int(terms.getSumTotalTermFreq()) / documents if documents else 1.0)

    @cached_property
    def _live(self) -> _Collection:
        documents = self._statistics.documents("contents")
        length = self._lucene.documents * self._lucene.mean_length - self._statistics.deleted_length(self._analysis)
        return _Collection(documents, length / documents if documents else 1.0)

    def similarity(self) -> Any:
        """Return Lucene's BM25 with the k1 and b that make up for the mean length."""
        if not self._live.documents:
            return bm25_similarity(self._k1, self._b)
        constant = self._k1 * (1 - self._b)
        by_length = self._k1 * self._b * np.float32(self._lucene.mean_length) / np.float32(self._live.mean_length)
        total = constant + by_length
        return bm25_similarity(float(total), float(by_length / total) if total else 0.0)

    def query(self, counts: Mapping[str, float]) -> Any:
        """Return the query of some terms, each weighted by its count, or by what stands for one."""
        builder = lucene("search.BooleanQuery$Builder")()
        should = lucene("search.BooleanClause$Occur").SHOULD
        frequencies = self._statistics.document_frequencies("contents", counts)
        for (name, count), frequency in zip(counts.items(), frequencies, strict=True):
            if frequency:
                builder.add(self._term(name, count, frequency), should)
        return as_type("search.Query", builder.build())

    def _term(self, name: str, count: float, frequency: int) -> Any:
        term = lucene("index.Term")("contents", name)
        states = lucene("index.TermStates").build(self._statistics._searcher, term, True)
        states.accumulateStatistics(frequency - states.docFreq(), 0)
        query = as_type("search.Query", lucene("search.TermQuery")(term, states))
        boost = _boost(count, _idf(frequency, self._live.documents), _idf(frequency, self._lucene.documents))
        return as_type("search.Query", lucene("search.BoostQuery")(query, float(boost)))


def _idf(frequency: int, documents: int) -> np.float32:
    return np.float32(math.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)))


def _boost(count: float, wanted: np.float32, given: np.float32) -> np.float32:
    """Return what makes `given` the `wanted` idf, `count` times, to the last bit where there is such a float."""
    goal = np.float32(count) * wanted
    near = np.float32(goal / given)
    steps = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return min(steps, key=lambda boost: abs(boost * given - goal))
