"""What minimal pairs are made of: the sentences of a corpus, its facts, entities, abbreviations and inflections.

Words are compared by their first letters, a crude stem: two inflections count as one, and now and then two words do.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from retriever.corpus.sentences import sentences
from retriever.types import Document

__all__ = ["Fact", "Sentence", "Texts", "abbreviations", "entity_spans", "inflection", "stems_of"]

WORD = re.compile(r"[^\W\d_][\w'-]*")
ABBREVIATION = re.compile(r"((?:[\w-]+ ){1,7})\(([A-Z]{2,6})\)")
CAPITALISED = re.compile(r"(?<=[\w,;] )[A-Z][\w-]+(?: [A-Z][\w-]+)*")
STEM = 5
SHORTEST_WORD = 3
SENTENCE_WORDS = range(6, 61)
COMMON = 0.05
"""A word in more than this share of the documents says too little to ask for."""
DETAILS = 2
FILLER = 4


class Sentence(NamedTuple):
    """A sentence and its words: stem -> the word as it is first written there."""

    text: str
    words: dict[str, str]


class Fact(NamedTuple):
    """Two sentences of document number `document` that share the rare stem `subject`; `details` are the answer's."""

    document: int
    subject: str
    details: list[str]
    answer: Sentence
    mention: Sentence

    @property
    def query(self) -> str:
        """Return subject and details, as the answer writes them and in its order."""
        named = {self.subject, *self.details}
        return " ".join(word for stem, word in self.answer.words.items() if stem in named)


class Texts:
    """What the suites draw from: sentences of each document, and in how many documents each stem is."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.sentences = [split_sentences(document.text) for document in documents]
        stems = ({stem for sentence in one for stem in sentence.words} for one in self.sentences)
        self.frequencies = Counter(stem for found in stems for stem in found)
        self.vocabulary = {word for one in self.sentences for sentence in one for word in sentence.words.values()}
        spans = [{span for sentence in one for span in entity_spans(sentence.text)} for one in self.sentences]
        self.entities = Counter(span for found in spans for span in found)
        self.limit = max(COMMON * len(documents), 2)

    def telling(self, sentence: Sentence) -> list[str]:
        """Return the stems of a sentence that are not too common to ask for."""
        return [
            stem
            for stem, word in sentence.words.items()
            if len(word) >= SHORTEST_WORD and self.frequencies[stem] <= self.limit
        ]

    def order(self, rng: random.Random) -> list[int]:
        """Return the numbers of the documents in random order."""
        return rng.sample(range(len(self.sentences)), len(self.sentences))

    def facts(self, number: int, rng: random.Random) -> Iterator[Fact]:
        """Yield the facts of a document, in random order."""
        sentences = rng.sample(self.sentences[number], len(self.sentences[number]))
        for answer in sentences:
            telling = self.telling(answer)
            for mention in sentences:
                shared = [stem for stem in telling if stem in mention.words]
                details = [stem for stem in telling if stem not in mention.words]
                if shared and len(details) >= DETAILS:
                    chosen = rng.sample(details, DETAILS)
                    subject = min(shared, key=lambda stem: (self.frequencies[stem], stem))
                    yield Fact(number, subject, chosen, answer, mention)

    def one_fact_each(self, rng: random.Random) -> Iterator[Fact]:
        """Yield one fact of each document that has any: pairs of one document would not be independent."""
        for number in self.order(rng):
            yield from islice(self.facts(number, rng), 1)

    def filler(self, fact: Fact, rng: random.Random, count: int = FILLER) -> list[str]:
        """Return sentences of other documents without any word of the fact's query."""
        named = {fact.subject, *fact.details}
        found: list[str] = []
        for number in self.order(rng):
            sentences = self.sentences[number]
            if number != fact.document and sentences:
                sentence = rng.choice(sentences)
                if not named & sentence.words.keys():
                    found.append(sentence.text)
            if len(found) == count:
                break
        return found


def _stem(word: str) -> str:
    return word.lower().rstrip("s")[:STEM]


def stems_of(text: str) -> dict[str, str]:
    """Return the stems of a text in its order, each with the word as it is first written there."""
    words: dict[str, str] = {}
    for word in WORD.findall(text):
        words.setdefault(_stem(word), word)
    return words


def split_sentences(text: str) -> list[Sentence]:
    """Return the sentences of a usual length, each once."""
    found = dict.fromkeys(" ".join(text[start:end].split()) for start, end in sentences(text))
    return [Sentence(one, stems_of(one)) for one in found if len(one.split()) in SENTENCE_WORDS]


def entity_spans(sentence: str) -> list[str]:
    """Return the capitalised spans behind the first word, unless most words are capitalised: then they say nothing."""
    capitals = sum(word[0].isupper() for word in WORD.findall(sentence))
    if 2 * capitals > len(sentence.split()):
        return []
    return [span for span in CAPITALISED.findall(sentence) if len(span) > SHORTEST_WORD and not span.isupper()]


def abbreviations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (short, long) of "long form (LF)" whose words begin with its letters (after Schwartz and Hearst 2003)."""
    for found in ABBREVIATION.finditer(text):
        short = found[2]
        words = found[1].split()[-len(short) :]
        if "".join(word[0].upper() for word in words) == short:
            yield short, " ".join(words)


def inflection(word: str, vocabulary: set[str]) -> str | None:
    """Return another form of a word that the corpus knows."""
    endings = (("", "s"), ("", "es"), ("y", "ies"), ("", "ing"), ("", "ed"), ("e", "ing"))
    pairs = (*endings, *((new, old) for old, new in endings))
    forms = (
        word[: len(word) - len(old)] + new for old, new in pairs if word.endswith(old) and len(word) > len(old) + 2
    )
    return next((form for form in forms if form in vocabulary and form != word), None)
