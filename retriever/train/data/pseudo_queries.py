"""Queries made from the text itself, for passages without real queries (AugTriever, Meng et al. 2023)."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from retriever.corpus.sentences import sentences
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from retriever.corpus.corpus import Corpus
    from retriever.types import Document

__all__ = ["KINDS", "PseudoPair", "PseudoQueryConfig", "pseudo_queries", "salient_phrases"]

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
HEADING = re.compile(
    r"^#{1,6}[ \t]+(?P<hashes>\S.*?)[ \t#]*$|^(?P<underlined>\S.*)\n(?:={3,}|-{3,})[ \t]*$", re.MULTILINE
)
COMMON = (
    "a about after all also an and any are as at be because been before being both but by can could did do does each "
    "for from had has have he her his how i if in into is it its may might more most must no not of on one only or "
    "other our over she should so some such than that the their them then there these they this those through to "
    "under up used was we were what when where which while who will with would you your"
)
FUNCTION_WORDS = frozenset(COMMON.split())
LONGEST_PHRASE = 4
PHRASES = 3
FEWEST_WORDS = 5
"""Of a sentence or a section: what is shorter says too little."""
MOST_WORDS = 40


@dataclass(frozen=True)
class PseudoQueryConfig:
    """How to make queries.

    keep_sentence: how often a sentence that became a query stays in its passage: rarely, so that matching words is not
    enough, but sometimes, so that it is learned, too (the inverse cloze task, Lee et al. 2019). sample: documents that
    the weights of words are counted on.
    """

    keep_sentence: float = 0.1
    sample: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be done before anything is read."""
        if not 0 <= self.keep_sentence <= 1 or self.sample < 1:
            raise UserError(f"keep_sentence {self.keep_sentence}, sample {self.sample}: need 0 to 1, and 1 or more")


class PseudoPair(NamedTuple):
    """A made query and its passage; `kind` says how it was made, `document` is the id of the document."""

    query: str
    positive: str
    document: str
    kind: str


class _Text(NamedTuple):
    """What queries are made from: a document, chance that depends on it alone, and the weights of words."""

    document: Document
    chance: random.Random
    keep_sentence: float
    weights: Mapping[str, float]


def pseudo_queries(corpus: Corpus, config: PseudoQueryConfig | None = None) -> Iterator[PseudoPair]:
    """Yield made queries with their passages, up to one of each kind for a document (headings: one for each section).

    The corpus is read twice, a document at a time; the same corpus and settings give the same queries.

    Raises:
        UserError: a record cannot be read.
    """
    config = config or PseudoQueryConfig()
    weights = _word_weights(corpus, config)
    for document in _documents(corpus):
        chance = random.Random(f"{config.seed}\n{document.doc_id}")
        text = _Text(document, chance, config.keep_sentence, weights)
        for kind, make in KINDS.items():
            for query, positive in make(text):
                yield PseudoPair(query, positive, document.doc_id, kind)


def _documents(corpus: Corpus) -> Iterator[Document]:
    for source, document, problem in corpus:
        if document is None:
            raise UserError(f"{source}: {problem}")
        if document.text.strip():
            yield document


def _word_weights(corpus: Corpus, config: PseudoQueryConfig) -> dict[str, float]:
    """Return the inverse document frequency of each word of a random sample; "" has that of all other words."""
    chance = random.Random(f"{config.seed}/sample")
    sample: list[str] = []
    for number, document in enumerate(_documents(corpus)):
        if number < config.sample:
            sample.append(document.text)
        elif (place := chance.randrange(number + 1)) < config.sample:
            sample[place] = document.text
    frequencies = Counter(word for text in sample for word in {word.lower() for word in WORD.findall(text)})
    frequencies[""] = 0
    return {word: math.log(1 + len(sample) / (1 + frequency)) for word, frequency in frequencies.items()}


class _Made(NamedTuple):
    query: str
    positive: str


def _title(text: _Text) -> Iterator[_Made]:
    if text.document.title.strip():
        yield _Made(_one_line(text.document.title), text.document.text)


def _headings(text: _Text) -> Iterator[_Made]:
    """Yield each heading (Markdown), behind the title of the document, with its section."""
    body, title = text.document.text, _one_line(text.document.title)
    found = list(HEADING.finditer(body))
    for place, heading in enumerate(found, start=1):
        end = found[place].start() if place < len(found) else len(body)
        name = _one_line(heading["hashes"] or heading["underlined"])
        section = body[heading.end() : end].strip()
        if len(WORD.findall(section)) >= FEWEST_WORDS:
            yield _Made(name if name == title else f"{title} {name}".strip(), section)


def _phrases(text: _Text) -> Iterator[_Made]:
    phrases = salient_phrases(text.document.text, text.weights)
    if phrases and len(WORD.findall(text.document.text)) >= 2 * FEWEST_WORDS:
        yield _Made(" ".join(phrases), text.document.text)


def salient_phrases(text: str, weights: Mapping[str, float]) -> list[str]:
    """Return the three phrases with the highest sum of tf-idf, in the order of the text.

    A phrase is a run of up to four words without punctuation and function words between them (RAKE, Rose et al. 2010);
    a phrase with a word of a better one is left out. weights: idf of each word, that of unknown words under "".
    """
    counts = Counter(word.lower() for word in WORD.findall(text))
    scores: dict[tuple[str, ...], float] = {}
    for phrase in _runs(text):
        scores[phrase] = sum(counts[word] * weights.get(word, weights[""]) for word in phrase)
    best: list[tuple[str, ...]] = []
    for phrase in sorted(scores, key=lambda phrase: (-scores[phrase], phrase)):
        if len(best) < PHRASES and not any(set(phrase) & set(other) for other in best):
            best.append(phrase)
    return [" ".join(phrase) for phrase in scores if phrase in best]


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    run: list[str] = []
    end = 0
    for match in WORD.finditer(text):
        word = match[0].lower()
        if run and (text[end : match.start()].strip() or word in FUNCTION_WORDS or len(run) == LONGEST_PHRASE):
            yield tuple(run)
            run = []
        if word not in FUNCTION_WORDS:
            run.append(word)
        end = match.end()
    if run:
        yield tuple(run)


def _sentence(text: _Text) -> Iterator[_Made]:
    """Yield one sentence, drawn from those of fair length, with the rest of its passage, or with all of it."""
    body = text.document.text
    spans = sentences(body)
    fair = [span for span in spans if FEWEST_WORDS <= len(WORD.findall(body[slice(*span)])) <= MOST_WORDS]
    if len(spans) < 2 or not fair:
        return
    start, end = text.chance.choice(fair)
    rest = f"{body[:start]}{body[end:]}".strip()
    kept = text.chance.random() < text.keep_sentence
    if kept or len(WORD.findall(rest)) >= FEWEST_WORDS:
        yield _Made(_one_line(body[start:end]), body if kept else rest)


def _one_line(text: str) -> str:
    return " ".join(text.split())


KINDS: dict[str, Callable[[_Text], Iterator[_Made]]] = {
    "title": _title,
    "heading": _headings,
    "phrase": _phrases,
    "sentence": _sentence,
}
