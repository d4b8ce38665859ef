"""What MkDocs does beyond its plug-ins: the examples in the help of commands are shown as code, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mkdocs_click import _docs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AS_WRITTEN = "\b"
"""A line of its own: click leaves the paragraph below it as it is."""


def with_examples(describe: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
    """Return mkdocs-click's function that writes a command's help, with the lines below "Example:" indented as code."""

    def lines(*args: Any, **kwargs: Any) -> Iterator[str]:
        heading = code = False
        for line in describe(*args, **kwargs):
            if line == AS_WRITTEN:
                heading = True
            elif heading:
                yield from (line, "")
                heading, code = False, True
            else:
                code = code and bool(line)
                yield f"    {line.strip()}" if code else line

    return lines


def on_startup(**_: Any) -> None:
    """Put it in the place of mkdocs-click's own, which would join the lines."""
    _docs._make_description = with_examples(_docs._make_description)
