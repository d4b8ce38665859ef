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

from retriever.corpus.corpus import open_corpus
from retriever.encoder.load import NoEncoder
from retriever.eval.pairs.minimal_pairs import MinimalPair, minimal_pairs
from retriever.eval.pairs.scores import BiasScore, bias_score
from retriever.index.reader import FolderReader
from retriever.index.settings import IndexSettings
from retriever.index.writer import FolderWriter
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.leg import LEGS, Candidates, LegOptions, views_of
from retriever.search.modes import HYBRID, Plan, legs_named, restricted
from retriever.types import Document, Ranking, UserError

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
    with _index_of_texts(sample, suites) as reader:
        for bias, suite in _shown(suites, progress):
            found = _rankings(suite, encoder, legs, reader)
            for system, plan in plans.items():
                margins = [_margin(bias, number, plan.fuse(rankings).ranking) for number, rankings in enumerate(found)]
                scores.append(bias_score(name, system, bias, margins))
    return Diagnosis(scores, made)


def plans_of(
    encoder: Encoder, modes: Sequence[str] | None = None, fusion: FusionConfig | None = None
) -> dict[str, Plan]:
    """Return how to score each mode; raise UserError for one that the encoder cannot answer in."""
    fusion = fusion or FusionConfig()
    legs = tuple(name for name, leg in LEGS.items() if leg.available(encoder.identity))
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
def _index_of_texts(sample: Sequence[Document], suites: dict[str, list[MinimalPair]]) -> Iterator[FolderReader]:
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
                yield Document(_text_id(bias, role, number), text, metadata={"bias": bias})


def _text_id(bias: str, role: str, number: int) -> str:
    return f"{bias}-{role}-{number}"


def _shown(suites: dict[str, list[MinimalPair]], progress: bool) -> Iterator[tuple[str, list[MinimalPair]]]:
    from tqdm import tqdm

    yield from tqdm(suites.items(), desc="diagnose", unit=" suites", file=sys.stderr, disable=not progress)


def _rankings(
    suite: Sequence[MinimalPair], encoder: Encoder, legs: Sequence[str], reader: FolderReader
) -> list[dict[str, Ranking]]:
    """Return for each query of a suite each leg's ranking of all its texts."""
    queries, bias = [pair.query for pair in suite], suite[0].bias
    roles = {PREFERRED: [pair.preferred for pair in suite], OTHER: [pair.other for pair in suite]}
    ids = [_text_id(bias, role, number) for role, texts in roles.items() for number in range(len(texts))]
    needed = views_of(legs)
    views = {view: view in needed for view in ("dense", "sparse")}
    encoded = encoder.encode_queries(queries, **views) if needed else None
    texts = encoder.encode_documents([*roles[PREFERRED], *roles[OTHER]], **views) if needed else None
    candidates = Candidates(ids, texts, reader.select(f'bias = "{bias}"'))
    found = {leg: LEGS[leg](reader, LegOptions()).rank_candidates(queries, encoded, candidates) for leg in legs}
    return [{leg: column[number] for leg, column in found.items()} for number in range(len(suite))]


def _margin(bias: str, number: int, ranking: Ranking) -> float:
    """Return how far the preferred text stands above the other; one that was not found scores 0."""
    scores = dict(ranking)
    return scores.get(_text_id(bias, PREFERRED, number), 0.0) - scores.get(_text_id(bias, OTHER, number), 0.0)
