"""What a stage of a pipeline is, and the stages that there are.

A stage is one class in one file, registered in `retriever.rank`: a frozen dataclass whose fields are its settings, in
a line of text and in YAML alike. The grammar, the command line and the documents ask the registry.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from retriever.ranking import order
from retriever.search.time_limit import current_limit
from retriever.types import ScoredDoc, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retriever.search.steps import Found, SearchAt
    from retriever.types import Ranking, TermMatch

__all__ = ["ON_ERROR", "STAGES", "Budget", "OutOfTimeError", "Stage", "min_max", "on_top", "register"]

ON_ERROR = ("fail", "pass")
"""What a stage that fails or runs out of time gives: an error, or the ranking that it was given."""


class OutOfTimeError(Exception):
    """A stage noticed that its time is over."""


class Budget:
    """The time that a stage has, and that of the whole search; it looks at them between its steps."""

    def __init__(self, milliseconds: float | None = None) -> None:
        self._end = math.inf if milliseconds is None else perf_counter() + milliseconds / 1000

    def check(self) -> None:
        """Raise OutOfTimeError once the time is over, OverdueError where that of the search is."""
        current_limit().check()
        if perf_counter() > self._end:
            raise OutOfTimeError


@dataclass(frozen=True)
class Stage(ABC):
    """One step after the fusion, used by any number of threads at once.

    name: as pipelines call it. cost: what makes it slow, in a few words. loads: whether a setting names a model to be
    loaded, which is not for strangers to choose. budget_ms: its time for one query; it is
    looked at between the stage's steps, so a step is not cut short. on_error: "pass" passes the ranking on as it was
    where the stage fails or runs out of time, and says so.
    """

    name: ClassVar[str]
    cost: ClassVar[str]
    loads: ClassVar[bool] = False

    budget_ms: float | None = field(default=None, kw_only=True)
    on_error: str = field(default="fail", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse settings that nothing can be done with."""
        self.check(self.on_error in ON_ERROR, "on_error", f"one of {', '.join(ON_ERROR)}")
        self.check(self.budget_ms is None or self.budget_ms > 0, "budget_ms", "a number above 0")

    def check(self, fine: bool, setting: str, needed: str) -> None:
        """Raise UserError for a setting that is not as it has to be."""
        if not fine:
            raise UserError(f"{self.name}: {setting} is {getattr(self, setting)!r}; need {needed}")

    @property
    def reads(self) -> int:
        """Return how many of the first hits it reads."""
        return 0

    @abstractmethod
    def run(self, found: Found, at: SearchAt, budget: Budget) -> Found:
        """Return what was found with another ranking, by (score descending, id ascending)."""

    def explain(self, before: Found, after: Found, at: SearchAt, doc_id: str) -> tuple[TermMatch, ...]:
        """Return why a document stands where it stands; by default nothing.

        before: what the stage was given. after: what it made of it.
        """
        return ()

    def __str__(self) -> str:
        """Return the stage as it is written in a line: only what differs from the defaults."""
        given = []
        positional = True
        for setting in sorted(dataclasses.fields(self), key=lambda setting: bool(setting.kw_only)):
            value = getattr(self, setting.name)
            if value == setting.default:
                positional = False
            elif positional and not setting.kw_only:
                given.append(_written(value))
            else:
                given.append(f"{setting.name}={_written(value)}")
        return f"{self.name}({', '.join(given)})" if given else self.name


def _written(value: object) -> str:
    """Return a setting as the grammar reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    text = str(value)
    return f'"{text}"' if any(sign in text for sign in ' ,()=>"') else text


STAGES: dict[str, type[Stage]] = {}
"""The stages by name."""


def register(stage: type[Stage]) -> type[Stage]:
    """Add a stage; raise ValueError for a name that is taken or cannot stand in a line."""
    if not stage.name.replace("-", "").isalnum() or stage.name in STAGES:
        raise ValueError(f"a stage cannot be called {stage.name!r}: taken, or not of letters, digits and dashes alone")
    STAGES[stage.name] = stage
    return stage


def min_max(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores from 0 to 1; all 1 where they are equal.

    >>> min_max({"a": 3.0, "b": 1.0, "c": 2.0})
    {'a': 1.0, 'b': 0.0, 'c': 0.5}
    """
    low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    return {key: (score - low) / (high - low) if high > low else 1.0 for key, score in scores.items()}


def on_top(scores: Mapping[str, float], ranking: Ranking) -> Ranking:
    """Return the documents that have scores by these, and the others of a ranking behind them, in their order.

    The scores of these are shifted to lie below, their differences stay.

    >>> on_top({"b": 0.5, "a": 0.25}, [ScoredDoc("a", 9.0), ScoredDoc("b", 8.0), ScoredDoc("c", 7.0)])[2].doc_id
    'c'
    """
    head, behind = order(scores.items()), [hit for hit in ranking if hit.doc_id not in scores]
    if not head or not behind:
        return [*head, *behind]
    top, floor = behind[0].score, math.nextafter(head[-1].score, -math.inf)
    return [*head, *(ScoredDoc(hit.doc_id, floor + (hit.score - top)) for hit in behind)]
