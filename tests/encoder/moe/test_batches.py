"""Texts in batches: none depends on the others, and a batch is no larger than it may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.encoder.moe.batches import batches
from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.runtime import RuntimeConfig
from tests.helpers.encodings import PRECISIONS, assert_rows_equal, join

if TYPE_CHECKING:
    pass


def assert_batch_does_not_matter(encoder: MoEEncoder, texts: list[str]) -> None:
    """Encode each text alone, all at once, and shuffled among very long neighbours."""
    together = encoder.encode_documents(texts)
    everything = list(range(len(texts)))
    assert_rows_equal(join([encoder.encode_documents([text]) for text in texts]), everything, together, everything)
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    long = ["yeast flour dough bread " * 400] * 4
    crowd = encoder.encode_documents([*long, *(texts[i] for i in order), *long])
    assert_rows_equal(crowd, [4 + i for i in everything], together, order)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_does_not_depend_on_its_batch(tiny_encoder_folder: Path, tiny_texts: list[str], precision: str) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision=precision, tokens_per_batch=300))
    assert_batch_does_not_matter(encoder, [*tiny_texts, "a", "the moon", tiny_texts[0]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_passage_does_not_depend_on_its_batch(
    real_encoder_folder: Path, real_texts: list[str], precision: str
) -> None:
    encoder = MoEEncoder(real_encoder_folder, runtime=RuntimeConfig(precision=precision))
    # Mostly short ones, to be quick, and some that fill the encoder. They make batches from the shortest text alone to
    # full ones, which more texts (RETRIEVER_PASSAGES, at most 200) make no larger.
    count = int(os.environ.get("RETRIEVER_PASSAGES", "30"))
    texts = [text[: 2000 if i % 10 == 0 else 120] for i, text in enumerate(real_texts[:count])]
    assert_batch_does_not_matter(encoder, texts)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["encoder", "lexical"])
def test_queries_do_not_depend_on_their_batch(
    tiny_encoder_folder: Path, tiny_texts: list[str], precision: str, mode: str
) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(precision, 300)).with_query_mode(mode)
    texts = [*(text[:60] for text in tiny_texts), "moon"]
    rows = list(range(len(texts)))
    alone = join([encoder.encode_queries([text]) for text in texts])
    # On several threads, the last bit of a float32 vector may follow from the batch.
    tolerance = 1e-6 if precision == "float32" else 0.0
    assert_rows_equal(alone, rows, encoder.encode_queries(texts), rows, tolerance)


def test_windows_make_no_difference(tiny_encoder_folder: Path, tiny_texts: list[str]) -> None:
    one = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(window=3, tokens_per_batch=1))
    other = MoEEncoder(tiny_encoder_folder)
    rows = list(range(len(tiny_texts)))
    assert_rows_equal(one.encode_documents(tiny_texts), rows, other.encode_documents(tiny_texts), rows)


@given(st.lists(st.integers(0, 60)), st.integers(1, 200))
def test_batches(lengths: list[int], budget: int) -> None:
    found = list(batches(lengths, budget))
    assert sorted(i for batch in found for i in batch) == [i for i, length in enumerate(lengths) if length]
    for batch in found:
        sizes = [lengths[i] for i in batch]
        assert sizes == sorted(sizes)
        assert sum(sizes) <= budget or len(batch) == 1
