"""Lines of a terminal in any script."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.cli.printing.columns import columns, isolated, wrapped
from retriever.cli.printing.render import hit_text
from retriever.types import Hit, TermMatch

JAPANESE = "川沿いの古い家には、かつて多くの家族が住んでいました。道は橋を渡って続いていた。"


def test_wide_characters_take_two_columns() -> None:
    lines = wrapped(JAPANESE, 20)
    assert lines[0] == "川沿いの古い家には、"
    assert all(columns(line) <= 20 and line[0] not in "、。" for line in lines)
    assert "".join(lines) == JAPANESE
    assert wrapped("ABC社のカタログ", 6) == ["ABC社", "のカタ", "ログ"]


def test_words_stay_whole_where_there_are_spaces() -> None:
    assert wrapped("In den alten Häusern am Fluss", 12) == ["In den alten", "Häusern am", "Fluss"]
    assert wrapped("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrapped("हिन्दी भाषा में", 5) == ["हिन्दी", "भाषा", "में"]
    assert wrapped("  ", 5) == wrapped("", 5) == []


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), st.integers(4, 30))
def test_no_line_is_longer_and_nothing_is_lost(text: str, width: int) -> None:
    text = unicodedata.normalize("NFC", text)
    lines = wrapped(text, width)
    assert all(columns(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize("word", ["لقاح", "לחם"])
def test_text_from_right_to_left_does_not_turn_its_numbers(word: str) -> None:
    assert isolated(word) == f"\u2068{word}\u2069"
    hit = Hit(1, "d1", 1.0, word, word, {}, {}, terms=(TermMatch("bm25", word, 1.0, 2.0, 2.0),))
    first, *_, last = hit_text(hit).splitlines()
    assert first == f" 1. 1.0000  d1  \u2068{word}\u2069"
    assert last == f"    bm25 terms: \u2068{word}\u2069 1.00x2.00"
