"""Queries that are remembered: the same views as encoded anew, few of them, each in its own mode."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from retriever.encoder.moe.encoder import MoEEncoder
from retriever.encoder.moe.recent import RecentQueries
from retriever.encoder.runtime import RuntimeConfig
from retriever.types import Encoded, UserError


def encoded(number: int) -> Encoded:
    return Encoded(np.full((1, 3), number, np.float32), None, np.zeros(1, np.bool_))


def test_the_last_ones_are_kept() -> None:
    recent: RecentQueries[Encoded] = RecentQueries(2)
    asked: list[int] = []

    def encode(number: int) -> Encoded:
        asked.append(number)
        return encoded(number)

    def get(number: int) -> Encoded:
        return recent.get(number, lambda: encode(number))

    for number in (1, 2, 1, 3, 1, 2, 3):
        assert get(number) == encoded(number)
    assert asked == [1, 2, 3, 2, 3]  # 1 was asked for between 2 and 3
    assert len(recent) == 2
    assert len(pickle.loads(pickle.dumps(recent))) == 0


def test_what_a_caller_changes_stays_his() -> None:
    recent: RecentQueries[Encoded] = RecentQueries(2)
    for _ in range(3):
        found = recent.get("a", lambda: encoded(1))
        assert found == encoded(1)
        assert found.dense is not None
        found.dense[:] = 7


def test_none_are_kept_where_none_should_be(tiny_encoder_folder: Path) -> None:
    encoder = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(recent_queries=0))
    encoder.encode_queries(["the moon"])
    assert len(encoder._recent) == 0
    with pytest.raises(UserError, match="recent_queries is -1"):
        RuntimeConfig(recent_queries=-1)


def test_modes_and_views_are_told_apart(tiny_encoder_folder: Path) -> None:
    encoder = MoEEncoder(tiny_encoder_folder)
    fresh = MoEEncoder(tiny_encoder_folder, runtime=RuntimeConfig(recent_queries=0))
    for _ in range(2):
        for mode in ("encoder", "lexical"):
            for dense, sparse in ((True, True), (True, False), (False, True)):
                found = encoder.with_query_mode(mode).encode_queries(["the moon"], dense=dense, sparse=sparse)
                assert found == fresh.with_query_mode(mode).encode_queries(["the moon"], dense=dense, sparse=sparse)
    assert len(encoder._recent) == 6
