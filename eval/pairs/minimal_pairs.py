"""Minimal pairs made from a corpus's own sentences: one text answers the query, the other only looks as if it did.

The biases are those of Fayyaz et al. 2025 ("Collapse of Dense Retrievers"): brevity, position, literal match,
repetition, and the foil that joins them. There an annotated relation gives the query's subject and the answer; here a
fact stands in for it: a word that two sentences of one document share (the subject), and words that only one of the two
has (the answer). Boolean operators are asked for as in BoolQuestions (Zhang et al. 2024), rare and frequent entities as
in EntityQuestions (Sciavolino et al. 2021), where the other text differs in nothing but the entity.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from retriever.eval.pairs.facts import Fact, Texts, abbreviations, entity_spans, inflection, stems_of
from retriever.types import Document

__all__ = ["SUITES", "MinimalPair", "minimal_pairs"]

AROUND = 2
"""Sentences before and after the one with an entity."""
FREQUENT = 5
"""An entity in so many documents is a frequent one; a rare one is in one."""


class MinimalPair(NamedTuple):
    """A query, the text that answers it, one that a biased system prefers, and the name of that bias."""

    query: str
    preferred: str
    other: str
    bias: str


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
        long_forms = dict(abbreviations(" ".join(sentence.text for sentence in texts.sentences[number])))
        facts = list(texts.facts(number, rng))
        for fact in sorted(facts, key=lambda fact: fact.answer.words[fact.subject] not in long_forms):
            word = fact.answer.words[fact.subject]
            variant = long_forms.get(word) or inflection(word, texts.vocabulary)
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
            found = [span for span in entity_spans(sentence.text) if span in spans]
            details = [stem for stem in texts.telling(sentence) if not any(stem in stems_of(span) for span in found)]
            if not found or not details:
                continue
            entity = rng.choice(found)
            strangers = [span for span in by_size[len(entity.split())] if not _alike(span, entity, passage)]
            if strangers:
                around = _join(*(one.text for one in sentences[max(i - AROUND, 0) : i + AROUND + 1]))
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


def _alike(span: str, entity: str, passage: str) -> bool:
    return bool(stems_of(span).keys() & stems_of(entity).keys()) or span in passage
