from __future__ import annotations

import re

import pytest

from retriever.eval.pairs.minimal_pairs import SUITES, MinimalPair, minimal_pairs
from retriever.types import Document

ANIMALS = ("otter", "badger", "falcon", "beetle", "salmon", "weasel", "lizard", "magpie")
TOOLS = ("hammer", "chisel", "trowel", "spanner", "pliers", "sickle", "mallet", "gimlet")
COLOURS = ("crimson", "scarlet", "magenta", "emerald", "turquoise", "ochre", "violet", "indigo")
SEASONS = ("winter", "autumn", "august", "monsoon", "harvest", "carnival", "lent", "advent")
PLACES = ("Ravenna", "Coimbra", "Uppsala", "Galway", "Trieste", "Bergen", "Cordoba", "Leuven")


def document(number: int) -> Document:
    """Two sentences about an animal, of which one names a tool and the other a place, and one about nothing."""
    animal, tool, place, colour, season = (names[number] for names in (ANIMALS, TOOLS, PLACES, COLOURS, SEASONS))
    return Document(
        f"d{number}",
        f"In the first part we see how one {animal} was drawn beside a {tool} in {colour} here. "
        f"In the second part we see how two {animal}s were found near {place} in {season} that year. "
        "In the third part we see nothing that was not seen in the first part.",
    )


CORPUS = [document(number) for number in range(8)]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def of(bias: str) -> list[MinimalPair]:
    pairs = [pair for pair in minimal_pairs(CORPUS) if pair.bias == bias]
    assert pairs, bias
    return pairs


def test_same_seed_same_pairs_other_seed_others() -> None:
    assert minimal_pairs(CORPUS) == minimal_pairs(CORPUS, seed=0)
    assert minimal_pairs(CORPUS) != minimal_pairs(CORPUS, seed=1)


def test_the_limit_counts_for_each_suite() -> None:
    counts = [sum(pair.bias == bias for pair in minimal_pairs(CORPUS, limit=3)) for bias in SUITES]
    assert max(counts) == 3 and sum(count == 3 for count in counts) >= 8, counts


@pytest.mark.parametrize("bias", ["answer", "brevity", "position", "repetition", "foil"])
def test_only_the_preferred_text_has_all_words_of_the_query(bias: str) -> None:
    for pair in of(bias):
        asked = words(pair.query)
        assert asked <= words(pair.preferred) and len(asked) == 3
        # The subject is shared; s and no s are one word.
        assert sum(any(word.rstrip("s") == other.rstrip("s") for other in words(pair.other)) for word in asked) == 1


def test_brevity_puts_a_short_text_against_a_long_one_that_begins_with_the_answer() -> None:
    for pair in of("brevity"):
        assert len(pair.other.split()) * 2 < len(pair.preferred.split())
        assert words(pair.query) <= words(re.split(r"(?<=[.])\s", pair.preferred)[0])


def test_position_differs_in_where_the_match_stands_and_not_in_length() -> None:
    for pair in of("position"):
        *filler, answer = re.split(r"(?<=[.])\s", pair.preferred)
        mention, *same = re.split(r"(?<=[.])\s", pair.other)
        assert filler == same and filler and words(pair.query) <= words(answer)
        assert not any(words(pair.query) & words(one) for one in filler) and mention != answer


def test_literal_writes_the_subject_of_the_answer_in_another_form() -> None:
    inflected = [Document("forms", f"Here we see that {'s and '.join(ANIMALS)}s have all been drawn together.")]
    same = [one._replace(text=one.text.replace("two", "one").replace("s were", " was")) for one in CORPUS]
    pairs = [pair for pair in minimal_pairs(same + inflected) if pair.bias == "literal"]
    assert len(pairs) >= 3
    for pair in pairs:
        [subject] = words(pair.query) & words(pair.other)
        assert subject.rstrip("s") in ANIMALS
        other_form = subject[:-1] if subject.endswith("s") else f"{subject}s"
        assert subject not in words(pair.preferred) and other_form in words(pair.preferred)


def test_literal_prefers_what_the_document_abbreviates() -> None:
    text = (
        "The study of deep vein thrombosis (DVT) began in the old hospital with patience. "
        "Later DVT was treated with leeches and camphor by the same people. "
        "Everyone knows that DVT became a matter of long dispute after this."
    )
    pairs = [pair for pair in minimal_pairs([Document("d", text)]) if pair.bias == "literal"]
    assert pairs and "DVT" in pairs[0].query
    assert "deep vein thrombosis" in pairs[0].preferred and "DVT" not in pairs[0].preferred.split()


def test_repetition_repeats_the_subject() -> None:
    for pair in of("repetition"):
        [subject] = [word for word in words(pair.query) if f"{word}, {word}." in pair.other]
        assert subject in words(pair.preferred)


def test_not_prefers_the_text_without_the_word() -> None:
    for pair in of("not"):
        wanted, unwanted = pair.query.lower().split(" but not ")
        assert wanted.rstrip("s") in pair.preferred and wanted in words(pair.other)
        assert unwanted not in words(pair.preferred) and unwanted in words(pair.other)


def test_and_needs_both_and_or_one() -> None:
    for pair in of("and"):
        asked = {word.rstrip("s") for word in pair.query.split(" and ")}
        assert {any(one in word for word in words(pair.other)) for one in asked} == {True, False}
        assert all(any(one in word for word in words(pair.preferred)) for one in asked)
    for pair in of("or"):
        asked = {word.rstrip("s") for word in pair.query.split(" or ")}
        assert sum(one in pair.preferred for one in asked) == 1 and not any(one in pair.other for one in asked)


def test_entity_pairs_differ_in_the_entity_alone() -> None:
    for pair in of("rare-entity"):
        [place] = [place for place in PLACES if place in pair.query]
        [stranger] = [place for place in PLACES if place in pair.other]
        assert place in pair.preferred and stranger != place
        assert pair.other == pair.preferred.replace(place, stranger)


def test_frequent_entities_stand_in_five_documents() -> None:
    shared = [
        Document(f"e{n}", f"We went by {PLACES[n % 2]} with a {TOOLS[n % 8]} and came {n} days late.")
        for n in range(10)
    ]
    pairs = minimal_pairs(shared)
    assert {pair.bias for pair in pairs if pair.bias.endswith("entity")} == {"frequent-entity"}


def test_no_capitals_no_entities_and_no_texts_no_pairs() -> None:
    lower = [document._replace(text=document.text.lower()) for document in CORPUS]
    assert not [pair for pair in minimal_pairs(lower) if pair.bias.endswith("entity")]
    assert minimal_pairs([]) == [] == minimal_pairs([Document("d", ""), Document("e", "One short sentence.")])


def test_no_pair_is_of_equal_texts() -> None:
    assert all(pair.preferred != pair.other for pair in minimal_pairs(CORPUS))
