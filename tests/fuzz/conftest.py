"""Says at the end of a run how much was tried."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIED = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture(autouse=True)
def _tried(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    request.config.stash.setdefault(TRIED, {})[request.module.__name__] = request.module.TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the number of inputs and of command lines."""
    counts = sum(config.stash.get(TRIED, {}).values(), Counter[str]())
    if counts:
        terminalreporter.write_line("fuzzing tried " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
