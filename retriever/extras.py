"""Packages that come with an extra: what to say where they are missing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn an import that fails into a UserError that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"the module {error.name} is not installed; run pip install 'hybrid-retriever[{name}]'"
        ) from None
