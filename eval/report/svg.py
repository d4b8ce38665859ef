"""Small pictures as inline SVG, drawn in the colours of the page that shows them: bars, points and lines.

Classes instead of colours: "c0" to "c7" are series, "grid" and "axis" lines, "up" and "down" gains and losses.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Point", "Series", "difference_bars", "line_plot", "nice_ticks", "scatter_plot", "whole_file"]

COLOURS = 8
LETTER = 7.0  # mean width of a letter in the pictures, for labels that should not run into each other
LINE = 13.0
PLOT = 350  # width of what the axes enclose
LEGEND = 42  # the mark before a label, and room for wide letters


class Point(NamedTuple):
    """A labelled point; colour is the number of its series."""

    label: str
    x: float
    y: float
    colour: int = 0


class Series(NamedTuple):
    """A labelled line through points (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]


class _Scale(NamedTuple):
    """Maps values of an axis to places of the picture."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value stands."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, about `count` of them.

    >>> nice_ticks(0.31, 0.52)
    [0.3, 0.35, 0.4, 0.45, 0.5, 0.55]
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda one: abs(span / one - count))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first, max(last, first + 1) + 1)]


def difference_bars(differences: Sequence[float], title: str, width: int = 250, height: int = 110) -> str:
    """Return the differences of single queries as bars, the largest gain first, on a scale from -1 to 1."""
    ordered = sorted(differences, reverse=True)
    middle, step = height / 2, width / max(len(ordered), 1)
    paths = {"up": "", "down": ""}
    for place, value in enumerate(ordered):
        if value:
            top = middle - max(-1.0, min(1.0, value)) * (middle - 2)
            paths["up" if value > 0 else "down"] += (
                f"M{place * step:.2f} {middle:.1f}V{top:.1f}H{(place + 1) * step:.2f}V{middle:.1f}Z"
            )
    drawn = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)
    return _svg(width, height, title, drawn + _line("axis", 0, middle, width, middle))


def scatter_plot(points: Sequence[Point], x_label: str, y_label: str, *, logarithmic: bool = False) -> str:
    """Return points with labels that do not cover each other; many points have numbers and a legend, best first."""
    ordered = sorted(points, key=lambda p: (-p.y, p.x))
    numbered = len(ordered) > COLOURS
    left, top, bottom = 52, 16, 42
    right = LEGEND + LETTER * (max(len(p.label) for p in ordered) + 3 * numbered)
    width, height = left + PLOT + right, max(330, 40 + 18 * len(ordered) * numbered)
    y_ticks = nice_ticks(ordered[-1].y, ordered[0].y)
    lowest, highest = min(p.x for p in ordered), max(p.x for p in ordered)
    x_ticks = _powers(lowest, highest) if logarithmic else nice_ticks(min(lowest, 0), highest)
    x = _Scale(x_ticks[0], x_ticks[-1], left, left + PLOT, logarithmic).place
    y = _Scale(y_ticks[0], y_ticks[-1], height - bottom, top).place
    drawn = _axes(x, y, x_ticks, y_ticks, x_label, y_label)
    taken = [_Place(x(p.x) - 6, x(p.x) + 6, y(p.y) + 4) for p in ordered]  # what the circles cover
    for number, point in enumerate(ordered, start=1):
        tag = str(number) if numbered else point.label
        place = _free(_Place(x(point.x) + 8, x(point.x) + 8 + LETTER * len(tag), y(point.y) + 4), taken)
        taken.append(place)
        kind = f"c{point.colour % COLOURS}"
        tip = escape(f"{point.label}: {_number(point.x)}, {point.y:.4f}")
        drawn += (
            f'<circle class="{kind}" cx="{x(point.x):.1f}" cy="{y(point.y):.1f}" r="4.5"><title>{tip}</title></circle>'
            + _text(place.start, place.y, tag, "start", "label" if numbered else "")
        )
        if numbered:
            row = top + 12 + (number - 1) * 18
            drawn += f'<circle class="{kind}" cx="{left + PLOT + 16}" cy="{row - 4}" r="4.5"/>'
            drawn += _text(left + PLOT + 27, row, f"{number}  {point.label}", "start")
    return _svg(width, height, f"{y_label} against {x_label}", drawn)


class _Place(NamedTuple):
    """Where a label stands: from start to end, on the line y."""

    start: float
    end: float
    y: float


def _free(place: _Place, taken: Sequence[_Place]) -> _Place:
    """Return the place nearest below or above, inside the picture, that covers nothing."""
    for shift in sorted(range(int(LINE - place.y), 301), key=abs):
        moved = place._replace(y=place.y + shift)
        if not any(abs(moved.y - o.y) < LINE and moved.start < o.end and o.start < moved.end for o in taken):
            return moved
    return place


def line_plot(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    y_from_zero: bool = True,
    even_steps: bool = False,
) -> str:
    """Return lines with a legend beside them, from the highest at the left to the lowest.

    even_steps: values of x stand at equal distances, whatever they are: for sizes that grow by factors, from 0 on.
    """
    height, left, top, bottom = max(300, 60 + 18 * len(series)), 52, 16, 42
    right = LEGEND + LETTER * max(len(one.label) for one in series)
    width = left + PLOT + right
    values = [y for one in series for _, y in one.points]
    y_ticks = nice_ticks(0.0 if y_from_zero else min(values), max(values))
    xs = [x for one in series for x, _ in one.points]
    x: Callable[[float], float]
    if even_steps:
        x_ticks = sorted(set(xs))
        places = _Scale(0, max(len(x_ticks) - 1, 1), left, left + PLOT)
        x = {value: places.place(place) for place, value in enumerate(x_ticks)}.__getitem__
    else:
        x_ticks = nice_ticks(min(xs), max(xs))
        x = _Scale(x_ticks[0], x_ticks[-1], left, left + PLOT).place
    y = _Scale(y_ticks[0], y_ticks[-1], height - bottom, top).place
    drawn = _axes(x, y, x_ticks, y_ticks, x_label, y_label)
    order = sorted(range(len(series)), key=lambda number: -series[number].points[0][1])
    for row, number in enumerate(order):
        one = series[number]
        style = f'class="line c{number % COLOURS}{" dashed" if number >= COLOURS else ""}"'
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in one.points)
        legend = top + 8 + row * 18
        drawn += (
            f'<polyline {style} points="{points}"><title>{escape(one.label)}</title></polyline>'
            f'<path {style} d="M{width - right + 10:.0f} {legend}h16"/>'
            + _text(width - right + 31, legend + 4, one.label, "start")
        )
    return _svg(width, height, f"{y_label} against {x_label}", drawn)


def whole_file(picture: str, style: str) -> str:
    """Return a picture as an SVG file that stands alone, with the style sheet of the pages that pictures stand in."""
    opening, rest = picture.split(">", 1)
    kind = 'xmlns="http://www.w3.org/2000/svg" style="background:var(--ground)"'
    return f"{opening} {kind}><style>{style}</style>{rest}\n"


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
) -> str:
    drawn = ""
    start, end = x(x_ticks[0]), x(x_ticks[-1])
    low, high = y(y_ticks[0]), y(y_ticks[-1])
    for tick in y_ticks:
        drawn += _line("grid", start, y(tick), end, y(tick))
        drawn += _text(start - 7, y(tick) + 4, _number(tick), "end")
    for tick in x_ticks:
        drawn += _line("grid", x(tick), low, x(tick), high)
        drawn += _text(x(tick), low + 16, _number(tick), "middle")
    drawn += _line("axis", start, low, end, low)
    middle = (low + high) / 2
    drawn += _text((start + end) / 2, low + 34, x_label, "middle", "label")
    return drawn + (
        f'<text class="label" text-anchor="middle" transform="translate(12 {middle:.1f}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )


def _powers(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10, ... around the values."""
    steps = [factor * 10.0**power for power in range(-3, 10) for factor in (1, 2, 5)]
    first = max((step for step in steps if step <= low), default=steps[0])
    last = min((step for step in steps if step >= high and step > first), default=steps[-1])
    return [step for step in steps if first <= step <= last]


def _number(value: float) -> str:
    """Write a number for a reader: 0.35, 12.5, 200,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{escape(title)}">'
        f"{drawn}</svg>"
    )
