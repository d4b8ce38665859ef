"""A folder of text files as a corpus: linked folders are followed, and what is passed over is counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from retriever.corpus.formats import Row
from retriever.corpus.left_out import LeftOut, counted
from retriever.types import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TEXT_SUFFIXES", "TextFolder", "read_folder", "text_folder"]

TEXT_SUFFIXES = (".txt", ".md", ".rst")
AGAIN = "linked folders that were read already"


class TextFolder(NamedTuple):
    """The text files below a folder, as sorted relative paths with "/", and what else is there."""

    files: list[str]
    left_out: list[LeftOut]


class _Found(NamedTuple):
    files: list[str]
    passed_over: list[tuple[str, str]]  # kind, path within the folder
    seen: set[tuple[int, int]]  # device and inode of each folder that was read


def text_folder(folder: Path) -> TextFolder:
    """List the text files below a folder.

    Links to files are followed. Links to folders are, too, but each folder is read once: where it really stands, if
    that is below `folder`, else by the first link to it; so links that lead back end.

    Raises:
        UserError: a folder cannot be read.
    """
    found = _Found([], [], set())
    links = [folder]
    while links:
        # A folder's own place comes before the links to it, whatever their names.
        links = sorted(link for start in links for link in _walk(folder, start, found))
    return TextFolder(sorted(found.files), counted(sorted(found.passed_over)))


def _walk(folder: Path, start: Path, found: _Found) -> list[Path]:
    """Add what stands below `start` without going through links; return the linked folders."""
    links = []
    if not _first_visit(start, found):
        found.passed_over.append((AGAIN, _within(folder, start)))
        return []
    for parent, folders, names in os.walk(start, onerror=_refuse_folder):
        here = Path(parent)
        hidden = [name for name in folders if name.startswith(".")]
        found.passed_over.extend(("hidden folders", _within(folder, here / name)) for name in hidden)
        shown = sorted(set(folders) - set(hidden))
        links += [here / name for name in shown if (here / name).is_symlink()]
        real = [name for name in shown if not (here / name).is_symlink()]
        folders[:] = [name for name in real if _first_visit(here / name, found)]
        again = set(real) - set(folders)  # mounted a second time
        found.passed_over.extend((AGAIN, _within(folder, here / name)) for name in again)
        for name in names:
            kind = _kind(here / name)
            if kind:
                found.passed_over.append((kind, _within(folder, here / name)))
            else:
                found.files.append(_within(folder, here / name))
    return links


def _first_visit(path: Path, found: _Found) -> bool:
    try:
        status = path.stat()
    except OSError as error:
        _refuse_folder(error)
    key = status.st_dev, status.st_ino
    new = key not in found.seen
    found.seen.add(key)
    return new


def _within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _kind(path: Path) -> str:
    """Return why a file is no text to index, "" if it is one."""
    if path.name.startswith("."):
        return "hidden files"
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        return f"files of another suffix ({suffix or 'none'})"
    try:
        if not path.exists():
            return "links to nothing"
        return "" if path.is_file() else "pipes, sockets or devices"
    except OSError:  # a link into a folder that is closed to the user: reading it says so
        return ""


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be read ({error.strerror}); make the folder readable or remove it"
    ) from None


def read_folder(folder: Path) -> Iterator[Row]:
    """Yield one row for each text file: `_id` is its path within the folder, `text` all of it."""
    for name in text_folder(folder).files:
        path = folder / name
        try:
            name.encode("utf-8")
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeEncodeError:
            yield Row(ascii(str(path)), None, "the file's name is not UTF-8; rename it")
        except UnicodeDecodeError as error:
            yield Row(str(path), None, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
        except OSError as error:
            yield Row(str(path), None, f"cannot be read ({error.strerror}); make it readable or remove it")
        else:
            yield Row(str(path), {"_id": name, "text": text})
