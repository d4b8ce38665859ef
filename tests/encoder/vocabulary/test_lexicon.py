"""Tokens of a text that is read in pieces."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.encoder.vocabulary.lexicon import Lexicon

if TYPE_CHECKING:
    pass


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "the",
                    "river",
                    " ",
                    "\n",
                    "\t",
                    "\r\n",
                    ".",
                    "..",
                    '"',
                    "-",
                    "]",
                    "[SEP]",
                    "[MASK]",
                    "a" * 120,
                    "\x1c",
                ]
            ),
            st.text("aehrtTHE09", min_size=15, max_size=110),
            st.sampled_from(["\x1c", "\u0301", "é", "東京", "\u200d", "😀", "\xa0", "\u2028", "İ", "ﬁ", "\ud800"]),
            st.text(max_size=3),
        )
    ).map("".join)
)
def test_a_text_has_the_same_tokens_in_pieces(
    tiny_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    lexicon = load_lexicon(tiny_encoder_folder)
    monkeypatch.setattr("retriever.encoder.vocabulary.lexicon.PIECE", 2)
    whole = lexicon.tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
    assert lexicon.token_starts(text) == [start for start, _ in whole.offsets]


@cache
def load_lexicon(folder: Path) -> Lexicon:
    return Lexicon(folder)
