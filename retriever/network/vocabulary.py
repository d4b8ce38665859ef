"""What the terms of a vocabulary say before any training: which may have weights, their stems, how frequent they are.

Vocabularies list their terms by falling frequency. In WordPiece's a word begins without a sign and goes on with "##";
in SentencePiece's it begins with "\u2581", in byte-level ones with "\u0120", and words of several languages, with and
without capitals, stand side by side.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import Tensor

__all__ = ["allowed", "marks_beginnings", "stems", "term_prior", "zipf_fractions"]

BEGINNINGS = ("\u2581", "\u0120")
GOES_ON = "##"


def marks_beginnings(vocabulary: list[str]) -> bool:
    """Say whether words begin with a sign, as in vocabularies of SentencePiece, rather than go on with one."""
    begin, go_on = (sum(term.startswith(sign) for term in vocabulary) for sign in (BEGINNINGS, GOES_ON))
    return begin > go_on


def allowed(vocabulary: list[str], special: Collection[int]) -> Tensor:
    """Return bool (vocab,): False for special and unused terms, and for the sign of a beginning alone."""
    silent = [term.startswith("[unused") or term in BEGINNINGS for term in vocabulary]
    return torch.tensor([not skip and index not in special for index, skip in enumerate(silent)])


def term_prior(vocabulary: list[str]) -> Tensor:
    """Return a guess (vocab,) at inverse document frequency, mean 1, from the order of a vocabulary alone."""
    prior = torch.log(_ranks(vocabulary) + 10)
    return prior / prior.mean()


def stems(vocabulary: list[str]) -> list[int]:
    """Return for each term the first one of the same stem.

    WordPiece: of whole words of letters the stem is Porter's (1980), other terms stand alone. Where beginnings are
    marked, terms that differ in capitals alone are one: by words alone queries have nDCG@10 .945 so on average of
    XQuAD's twelve languages, .943 without, and Porter's stems help English alone.
    """
    if marks_beginnings(vocabulary):
        same: dict[str, int] = {}
        return [same.setdefault(term.lower(), i) for i, term in enumerate(vocabulary)]
    import snowballstemmer  # type: ignore[import-untyped]

    stemmer = snowballstemmer.stemmer("porter")
    first: dict[str, int] = {}
    words = {i: term for i, term in enumerate(vocabulary) if re.fullmatch("[a-z]{3,}", term)}
    return [first.setdefault(stemmer.stemWord(words[i]), i) if i in words else i for i in range(len(vocabulary))]


def zipf_fractions(vocabulary: list[str]) -> Tensor:
    """Return a guess (vocab,) at the share of passages with each term, from the order of the vocabulary alone."""
    return (12 / (_ranks(vocabulary) + 12)).clamp_max(0.9)


def _ranks(vocabulary: list[str]) -> Tensor:
    """Return (vocab,) ranks by falling frequency, from 1.

    By Zipf's law the frequency falls as 1 / rank. In BERT's vocabularies characters stand before the words, in no
    order, and get the rank of a fairly common one.
    """
    first = vocabulary.index("the") if "the" in vocabulary and not marks_beginnings(vocabulary) else 0
    ranks = (torch.arange(len(vocabulary), dtype=torch.float32) - first).clamp_min(1)
    ranks[:first] = 190
    return ranks
