"""Which modules of the package are read for examples: those that have one. Importing all takes half a minute."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent / "retriever"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a module of the package that shows no example."""
    if collection_path.suffix != ".py" or PACKAGE not in collection_path.parents:
        return None
    return True if ">>>" not in collection_path.read_text(encoding="utf-8") else None
