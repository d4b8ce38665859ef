"""Pictures: where bars, points and lines stand, and that labels neither escape nor cover each other."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.eval.report.svg import Point, Series, difference_bars, line_plot, nice_ticks, scatter_plot


@given(low=st.floats(-1e3, 1e3), span=st.floats(1e-3, 1e6))
def test_ticks_enclose_the_values_at_equal_steps(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * max(abs(low), span) and ticks[-1] >= low + span - 1e-6 * max(abs(low), span)
    steps = [after - before for before, after in pairwise(ticks)]
    assert 1 <= len(steps) <= 9
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)


def test_bars_are_as_high_as_the_differences() -> None:
    picture = difference_bars([-0.5, 1.0, 0.0, 0.25], "a < b", width=100, height=84)
    ElementTree.fromstring(picture)
    up, down = (re.findall(rf'class="{kind}" d="([^"]*)"', picture)[0] for kind in ("up", "down"))
    # The middle is at 42, the largest bar reaches 40 up; the gains come first, sorted.
    assert up == "M0.00 42.0V2.0H25.00V42.0ZM25.00 42.0V32.0H50.00V42.0Z"
    assert down == "M75.00 42.0V62.0H100.00V42.0Z"
    assert 'aria-label="a &lt; b"' in picture
    assert 'class="up"' not in difference_bars([0.0, -0.1], "only losses")


def test_points_stand_on_their_scales() -> None:
    points = [Point("slow", 100.0, 0.4, 1), Point("fast & good", 1.0, 0.5), Point("middle", 10.0, 0.3, 9)]
    tree = ElementTree.fromstring(scatter_plot(points, "ms", "nDCG@10", logarithmic=True))
    circles = {circle[0].text: circle for circle in tree.iter("circle")}
    x = {str(tip).split(":")[0]: float(circle.attrib["cx"]) for tip, circle in circles.items()}
    y = {str(tip).split(":")[0]: float(circle.attrib["cy"]) for tip, circle in circles.items()}
    assert x["middle"] - x["fast & good"] == pytest.approx(x["slow"] - x["middle"], abs=0.2), "equal factors"
    assert y["middle"] - y["slow"] == pytest.approx(y["slow"] - y["fast & good"], abs=0.2)
    assert {circle.attrib["class"] for circle in circles.values()} == {"c0", "c1"}


def test_labels_of_equal_points_do_not_cover_each_other() -> None:
    tree = ElementTree.fromstring(scatter_plot([Point(f"system {n}", 5.0, 0.4) for n in range(6)], "ms", "value"))
    places = sorted(float(text.attrib["y"]) for text in tree.iter("text") if str(text.text).startswith("system"))
    assert len(places) == 6
    assert all(after - before >= 12 for before, after in pairwise(places))


def test_lines_go_through_their_points_and_are_named() -> None:
    series = [Series("<low>", [(0, 0.2), (1, 0.0)]), *(Series(f"s{n}", [(0, 1.0), (1, 0.5)]) for n in range(9))]
    tree = ElementTree.fromstring(line_plot(series, "recall", "precision"))
    lines = {line[0].text: line for line in tree.iter("polyline")}
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in lines["s0"].attrib["points"].split())
    assert x0 < x1 and y0 < y1, "down is more in a picture"
    legend = [text.text for text in tree.iter("text") if text.text in lines]
    assert legend[0] == "s0" and legend[-1] == "<low>", "the highest at the left stands first"
    assert "dashed" in lines["s8"].attrib["class"] and "dashed" not in lines["s6"].attrib["class"]


def test_one_point_and_nothing_but_zeros() -> None:
    for value in (0.0, 1.0):
        tree = ElementTree.fromstring(scatter_plot([Point("only", value, value)], "ms", "value", logarithmic=True))
        assert len(list(tree.iter("circle"))) == 1
    tree = ElementTree.fromstring(line_plot([Series("none", [(0.0, 0.0), (1.0, 0.0)])], "recall", "precision"))
    assert len(list(tree.iter("polyline"))) == 1


def test_many_points_are_numbered_and_named_beside_the_picture() -> None:
    points = [Point(f"system {n}", float(n), n / 20, n) for n in range(12)]
    tree = ElementTree.fromstring(scatter_plot(points, "ms", "value"))
    texts = [str(text.text) for text in tree.iter("text")]
    assert texts.count("1") >= 1 and "1  system 11" in texts and "12  system 0" in texts
