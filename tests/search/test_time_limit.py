"""A search whose time is over stops at its next step, whichever that is, and leaves nothing running behind it."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from retriever.indexing.build import build_index
from retriever.rank import Pipeline, Rerank
from retriever.search.fusion.fusion import FusionConfig
from retriever.search.leg import Leg, LegQuery, registered
from retriever.search.retriever import Retriever
from retriever.search.time_limit import OverdueError, current_limit, time_limit
from retriever.types import Query, ScoredDoc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retriever.index.reading.selection import Selection
    from retriever.types import Ranking

LONG, SHORT = 0.2, 0.05
"""Seconds on a clock that stands still unless something slow runs: here nothing else takes time."""
QUERIES = [Query(str(number), "water") for number in range(40)]


class Clock:
    """What the limit looks at."""

    now = 1000.0


class SlowLeg(Leg):
    """Takes `LONG` seconds and finds one document. The clock goes first: others see that while this one is at work."""

    name = "slow"
    begun: list[str]
    ended: list[str]

    def run(self, query: LegQuery, depth: int, selection: Selection | None = None) -> Ranking:
        self.begun.append(query.text)
        Clock.now += LONG
        time.sleep(LONG)
        self.ended.append(query.text)
        return [ScoredDoc("d01", 1.0)]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever.search.time_limit.monotonic", lambda: Clock.now)


@pytest.fixture(scope="module")
def folder(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limit") / "tiny"
    build_index(tiny_corpus, folder, encoder="none")
    return folder


@pytest.fixture
def retriever(folder: Path) -> Iterator[Retriever]:
    SlowLeg.begun, SlowLeg.ended = [], []
    with registered(SlowLeg), Retriever.open(folder) as retriever:
        yield retriever


@contextmanager
def soon(seconds: float = SHORT) -> Iterator[None]:
    with time_limit(Clock.now + seconds):
        yield


def test_it_ends_with_its_block() -> None:
    assert current_limit().ends == math.inf
    with pytest.raises(OverdueError), soon(-1):
        current_limit().check()
    current_limit().check()


def test_nothing_is_begun_too_late(retriever: Retriever) -> None:
    with soon(-1):
        for ask in (
            lambda: retriever.search("water", mode="bm25"),
            lambda: retriever.more_like_this("d01", mode="bm25"),
            lambda: list(retriever.rank(QUERIES, mode="slow")),
            lambda: retriever.facets("topic"),
        ):
            with pytest.raises(OverdueError):
                ask()
    assert not SlowLeg.begun
    assert retriever.search("water", mode="bm25")


def test_a_batch_stops_between_queries_and_waits_for_those_at_work(retriever: Retriever) -> None:
    with pytest.raises(OverdueError), soon():
        list(retriever.rank(QUERIES, mode="slow"))
    assert 0 < len(SlowLeg.begun) < len(QUERIES) / 2
    assert len(SlowLeg.ended) == len(SlowLeg.begun), "no thread reads an index that may be closed"


def test_what_is_shown_is_not_made_too_late(retriever: Retriever) -> None:
    with pytest.raises(OverdueError), soon():
        retriever.search("water", mode="slow", explain=True)
    assert SlowLeg.ended == ["water"]


@pytest.mark.parametrize("on_error", ["fail", "pass"])
def test_stages_stop_between_their_steps(retriever: Retriever, on_error: str) -> None:
    seen: list[int] = []

    def slow(query: str, texts: Sequence[str]) -> list[float]:
        seen.append(len(texts))
        Clock.now += LONG
        return [1.0] * len(texts)

    def never(query: str, texts: Sequence[str]) -> list[float]:
        raise AssertionError("a stage is begun too late")

    stages = (Rerank(slow, on_error=on_error), Rerank(never, on_error=on_error))
    with pytest.raises(OverdueError), soon(LONG / 2):
        retriever.search("water the and of a bread", 20, pipeline=Pipeline("bm25", stages))
    assert len(seen) == 1


def test_without_a_limit_nothing_changes(retriever: Retriever) -> None:
    fusion = FusionConfig(weights={"bm25": 0.5, "slow": 0.5})
    with soon(60):
        limited = retriever.search("water", mode="bm25+slow", fusion=fusion)
    assert limited == retriever.search("water", mode="bm25+slow", fusion=fusion) and len(limited) > 1
