"""Batches of one topic."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from retriever.train.data.pairs import Example
from retriever.train.data.topics import _vectors, by_topic

TOPICS = ("moon orbit eclipse planet", "bread flour yeast oven", "court law judge verdict", "river fish boat water")


def examples(count: int, seed: int = 0) -> list[Example]:
    """Return examples each of which says half its words about one of four topics."""
    chooser = random.Random(seed)
    found = []
    for number in range(count):
        words = chooser.choice(TOPICS).split()
        noise = [f"word{chooser.randrange(300)}" for _ in range(4)]
        text = " ".join(chooser.sample(words, 3) + noise)
        found.append(Example(f"question {number} {words[0]}", f"{text} {number}", (), None, "made", ""))
    return found


@given(st.integers(0, 70), st.integers(1, 9), st.integers(1, 40), st.integers(0, 5))
def test_a_permutation_of_each_window(count: int, size: int, window: int, seed: int) -> None:
    given_ = examples(count)
    found = list(by_topic(iter(given_), size, window, seed))
    assert len(found) == count
    for start in range(0, count, window):
        assert set(found[start : start + window]) == set(given_[start : start + window])
    assert found == list(by_topic(given_, size, window, seed))


def test_the_seed_decides() -> None:
    given_ = examples(200)
    assert list(by_topic(given_, 8, 100, 0)) != list(by_topic(given_, 8, 100, 1))


def test_memory_holds_one_window() -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield from examples(1, taken)

    stream = by_topic(endless(), 4, 16, 0)  # type: ignore[arg-type]
    for _ in range(17):
        next(stream)
    assert taken == 32


def test_parts_are_alike() -> None:
    """Examples of a batch are nearer to each other than those of a batch as they came."""
    size, given_ = 16, examples(512)

    def likeness(ordered: list[Example]) -> float:
        vectors = dict(zip(given_, _vectors(given_), strict=True))
        total, pairs = 0.0, 0
        for start in range(0, len(ordered), size):
            rows = [vectors[example] for example in ordered[start : start + size]]
            for i, one in enumerate(rows):
                for other in rows[:i]:
                    total += float(one @ other)
                    pairs += 1
        return total / pairs

    assert likeness(list(by_topic(given_, size, 512, 0))) > 1.5 * likeness(given_)


def test_examples_without_words() -> None:
    given_ = [Example("?", "!", (), None, "made", str(number)) for number in range(20)]
    assert sorted(by_topic(given_, 4, 20, 0)) == sorted(given_)
