"""What a corpus leaves out without its being at fault: counted and named, so that nothing is missed in silence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LeftOut", "counted", "left_out_text"]

KINDS = 8
"""How many kinds people read about: a folder such as /usr/share/doc leaves out a hundred."""


class LeftOut(NamedTuple):
    """So many things of one kind, such as "files of another suffix (.pdf)", and the first of them."""

    what: str
    number: int
    first: str


def counted(found: Iterable[tuple[str, str]]) -> list[LeftOut]:
    """Count pairs of kind and name; kinds in the order in which they come.

    >>> counted([("hidden files", ".a"), ("links to nothing", "b"), ("hidden files", ".c")])
    [LeftOut(what='hidden files', number=2, first='.a'), LeftOut(what='links to nothing', number=1, first='b')]
    """
    pairs = list(found)
    counts = Counter(kind for kind, _ in pairs)
    first = dict(reversed(pairs))
    return [LeftOut(kind, count, _printable(first[kind])) for kind, count in counts.items()]


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()  # a name on disk need not be UTF-8


def left_out_text(left_out: Sequence[LeftOut]) -> str:
    """Return one line for people, "" where nothing was left out; of many kinds the most frequent ones.

    >>> left_out_text([LeftOut("hidden files", 2, ".a"), LeftOut("links to nothing", 1, "b")])
    'left out: 2 hidden files (the first: .a), 1 links to nothing (b)'
    >>> left_out_text([LeftOut(f"files of kind {n}", n, "f") for n in range(1, 11)]).partition("3 files")[2]
    ' of kind 3 (the first: f), 3 more of 2 other kinds'
    """
    kinds = sorted(left_out, key=lambda kind: -kind.number) if len(left_out) > KINDS else left_out
    parts = [f"{number} {what} ({'the first: ' if number > 1 else ''}{first})" for what, number, first in kinds[:KINDS]]
    if more := kinds[KINDS:]:
        parts.append(f"{sum(kind.number for kind in more)} more of {len(more)} other kinds")
    return f"left out: {', '.join(parts)}" if parts else ""
