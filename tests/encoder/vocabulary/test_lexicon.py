"""Tokens of a text that is read in pieces."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from retriever.encoder.vocabulary.lexicon import Lexicon
from retriever.types import UserError


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


@pytest.mark.parametrize("side", ["documents", "queries"])
def test_terms_of_too_many_passages_are_left_out_and_the_others_weigh_as_before(
    tiny_encoder_folder: Path, side: str
) -> None:
    whole = load_lexicon(tiny_encoder_folder)
    limit = float(np.median(whole.fraction))
    cut = Lexicon(tiny_encoder_folder, limit)
    rng = np.random.default_rng(0)
    counts, expansions = (
        sparse.csr_matrix(rng.poisson(0.1, (6, len(whole.stem))) * scale, dtype=np.float32) for scale in (1, 0.3)
    )
    for added in (None, expansions):
        before, after = (getattr(lexicon, side)(counts, added).toarray() for lexicon in (whole, cut))
        common = whole.fraction > limit
        assert before[:, common].any() and before[:, ~common].any()
        assert not after[:, common].any()
        np.testing.assert_array_equal(after[:, ~common], before[:, ~common])


@pytest.mark.parametrize("limit", [-0.1, 1.5, "few", None, float("nan")])
def test_an_impossible_share_is_refused_in_a_line(tiny_encoder_folder: Path, limit: object) -> None:
    with pytest.raises(UserError, match=r"config.json: max_fraction is .*, allowed are 0 to 1$"):
        Lexicon(tiny_encoder_folder, limit)  # type: ignore[arg-type]
