"""Minimal pairs made from a corpus's own sentences: one text answers the query, the other only looks as if it did.

The biases are those of Fayyaz et al. 2025 ("Collapse of Dense Retrievers"): brevity, position, literal match,
repetition, and the foil that joins them. There an annotated relation gives the query's subject and the answer; here a
fact stands in for it: a word that two sentences of one document share (the subject), and words that only one of the two
has (the answer). Boolean operators are asked for as in BoolQuestions (Zhang et al. 2024), rare and frequent entities as
in EntityQuestions (Sciavolino et al. 2021), where the other text differs in nothing but the entity.

Words are compared by their first letters, a crude stem: two inflections count as one, and now and then two words do.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from retriever.types import Document

__all__ = ["SUITES", "MinimalPair", "minimal_pairs"]

WORD = re.compile(r"[^\W\d_][\w'-]*")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
ABBREVIATION = re.compile(r"((?:[\w-]+ ){1,7})\(([A-Z]{2,6})\)")
CAPITALISED = re.compile(r"(?<=[\w,;] )[A-Z][\w-]+(?: [A-Z][\w-]+)*")
STEM = 5
SHORTEST_WORD = 3
SENTENCE_WORDS = range(6, 61)
COMMON = 0.05
"""A word in more than this share of the documents says too little to ask for."""
DETAILS = 2
FILLER = 4
FREQUENT = 5
"""An entity in so many documents is a frequent one; a rare one is in one."""


class MinimalPair(NamedTuple):
    """A query, the text that answers it, one that a biased system prefers, and the name of that bias."""

    query: str
    preferred: str
    other: str
    bias: str


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
        asked = {self.subject, *self.details}
        return " ".join(word for stem, word in self.answer.words.items() if stem in asked)


class Texts:
    """What the suites draw from: sentences of each document, and in how many documents each stem is."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.sentences = [_sentences(document.text) for document in documents]
        stems = ({stem for sentence in one for stem in sentence.words} for one in self.sentences)
        self.frequencies = Counter(stem for found in stems for stem in found)
        self.vocabulary = {word for one in self.sentences for sentence in one for word in sentence.words.values()}
        spans = [{span for sentence in one for span in _entities(sentence.text)} for one in self.sentences]
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
        asked = {fact.subject, *fact.details}
        found: list[str] = []
        for number in self.order(rng):
            sentences = self.sentences[number]
            if number != fact.document and sentences:
                sentence = rng.choice(sentences)
                if not asked & sentence.words.keys():
                    found.append(sentence.text)
            if len(found) == count:
                break
        return found


def minimal_pairs(documents: Sequence[Document], limit: int = 100, seed: int = 0) -> list[MinimalPair]:
    """Return at most `limit` pairs of each suite, the same for the same documents and seed.

    A suite has fewer, or none, where the texts do not hold what it needs, such as capitals for entities.
    """
    texts = Texts(documents)
    return [
        pair for bias, suite in SUITES.items() for pair in islice(suite(texts, random.Random(f"{seed} {bias}")), limit)
    ]


def _answer(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        yield MinimalPair(fact.query, fact.answer.text, fact.mention.text, "answer")


def _brevity(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        long = _join(fact.answer.text, *texts.filler(fact, rng))
        yield MinimalPair(fact.query, long, fact.mention.text, "brevity")


def _position(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        filler = texts.filler(fact, rng)
        yield MinimalPair(fact.query, _join(*filler, fact.answer.text), _join(fact.mention.text, *filler), "position")


def _literal(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for number in texts.order(rng):
        long_forms = dict(_abbreviations(" ".join(sentence.text for sentence in texts.sentences[number])))
        facts = list(texts.facts(number, rng))
        for fact in sorted(facts, key=lambda fact: fact.answer.words[fact.subject] not in long_forms):
            word = fact.answer.words[fact.subject]
            variant = long_forms.get(word) or _inflection(word, texts.vocabulary)
            literal = re.search(rf"\b{re.escape(word)}\b", fact.mention.text)
            if variant and literal and variant.lower() not in fact.answer.text.lower():
                renamed = re.sub(rf"\b{re.escape(word)}\b", variant, fact.answer.text)
                yield MinimalPair(fact.query, renamed, fact.mention.text, "literal")
                break


def _repetition(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        yield MinimalPair(fact.query, fact.answer.text, _repeated(fact), "repetition")


def _foil(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        filler = texts.filler(fact, rng)
        yield MinimalPair(fact.query, _join(*filler, fact.answer.text, *filler), _repeated(fact), "foil")


def _not(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for fact in texts.one_fact_each(rng):
        subject, unwanted = fact.answer.words[fact.subject], fact.answer.words[fact.details[0]]
        yield MinimalPair(f"{subject} but not {unwanted}", fact.mention.text, fact.answer.text, "not")


def _and(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for first, second in _unrelated(texts, rng):
        yield MinimalPair(
            f"{first.answer.words[first.subject]} and {second.answer.words[second.subject]}",
            _join(first.answer.text, second.answer.text),
            _join(first.answer.text, first.mention.text),
            "and",
        )


def _or(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    for first, second in _unrelated(texts, rng):
        subjects = {first.subject, second.subject}
        beside = [one.text for one in texts.sentences[first.document] if not subjects & one.words.keys()]
        if beside:
            query = f"{first.answer.words[first.subject]} or {second.answer.words[second.subject]}"
            yield MinimalPair(query, second.answer.text, rng.choice(beside), "or")


def _rare_entity(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    return _entity(texts, rng, {span for span, count in texts.entities.items() if count == 1}, "rare-entity")


def _frequent_entity(texts: Texts, rng: random.Random) -> Iterator[MinimalPair]:
    frequent = {span for span, count in texts.entities.items() if count >= FREQUENT}
    return _entity(texts, rng, frequent, "frequent-entity")


SUITES: dict[str, Callable[[Texts, random.Random], Iterator[MinimalPair]]] = {
    "answer": _answer,
    "brevity": _brevity,
    "position": _position,
    "literal": _literal,
    "repetition": _repetition,
    "foil": _foil,
    "not": _not,
    "and": _and,
    "or": _or,
    "rare-entity": _rare_entity,
    "frequent-entity": _frequent_entity,
}


def _entity(texts: Texts, rng: random.Random, spans: set[str], bias: str) -> Iterator[MinimalPair]:
    """Yield passages and the same with the entity replaced, wherever it stands, by one of the same rarity and size."""
    by_size: dict[int, list[str]] = {}
    for span in sorted(spans):
        by_size.setdefault(len(span.split()), []).append(span)
    for number in texts.order(rng):
        sentences = texts.sentences[number]
        passage = _join(*(sentence.text for sentence in sentences))
        for i, sentence in enumerate(sentences):
            found = [span for span in _entities(sentence.text) if span in spans]
            details = [stem for stem in texts.telling(sentence) if not any(stem in _stems(span) for span in found)]
            if not found or not details:
                continue
            entity = rng.choice(found)
            strangers = [span for span in by_size[len(entity.split())] if not _alike(span, entity, passage)]
            if strangers:
                around = _join(*(one.text for one in sentences[max(i - FILLER // 2, 0) : i + FILLER // 2 + 1]))
                stranger = rng.choice(strangers)
                replaced = re.sub(rf"\b{re.escape(entity)}\b", stranger, around)
                yield MinimalPair(f"{entity} {sentence.words[rng.choice(details)]}", around, replaced, bias)
                break


def _unrelated(texts: Texts, rng: random.Random) -> Iterator[tuple[Fact, Fact]]:
    """Yield facts of two documents, neither of which mentions the other's subject."""
    facts = texts.one_fact_each(rng)
    for first, second in zip(facts, facts, strict=False):
        sentences = (first.answer, first.mention)
        if first.subject not in second.answer.words and not any(second.subject in one.words for one in sentences):
            yield first, second


def _repeated(fact: Fact) -> str:
    subject = fact.answer.words[fact.subject]
    return _join(f"{subject}, {subject}.", fact.mention.text)


def _join(*sentences: str) -> str:
    return " ".join(sentences)


def _stem(word: str) -> str:
    return word.lower().rstrip("s")[:STEM]


def _stems(text: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for word in WORD.findall(text):
        words.setdefault(_stem(word), word)
    return words


def _sentences(text: str) -> list[Sentence]:
    """Return the sentences of a usual length, each once."""
    parts = dict.fromkeys(" ".join(part.split()) for part in SENTENCE_END.split(text))
    return [Sentence(part, _stems(part)) for part in parts if len(part.split()) in SENTENCE_WORDS]


def _entities(sentence: str) -> list[str]:
    """Return the capitalised spans behind the first word, unless most words are capitalised: then they say nothing."""
    capitals = sum(word[0].isupper() for word in WORD.findall(sentence))
    if 2 * capitals > len(sentence.split()):
        return []
    return [span for span in CAPITALISED.findall(sentence) if len(span) > SHORTEST_WORD and not span.isupper()]


def _alike(span: str, entity: str, passage: str) -> bool:
    return bool(_stems(span).keys() & _stems(entity).keys()) or span in passage


def _abbreviations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (short, long) of "long form (LF)" whose words begin with its letters (after Schwartz and Hearst 2003)."""
    for found in ABBREVIATION.finditer(text):
        short = found[2]
        words = found[1].split()[-len(short) :]
        if "".join(word[0].upper() for word in words) == short:
            yield short, " ".join(words)


def _inflection(word: str, vocabulary: set[str]) -> str | None:
    """Return another form of a word that the corpus knows."""
    endings = (("", "s"), ("", "es"), ("y", "ies"), ("", "ing"), ("", "ed"), ("e", "ing"))
    pairs = (*endings, *((new, old) for old, new in endings))
    forms = (
        word[: len(word) - len(old)] + new for old, new in pairs if word.endswith(old) and len(word) > len(old) + 2
    )
    return next((form for form in forms if form in vocabulary and form != word), None)
