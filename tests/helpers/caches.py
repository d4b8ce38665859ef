"""Cache folders of a test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retriever.files import cache_root

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cache_with_kernels"]


def cache_with_kernels(folder: Path) -> Path:
    """Make a cache folder, empty but for the kernels, which are everyone's: compiling them takes a quarter minute."""
    kernels = cache_root() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    (folder / "retriever").mkdir(parents=True)
    (folder / "retriever" / "kernels").symlink_to(kernels)
    return folder
