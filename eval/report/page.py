"""The page around a report, and the few elements that it is made of; report.css has its style, for light and dark."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NOTHING", "STYLE", "Cell", "Row", "Section", "figure", "html_table", "page", "paragraph"]

STYLE = Path(__file__).with_name("report.css")
NOTHING = "\u2013"
"""Stands where there is no figure."""
MARKS = {"+": '<span class="mark up">▲</span>', "-": '<span class="mark down">▼</span>'}
NO_MARK = '<span class="mark"></span>'


class Cell(NamedTuple):
    """A cell of a table: its text, classes of the style, the text that appears under the pointer, a mark behind it."""

    text: str
    kind: str = ""
    tip: str = ""
    mark: str = ""


Row: TypeAlias = "Sequence[Cell | str]"
"""The cells of one row of a table."""


class Section(NamedTuple):
    """A part of the page with a heading that the contents link to; body is HTML."""

    anchor: str
    heading: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section], *, style: str = "") -> str:
    """Return a whole HTML document that needs no other file and no script; style: CSS beyond that of all reports."""
    links = "".join(f'<a href="#{section.anchor}">{escape(section.heading)}</a>' for section in sections)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>{section.body}</section>\n'
        for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{STYLE.read_text(encoding='utf-8')}{style}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1><p class="soft">{escape(subtitle)}</p><nav>{links}</nav></header>'
        f"\n<main>{body}</main></body></html>\n"
    )


def html_table(header: Sequence[str], rows: Sequence[Row], caption: str = "") -> str:
    """Return a table; its first column and those of the kind "text" stand to the left, figures to the right."""
    cells = [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    marked = [any(cell.mark for cell in column) for column in zip(*cells, strict=True)] or [False] * len(header)
    texts = [any("text" in cell.kind for cell in column) for column in zip(*cells, strict=True)] or marked
    head = "".join(
        f"<th{_kind('text') if text else ''}>{escape(name)}{NO_MARK if mark else ''}</th>"
        for name, text, mark in zip(header, texts, marked, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(_cell(cell, mark) for cell, mark in zip(row, marked, strict=True))}</tr>" for row in cells
    )
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(picture: str, name: str, text: str = "") -> str:
    """Return a picture over its name and a line of text."""
    return f"<figure>{picture}<figcaption><b>{escape(name)}</b> {escape(text)}</figcaption></figure>"


def paragraph(text: str, kind: str = "") -> str:
    """Return plain text as a paragraph."""
    return f"<p{_kind(kind)}>{escape(text)}</p>"


def _cell(cell: Cell, marked: bool) -> str:
    tip = f' title="{escape(cell.tip)}"' if cell.tip else ""
    mark = MARKS.get(cell.mark, NO_MARK) if marked else ""
    return f"<td{_kind(cell.kind)}{tip}>{escape(cell.text)}{mark}</td>"


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
