"""A small learned model over the rankings of a search: what each list says of a document becomes one score.

Features (H1 of Luan et al., 2005.00181; PIRB): of each list the score from 0 to 1 and the reciprocal rank. A linear
model weighs them; trees of gradient boosting (LambdaMART, Burges 2010) find what no weight can say.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from retriever.rank.stage import min_max
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from retriever.types import Query, Ranking

    Features = NDArray[np.float64]

__all__ = ["DEPTH", "ListModel", "Tree", "features", "find_model", "query_marks", "stored_model"]

DEPTH = 100
"""Hits that are scored."""
LIST_HITS = 200
"""Hits of a list that count: scores are brought to 0 to 1 over them."""
RANK_BASE = 5
KEY = "rescorer"
"""Of the note of a commit."""


def features(lists: Mapping[str, Ranking], names: Sequence[str], ids: Sequence[str]) -> Features:
    """Return (n, 2 * lists): of each list the score of each document, from 0 to 1, and 6 / (5 + rank); 0 outside it.

    >>> from retriever.types import ScoredDoc
    >>> features({"bm25": [ScoredDoc("a", 9.0), ScoredDoc("b", 3.0)]}, ["bm25"], ["b", "a", "c"]).round(3).tolist()
    [[0.0, 0.857], [1.0, 1.0], [0.0, 0.0]]
    """
    columns = []
    for name in names:
        first = lists[name][:LIST_HITS]
        scores = min_max(dict(first))
        ranks = {hit.doc_id: (RANK_BASE + 1) / (RANK_BASE + rank) for rank, hit in enumerate(first, start=1)}
        columns += [[scores.get(doc_id, 0.0) for doc_id in ids], [ranks.get(doc_id, 0.0) for doc_id in ids]]
    return np.array(columns, np.float64).reshape(2 * len(names), len(ids)).T


@dataclass(frozen=True)
class Tree:
    """A regression tree. Inner node i sends a row left where feature[i] <= threshold[i]; ~leaf is a child that ends."""

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    leaves: tuple[float, ...]

    def predict(self, rows: Features) -> Features:
        """Return the leaf of each row, (n,)."""
        leaves = np.array(self.leaves)
        if not self.feature:
            return np.full(len(rows), leaves[0])
        feature, threshold = np.array(self.feature), np.array(self.threshold)
        left, right = np.array(self.left), np.array(self.right)
        nodes = np.zeros(len(rows), np.int64)
        while (nodes >= 0).any():
            inner = np.flatnonzero(nodes >= 0)
            at = nodes[inner]
            goes_left = rows[inner, feature[at]] <= threshold[at]
            nodes[inner] = np.where(goes_left, left[at], right[at])
        found: Features = leaves[~nodes]
        return found


@dataclass(frozen=True)
class ListModel:
    """A model of lists.

    pipeline: the line that gives the lists, to be followed by `rescore`. lists: their names. weights: of the linear
    part, (2 * lists,), none without one. trees: of the other part. Where there are both, the scores of each are brought
    to mean 0 and deviation 1 within a query, and added. seen: `query_marks` of the queries that it was learnt from, so
    that figures on the same queries can be told from honest ones.
    """

    pipeline: str
    lists: tuple[str, ...]
    weights: tuple[float, ...] = ()
    trees: tuple[Tree, ...] = ()
    seen: tuple[str, ...] = ()

    def score(self, rows: Features) -> Features:
        """Return the score of each row of features, (n,)."""
        parts = []
        if self.weights:
            parts.append(rows @ np.array(self.weights))
        if self.trees:
            parts.append(np.sum([tree.predict(rows) for tree in self.trees], axis=0))
        scores: Features = parts[0] if len(parts) == 1 else np.sum([_standard(part) for part in parts], axis=0)
        return scores

    def to_json(self) -> str:
        """Return what `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ListModel:
        """Read a model."""
        values = json.loads(text)
        trees = tuple(Tree(**{name: tuple(part) for name, part in tree.items()}) for tree in values["trees"])
        seen = tuple(values.get("seen", ()))  # of older models nothing is known
        return cls(values["pipeline"], tuple(values["lists"]), tuple(values["weights"]), trees, seen)


def query_marks(queries: Iterable[Query]) -> tuple[str, ...]:
    """Return a short mark of each query's text, ascending: enough to see that two sets of queries overlap.

    >>> from retriever.types import Query
    >>> query_marks([Query("q1", "yeast")]) == query_marks([Query("other", "yeast")])
    True
    """
    return tuple(sorted({sha256(query.text.encode()).hexdigest()[:12] for query in queries}))


def _standard(scores: Features) -> Features:
    deviation = scores.std()
    standard: Features = (scores - scores.mean()) / (deviation if deviation > 0 else 1.0)
    return standard


def stored_model(note: Mapping[str, str]) -> ListModel:
    """Return the model that was stored in the index with this note of its last commit; raise UserError without one."""
    found = find_model(note)
    if found is None:
        raise UserError(
            "rescore: the index has no learned model; make one with `retriever tune ... --model auto --write`"
        )
    return found


def find_model(note: Mapping[str, str]) -> ListModel | None:
    """Return the model that was stored with this note of a commit, None without one."""
    return ListModel.from_json(note[KEY]) if KEY in note else None
