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

from retriever.corpus import open_corpus
from retriever.encoder import NoEncoder
from retriever.eval.diagnostics import BiasScore, bias_score
from retriever.eval.minimal_pairs import MinimalPair, minimal_pairs
from retriever.fusion import LEGS, FusionConfig, fuse, order
from retriever.index.reader import FolderReader
from retriever.index.settings import IndexSettings
from retriever.index.writer import FolderWriter
from retriever.types import Document, Ranking, ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.types import Encoder

__all__ = ["Diagnosis", "diagnose", "systems_of"]

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

    modes: by default all that the encoder has. A bias for which the texts hold no pair is left out.

    Raises:
        UserError: a mode that the encoder has not, a bad record, or texts from which no pair can be made.
    """
    systems = systems_of(encoder, modes)
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
            legs = _rankings(suite, encoder, [leg for leg in LEGS if leg in systems or "hybrid" in systems], reader)
            for system in systems:
                margins = [_margin(number, ranking) for number, ranking in enumerate(_of(system, legs, fusion))]
                scores.append(bias_score(name, system, bias, margins))
    return Diagnosis(scores, made)


def systems_of(encoder: Encoder, modes: Sequence[str] | None = None) -> list[str]:
    """Return the modes to score; raise UserError for one that the encoder cannot answer in."""
    has = {"bm25": True, "sparse": encoder.identity.vocab_size > 0, "dense": encoder.identity.dense_dim > 0}
    allowed = [leg for leg in LEGS if has[leg]]
    if len(allowed) > 1:
        allowed.append("hybrid")
    wanted = list(dict.fromkeys(modes or allowed))
    unknown = [mode for mode in wanted if mode not in allowed]
    if unknown:
        raise UserError(
            f"mode {', '.join(unknown)!r}: the encoder {encoder.identity.name} has {', '.join(allowed)}; "
            "choose among them, or give another encoder"
        )
    return wanted


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
) -> dict[str, list[Ranking]]:
    """Return each leg's ranking of all texts of a suite, for each of its queries."""
    queries = [pair.query for pair in suite]
    roles = {PREFERRED: [pair.preferred for pair in suite], OTHER: [pair.other for pair in suite]}
    ids = [_text_id(role, number) for role, texts in roles.items() for number in range(len(texts))]
    found: dict[str, list[Ranking]] = {}
    if "bm25" in legs:
        bias = suite[0].bias
        selection = reader.select(f'bias = "{bias}"')
        hits = [reader.bm25(query, len(ids), selection) for query in queries]
        found["bm25"] = [[hit._replace(doc_id=hit.doc_id.removeprefix(f"{bias}-")) for hit in one] for one in hits]
    if encoder.identity.sha256 and {"sparse", "dense"} & set(legs):
        asked, texts = encoder.encode_queries(queries), encoder.encode_documents([*roles[PREFERRED], *roles[OTHER]])
        if asked.sparse is not None and texts.sparse is not None and "sparse" in legs:
            products = (asked.sparse @ texts.sparse.T).toarray()  # (queries, texts)
            found["sparse"] = [_ranking(ids, row, least=0.0) for row in products]
        if asked.dense is not None and texts.dense is not None and "dense" in legs:
            found["dense"] = [_ranking(ids, row) for row in asked.dense @ texts.dense.T]
    return found


def _ranking(ids: Sequence[str], scores: np.ndarray, least: float = -np.inf) -> Ranking:
    """Return the texts with a score above `least`, ordered; scores: (texts,)."""
    pairs = zip(ids, scores.tolist(), strict=True)
    return order(ScoredDoc(doc_id, score) for doc_id, score in pairs if score > least)


def _of(system: str, legs: dict[str, list[Ranking]], fusion: FusionConfig | None) -> list[Ranking]:
    if system != "hybrid":
        return legs[system]
    columns = zip(*legs.values(), strict=True)
    return [fuse(dict(zip(legs, rankings, strict=True)), fusion).ranking for rankings in columns]


def _margin(number: int, ranking: Ranking) -> float:
    """Return how far the preferred text stands above the other; one that was not found scores 0."""
    scores = dict(ranking)
    return scores.get(_text_id(PREFERRED, number), 0.0) - scores.get(_text_id(OTHER, number), 0.0)
