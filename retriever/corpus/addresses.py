"""Files of a corpus by pattern, and in object stores: what fsspec opens (s3://, gs://, https://, memory://, ...)."""

from __future__ import annotations

import re
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retriever.streams import Readable

__all__ = ["RemoteFile", "files_named", "reading", "several"]

ADDRESS = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")
"""s3://bucket/key, or a chain such as zip://*.jsonl::https://host/a.zip."""


class RemoteFile:
    """A file in a store, to be opened for reading as often as is needed; stands for a `Path`, as `Spooled` does."""

    def __init__(self, store: Any, path: str) -> None:
        """Name a file. store: a file system of fsspec."""
        self._store, self._path = store, path
        parts = PurePosixPath(path)
        self.name, self.suffix, self.suffixes = parts.name, parts.suffix, parts.suffixes

    def __str__(self) -> str:
        return str(self._store.unstrip_protocol(self._path))

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Open the file: its blocks are fetched as they are read."""
        return cast("IO[bytes]", self._store.open(self._path, mode))


def several(spec: str | Path) -> bool:
    """Say whether a corpus is named by a pattern or an address, not by the path of one file or folder.

    >>> several("s3://bucket/corpus.jsonl"), several("parts/*.jsonl.gz"), several("corpus.jsonl"), several("hf:name")
    (True, True, False, False)
    """
    text = str(spec)
    return ADDRESS.match(text) is not None or (has_magic(text) and not Path(text).exists())


def files_named(spec: str | Path, folder_files: Sequence[str]) -> list[Readable]:
    """Return the files that a pattern or an address names, sorted by name; ** is for folders of any depth.

    folder_files: of a folder in a store the one of these names that is there, first come first.

    Raises:
        UserError: no file is there, or nothing here can open such an address.
    """
    text = str(spec)
    if ADDRESS.match(text) is None:
        names = sorted(glob(text, recursive=True))  # noqa: PTH207  # a pattern may be absolute
        local: list[Readable] = [Path(name) for name in names if Path(name).is_file()]
        return _some(text, local)
    with reading(text):
        import fsspec

        store, path = fsspec.core.url_to_fs(text)
        found = [path]
        if has_magic(path):
            found = sorted(name for name, about in store.glob(path, detail=True).items() if about["type"] == "file")
        elif store.isdir(path):
            inside = [f"{path.rstrip('/')}/{name}" for name in folder_files]
            found = [name for name in inside if store.exists(name)][:1]
        elif not store.exists(path):
            found = []
        return _some(text, [RemoteFile(store, name) for name in found])


def _some(spec: str, files: list[Readable]) -> list[Readable]:
    if not files:
        raise UserError(f"{spec}: no file is there; give the address of a file, or a pattern such as parts/*.jsonl.gz")
    return files


@contextmanager
def reading(address: object) -> Iterator[None]:
    """Turn whatever a file system of fsspec raises into one line: each raises errors of its own libraries, too."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{address}: {_line(error)}; run pip install for it") from None
    except FileNotFoundError:
        raise UserError(f"{address}: no such file; check the address") from None
    except Exception as error:
        raise UserError(
            f"{address}: cannot be read ({_line(error)}); check the address, the network and the key"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
