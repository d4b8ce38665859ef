"""What holds for every ranking: how hits are ordered, which are shown, what is done with ties and with self hits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias, overload

from retriever.types import ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from retriever.types import Document, MetadataValue, Ranking

    Places: TypeAlias = NDArray[np.int64]

__all__ = [
    "RowRanking",
    "Showing",
    "check_top_k",
    "order",
    "order_places",
    "order_scores",
    "separate_ties",
    "without_self",
]

_record = tuple.__new__
"""Makes a named tuple of a tuple, in half the time of its constructor: a query makes a thousand of them."""


def order(scored: Iterable[tuple[str, float]], *, top_k: int | None = None) -> Ranking:
    """Order pairs of id and score by score, highest first, ties by id in code point order; then cut, if at all.

    Raises:
        ValueError: a score is NaN.

    >>> [hit.doc_id for hit in order([("b", 1.0), ("a", 1.0), ("c", 2.0)], top_k=2)]
    ['c', 'a']
    """
    pairs = [(-score, doc_id) for doc_id, score in scored]
    if any(map(math.isnan, map(itemgetter(0), pairs))):
        doc_id = next(doc_id for score, doc_id in pairs if math.isnan(score))
        raise ValueError(f"the score of {doc_id!r} is NaN, need a number")
    pairs.sort()  # as tuples of float and string, which takes half as long as with a key function
    return [_record(ScoredDoc, (doc_id, -score)) for score, doc_id in pairs[:top_k]]


def order_scores(doc_ids: Sequence[str], scores: NDArray[np.float64], *, top_k: int | None = None) -> Ranking:
    """Order ids by their scores (n,) as `order` does; with fewer objects made, of which a search makes thousands.

    >>> import numpy as np
    >>> [hit.doc_id for hit in order_scores(["b", "a", "c"], np.array([1.0, 1.0, 2.0]), top_k=2)]
    ['c', 'a']
    """
    found = order_places(scores, lambda places: [doc_ids[place] for place in places.tolist()], top_k=top_k)
    return [
        _record(ScoredDoc, (doc_ids[place], score))
        for place, score in zip(found.tolist(), scores[found].tolist(), strict=True)
    ]


def order_places(
    scores: NDArray[np.float64], ids: Callable[[Places], Sequence[str]], *, top_k: int | None = None
) -> Places:
    """Return the places of scores (n,) in the order of `order`; then cut, if at all. ids: names places; ties are named.

    Raises:
        ValueError: a score is NaN.
    """
    import numpy as np  # the others are used where NumPy is not loaded yet

    if np.isnan(scores).any():
        raise ValueError(f"the score of {ids(np.flatnonzero(np.isnan(scores))[:1])[0]!r} is NaN, need a number")
    found = np.argsort(-scores, kind="stable")
    ordered = scores[found]
    equal = ordered[1:] == ordered[:-1]
    if equal.any():
        ties = np.flatnonzero(np.concatenate([equal, [False]]) | np.concatenate([[False], equal]))
        tied = found[ties]
        keys = zip((-ordered[ties]).tolist(), ids(tied), tied.tolist(), strict=True)
        found[ties] = [place for _, _, place in sorted(keys)]
    return found[:top_k]


class RowRanking(Sequence[ScoredDoc]):
    """A ranking of documents that have one row each in an index; their ids are read when they are looked at.

    Of three legs with 200 hits each ten documents are shown: to read, compare and hash the other ids takes longer than
    to search for some of them.

    rows: int64 (n,), each once. scores: float64 (n,). ids: gives the ids of rows; of legs of one index it is the same.
    """

    def __init__(self, rows: Places, scores: NDArray[np.float64], ids: Callable[[Places], Sequence[str]]) -> None:
        """Take what is ordered already."""
        self.rows, self.scores, self.ids = rows, scores, ids
        self._listed: Ranking | None = None

    @classmethod
    def ordered(
        cls,
        rows: Places,
        scores: NDArray[np.float64],
        ids: Callable[[Places], Sequence[str]],
        *,
        top_k: int | None = None,
    ) -> RowRanking:
        """Order rows by their scores as `order` does; then cut, if at all."""
        places = order_places(scores, lambda tied: ids(rows[tied]), top_k=top_k)
        return cls(rows[places], scores[places], ids)

    def listed(self) -> Ranking:
        """Return it as a list, made once."""
        if self._listed is None:
            pairs = zip(self.ids(self.rows), self.scores.tolist(), strict=True)
            self._listed = [_record(ScoredDoc, pair) for pair in pairs]
        return self._listed

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ScoredDoc]:
        return iter(self.listed())

    @overload
    def __getitem__(self, place: int) -> ScoredDoc: ...
    @overload
    def __getitem__(self, place: slice) -> RowRanking: ...
    def __getitem__(self, place: int | slice) -> ScoredDoc | RowRanking:
        if isinstance(place, slice):
            rows = self.rows[place]
            return (
                self
                if len(rows) == len(self.rows) and (place.step or 1) == 1
                else RowRanking(rows, self.scores[place], self.ids)
            )
        return self.listed()[place]

    def __eq__(self, other: object) -> bool:
        return self.listed() == (other.listed() if isinstance(other, RowRanking) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.listed())

    def __reduce__(self) -> tuple[type[Ranking], tuple[Ranking]]:
        """Travel as a list: the index stays behind."""
        return list, (self.listed(),)


def without_self(ranking: Ranking, query_id: str, *, exclude: bool = True) -> Ranking:
    """Return a ranking without the document that has the query's own id, for data sets whose queries are documents.

    exclude: False returns the ranking as it is, for data sets that do not ask for this.

    >>> without_self([ScoredDoc("q1", 9.0), ScoredDoc("d1", 5.0)], "q1")
    [ScoredDoc(doc_id='d1', score=5.0)]
    """
    return [hit for hit in ranking if hit.doc_id != query_id] if exclude else ranking


def separate_ties(ranking: Ranking) -> Ranking:
    """Lower tied scores by the least that single precision can tell, so that every tool keeps the order of `ranking`.

    trec_eval sorts by score in single precision and breaks ties by descending id. A system that shows tied documents
    in one order should not be measured in another: Anserini does the same before it writes a run, and only so are its
    published figures met (BM25 on NFCorpus: nDCG@10 0.3206 without, 0.3218 with).

    >>> [hit.score for hit in separate_ties([ScoredDoc("a", 0.5), ScoredDoc("b", 0.5)])]
    [0.5, 0.4999999701976776]
    """
    import numpy as np  # the others are used where NumPy is not loaded yet

    separate = []
    last = math.inf
    scores = np.array([hit.score for hit in ranking], dtype=np.float32)
    for hit, score in zip(ranking, scores.tolist(), strict=True):
        last = score if score < last else float(np.nextafter(np.float32(last), np.float32(-math.inf)))
        separate.append(ScoredDoc(hit.doc_id, last))
    return separate


def check_top_k(top_k: int) -> None:
    """Raise UserError for what is no number of hits, or one below 1."""
    if not hasattr(top_k, "__index__"):  # NumPy's whole numbers have it, 2.0 has not
        raise UserError(f"top_k is {top_k!r}; need a whole number, 1 or more")
    if top_k < 1:
        raise UserError(f"top_k is {top_k}; need 1 or more")


@dataclass(frozen=True)
class Showing:
    """Which hits of a ranking are shown, and what of them, as `Retriever.search` takes it.

    Raises:
        UserError: top_k is below 1, offset below 0, or min_score no number.
    """

    top_k: int
    offset: int = 0
    min_score: float | None = None
    fields: Sequence[str] | None = None
    explain: bool = False
    highlight: bool = False

    def __post_init__(self) -> None:
        check_top_k(self.top_k)
        if self.offset < 0:
            raise UserError(f"offset is {self.offset}; need 0 or more")
        if self.min_score is not None and (isinstance(self.min_score, str) or math.isnan(self.min_score)):
            raise UserError("min_score is not a number; give one, or leave it out")
        if isinstance(self.fields, str):
            raise UserError(f"fields is the text {self.fields!r}; give a list of names, as in [{self.fields!r}]")

    @property
    def end(self) -> int:
        """Return how many hits are needed."""
        return self.offset + self.top_k

    def cut(self, ranking: Ranking) -> Ranking:
        """Return the hits that are shown."""
        shown = ranking[self.offset : self.end]
        return shown if self.min_score is None else [hit for hit in shown if hit.score >= self.min_score]

    def metadata(self, document: Document) -> Mapping[str, MetadataValue]:
        """Return those fields of a document that are shown."""
        if self.fields is None:
            return document.metadata
        return {name: document.metadata[name] for name in self.fields if name in document.metadata}
