"""Plots that stand alone: every point where its value says, names harmless, axes over all values."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from fairspec_bench.reporting.svg import EDGES, Axis, Series, axis_for, log_axis, scatter
from fairspec_bench.reporting.tables import markdown_table

SVG = "{http://www.w3.org/2000/svg}"


def by_class(picture: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in picture.iter() if name in e.get("class", "").split()]


def test_points_and_trends_of_a_scatter_lie_where_their_values_say() -> None:
    x, y = Axis("x", 0.0, (0.0, 1.0)), axis_for("y", [1.0])
    series = [Series("a", [(0.25, 0.5)], trend=((0.0, 0.0), (1.0, 1.0))), Series("b", [(1.0, 1.0)], hollow=True)]
    picture = ElementTree.fromstring(scatter("t", "d", x, y, series, joined=[(0.0, 0.0), (1.0, 1.0)], height=420))
    first, second = by_class(picture, "dot")
    width = EDGES[1] - EDGES[0]
    assert float(first.get("cx", "").rstrip("%")) == pytest.approx(EDGES[0] + width / 4, abs=0.01)
    assert float(first.get("cy", "")) == pytest.approx((14 + 374) / 2)
    assert float(second.get("cy", "")) == pytest.approx(14)
    assert [("hollow" in e.get("class", "")) for e in (first, second)] == [False, True]
    (trend,) = by_class(picture, "trend")
    assert [trend.get(end) for end in ("x1", "x2")] == [f"{edge:.2f}%" for edge in EDGES]
    assert len(by_class(picture, "joined")) == 1


def test_names_of_a_scatter_keep_apart_and_are_text() -> None:
    name = "<script>alert(1)</script>\u202e"
    series = [Series(f"{name}{n}", [(0.5, 0.5)]) for n in range(4)]
    text = scatter(name, name, axis_for(name, [1.0]), axis_for(name, [1.0]), series, threshold=(0.5, name))
    picture = ElementTree.fromstring(text)
    assert not list(picture.iter(f"{SVG}script"))
    assert "\u202e" not in text
    labels = [e for e in picture.iter(f"{SVG}text") if e.get("x") == f"{EDGES[1] + 2:g}%"]
    places = sorted(float(e.get("y", "")) for e in labels)
    assert [b - a for a, b in pairwise(places)] == pytest.approx([13, 13, 13])


@pytest.mark.parametrize("values", [[0.0002, 0.4], [1.0], [3e-9, 2e5], [0.05, 0.05], []])
def test_log_axes_hold_their_values(values: list[float]) -> None:
    axis = log_axis("x", values)
    assert len(axis.ticks) >= 2
    for value in values:
        assert axis.low <= value * (1 + 1e-9)
        assert value <= axis.ticks[-1] * (1 + 1e-9)
    assert axis.share(axis.low) == 0
    assert axis.share(axis.ticks[-1]) == 1
    assert axis.share(math_middle(axis)) == pytest.approx(0.5)


def math_middle(axis: Axis) -> float:
    return float((axis.low * axis.ticks[-1]) ** 0.5)


def test_a_markdown_table_keeps_its_cells_apart() -> None:
    assert markdown_table(["a", "b"], [["1", "x|y"], ["<b>", "2"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | x&#124;y |\n| &lt;b&gt; | 2 |"
    )
