"""Minimal pairs of a corpus, scored by each mode of a system.

Each suite's texts are ranked together for each of its queries, so that fusion normalises the scores as it does in a
search. BM25 searches an index of a sample of the corpus and of the texts, so that a word is as rare as in the corpus.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retriever.corpus.corpus import open_corpus
from retriever.encoder.load import NoEncoder
from retriever.eval.pairs.minimal_pairs import MinimalPair, minimal_pairs
from retriever.eval.pairs.scores import BiasScore, bias_score
from retriever.index.reader import FolderReader
from retriever.index.settings import IndexSettings
from retriever.index.writer import FolderWriter
from retriever.ranking import order
from retriever.search.fusion import LEGS, FusionConfig
from retriever.search.modes import HYBRID, Plan, legs_named, restricted
from retriever.types import Document, Ranking, ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.types import Encoder

__all__ = ["Diagnosis", "diagnose", "plans_of"]

BATCH = 256
PREFERRED, OTHER = "preferred", "other"


class Diagnosis(NamedTuple):
    """The scores of each system on each bias, and the pairs that they come from."""

    scores: list[BiasScore]
    pairs: list[MinimalPair]


def diagnose(
    corpus: str | Path,
    encoder: Encoder,
    modes: Sequence[str] | None = None,
    *,
    pairs: int = 100,
    documents: int = 5000,
    seed: int = 0,
    fusion: FusionConfig | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Make at most `pairs` minimal pairs of each bias from the first `documents` of a corpus and score each mode.

    modes: by default each leg that the encoder has, and hybrid. A bias for which the texts hold no pair is left out.

    Raises:
        UserError: a mode that the encoder has not, a bad record, or texts from which no pair can be made.
    """
    plans = plans_of(encoder, modes, fusion)
    legs = [leg for leg in LEGS if any(leg in plan.legs for plan in plans.values())]
    source = open_corpus(corpus)
    sample = []
    for record in islice(source, documents):
        if record.document is None:
            raise UserError(f"{record.source}: {record.problem}")
        sample.append(record.document)
    made = minimal_pairs(sample, pairs, seed)
    if not made:
        raise UserError(
            f"{corpus}: no minimal pair can be made of its {len(sample)} documents; "
            "give a corpus of texts of several sentences"
        )
    suites: dict[str, list[MinimalPair]] = {}
    for pair in made:
        suites.setdefault(pair.bias, []).append(pair)
    name = Path(str(corpus)).resolve().name.split(".")[0]
    scores = []
    with _bm25_index(sample, suites) as reader:
        for bias, suite in _shown(suites, progress):
            found = _rankings(suite, encoder, legs, reader)
            for system, plan in plans.items():
                margins = [_margin(number, plan.fuse(rankings).ranking) for number, rankings in enumerate(found)]
                scores.append(bias_score(name, system, bias, margins))
    return Diagnosis(scores, made)


def plans_of(
    encoder: Encoder, modes: Sequence[str] | None = None, fusion: FusionConfig | None = None
) -> dict[str, Plan]:
    """Return how to score each mode; raise UserError for one that the encoder cannot answer in."""
    fusion = fusion or FusionConfig()
    has = {"bm25": True, "sparse": encoder.identity.vocab_size > 0, "dense": encoder.identity.dense_dim > 0}
    legs = tuple(leg for leg in LEGS if has[leg])
    plans = {}
    for mode in modes or (*legs, *([HYBRID] if len(legs) > 1 else [])):
        named = legs_named(mode) or tuple(leg for leg in legs if fusion.weights.get(leg, 0) > 0)
        if not named or not set(named) <= set(legs):
            raise UserError(
                f"mode {mode!r}: the encoder {encoder.identity.name} has {', '.join(legs)}; "
                "choose among them, or give another encoder"
            )
        plans[mode] = Plan(named, fusion if mode == HYBRID or len(named) == 1 else restricted(fusion, named))
    return plans


@contextmanager
def _bm25_index(sample: Sequence[Document], suites: dict[str, list[MinimalPair]]) -> Iterator[FolderReader]:
    """Give an index of the sample and of the texts of all pairs, for the time that it is needed."""
    with tempfile.TemporaryDirectory(prefix="retriever-diagnose-") as folder:
        path = Path(folder) / "index"
        with FolderWriter.create(path, IndexSettings(NoEncoder.identity)) as writer:
            stream = _numbered(sample, suites)
            while batch := list(islice(stream, BATCH)):
                writer.add(batch, None)
            writer.commit()
        with FolderReader.open(path) as reader:
            yield reader


def _numbered(sample: Sequence[Document], suites: dict[str, list[MinimalPair]]) -> Iterator[Document]:
    for number, document in enumerate(sample):
        yield Document(f"corpus-{number}", document.contents)
    for bias, suite in suites.items():
        for number, pair in enumerate(suite):
            for role, text in ((PREFERRED, pair.preferred), (OTHER, pair.other)):
                yield Document(f"{bias}-{_text_id(role, number)}", text, metadata={"bias": bias})


def _text_id(role: str, number: int) -> str:
    return f"{role}-{number}"


def _shown(suites: dict[str, list[MinimalPair]], progress: bool) -> Iterator[tuple[str, list[MinimalPair]]]:
    from tqdm import tqdm

    yield from tqdm(suites.items(), desc="diagnose", unit=" suites", file=sys.stderr, disable=not progress)


def _rankings(
    suite: Sequence[MinimalPair], encoder: Encoder, legs: Sequence[str], reader: FolderReader
) -> list[dict[str, Ranking]]:
    """Return for each query of a suite each leg's ranking of all its texts."""
    queries = [pair.query for pair in suite]
    roles = {PREFERRED: [pair.preferred for pair in suite], OTHER: [pair.other for pair in suite]}
    ids = [_text_id(role, number) for role, texts in roles.items() for number in range(len(texts))]
    found: dict[str, list[Ranking]] = {}
    if "bm25" in legs:
        bias = suite[0].bias
        selection = reader.select(f'bias = "{bias}"')
        hits = [reader.bm25(query, len(ids), selection) for query in queries]
        found["bm25"] = [[hit._replace(doc_id=hit.doc_id.removeprefix(f"{bias}-")) for hit in one] for one in hits]
    views = {view: view in legs for view in ("dense", "sparse")}
    if any(views.values()):
        asked = encoder.encode_queries(queries, **views)
        texts = encoder.encode_documents([*roles[PREFERRED], *roles[OTHER]], **views)
        if asked.sparse is not None and texts.sparse is not None:
            products = (asked.sparse @ texts.sparse.T).toarray()  # (queries, texts)
            found["sparse"] = [_ranking(ids, row, least=0.0) for row in products]
        if asked.dense is not None and texts.dense is not None:
            found["dense"] = [_ranking(ids, row) for row in asked.dense @ texts.dense.T]
    return [{leg: column[number] for leg, column in found.items()} for number in range(len(suite))]


def _ranking(ids: Sequence[str], scores: np.ndarray, least: float = -np.inf) -> Ranking:
    """Return the texts with a score above `least`, ordered; scores: (texts,)."""
    pairs = zip(ids, scores.tolist(), strict=True)
    return order(ScoredDoc(doc_id, score) for doc_id, score in pairs if score > least)


def _margin(number: int, ranking: Ranking) -> float:
    """Return how far the preferred text stands above the other; one that was not found scores 0."""
    scores = dict(ranking)
    return scores.get(_text_id(PREFERRED, number), 0.0) - scores.get(_text_id(OTHER, number), 0.0)
