"""Associations learned from an encoder: which terms its network adds for a word, in texts and for the word alone.

For each token of some texts, the terms whose largest weight it has are what the network adds for it, its own term among
them; the average over all tokens of a stem is a row of the table. Words that are rare in these texts lean on what the
network adds for them alone. No labels are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from retriever.encoder.vocabulary.query_terms import QueryTerms
from retriever.train.experts.vocabulary_experts import LEAST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from retriever.network.model import RetrieverModel
    from retriever.train.experts.vocabulary_experts import Wins

__all__ = ["PER_TERM", "learn_associations", "lone_terms"]

ALONE = 8
"""How many occurrences in texts the word alone counts for."""
PER_TERM = 4
SHARE = 0.5
"""What other terms count for in a query, where a word of the query counts 1: chosen on NFCorpus dev, Cranfield and
CISI, where .6 to 1.0 differ by less than .002 in nDCG@10 of hybrid search. What the network adds to the word's own term
counts in full: it says which words of a query matter."""


def lone_terms(model: RetrieverModel, frame: tuple[int, int]) -> list[list[int]]:
    """Return a text for each stem of the vocabulary that may stand in a query: that term alone, framed."""
    head = model.sparse_head
    stems = (head.allowed & (head.stem == head.stem.new_tensor(range(len(head.stem))))).nonzero().flatten()
    first, last = frame
    return [[first, int(term), last] for term in stems.tolist()]


def learn_associations(
    model: RetrieverModel,
    texts: Iterable[Wins],
    alone: Iterable[Wins],
    *,
    per_term: int = PER_TERM,
    most: int = 0,
) -> QueryTerms:
    """Return the table of what tokens win in texts, and in texts of one term (`lone_terms`).

    per_term: how many other terms go with one, which comes first in its row; most: as in `QueryTerms`.
    """
    stem = model.sparse_head.stem.numpy()
    won, count = _added(stem, texts)
    lone, _ = _added(stem, alone)
    weights = (sparse.diags_array(1 / (ALONE + count)) @ (ALONE * lone + won)).tocsr()
    weights /= float(model.lexical.expansion.detach())
    own = weights.diagonal()
    weights.setdiag(0)
    weights.eliminate_zeros()
    weights.sort_indices()
    terms = np.full((len(stem), 1 + per_term), -1, np.int32)
    values = np.zeros(terms.shape, np.float32)
    terms[:, 0], values[:, 0] = np.where(own > 0, np.arange(len(stem)), -1), own
    for row, (begin, end) in enumerate(zip(weights.indptr, weights.indptr[1:], strict=False)):
        found = np.argsort(-weights.data[begin:end], kind="stable")[:per_term]
        terms[row, 1 : 1 + len(found)] = weights.indices[begin:end][found]
        values[row, 1 : 1 + len(found)] = weights.data[begin:end][found] * np.float32(SHARE)
    return QueryTerms(terms, values, most)


def _added(stem: NDArray[np.int32], parts: Iterable[Wins]) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """Return the sums of what tokens of each stem win of each stem, and how often they occur."""
    size = len(stem)
    count = np.zeros(size)
    found: Sequence[list[NDArray[np.generic]]] = [], [], []
    for part in parts:
        own = stem[part.own.numpy()]
        count += np.bincount(own[own >= 0], minlength=size)
        winner, term = own[part.token.numpy()], part.term.numpy()
        counted = winner >= 0
        arrays = winner[counted], term[counted], part.weight.numpy()[counted] + np.float32(LEAST_WEIGHT)
        for into, array in zip(found, arrays, strict=True):
            into.append(array)
    rows, columns, values = (np.concatenate(arrays) if arrays else np.zeros(0) for arrays in found)
    return sparse.csr_array((values, (rows.astype(int), columns.astype(int))), (size, size)), count
