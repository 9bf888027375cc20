"""The pictures: every dot where its value says, the worst told by its shape, words harmless."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fairspec_bench.records import Estimate
from fairspec_bench.site.plots import (
    Axis,
    Curve,
    Mark,
    Strip,
    axis_for,
    curve_plot,
    inert,
    interval_plot,
    shorten,
    strip_plot,
)

UNIT = Axis("acceptance", 0.0, (0.0, 0.5, 1.0))


def mark(name: str, value: float | None, half: float | None = None) -> Mark:
    if value is None or half is None:
        return Mark(name, name[:2], Estimate(value=value))
    return Mark(name, name[:2], Estimate(value=value, low=value - half, high=value + half))


def parse(markup: str) -> ElementTree.Element:
    """The picture as XML: stricter than any browser."""
    return ElementTree.fromstring(markup)


def by_class(svg: ElementTree.Element, *names: str) -> list[ElementTree.Element]:
    return [e for e in svg.iter() if set(names) <= set(e.get("class", "").split())]


@pytest.mark.parametrize(
    ("values", "low", "ticks"),
    [
        ([1.0], 0.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([1.93], 0.0, (0.0, 0.5, 1.0, 1.5, 2.0)),
        ([5.3, 2.0], 1.0, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
        ([], 0.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([0.0], 0.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    ],
)
def test_axes_have_round_ticks_over_all_values(values: list[float], low: float, ticks: tuple[float, ...]) -> None:
    assert axis_for("x", values, low=low).ticks == pytest.approx(ticks)


@pytest.mark.parametrize("high", [1e-300, 3e-5, 0.7, 1.0, 7.0, 1234.5, 1e11, 1e308])
def test_axes_hold_any_value(high: float) -> None:
    axis = axis_for("x", [high], reference=None)
    assert 2 <= len(axis.ticks) <= 8
    assert 0 <= axis.share(high) <= 1
    assert high > 1e12 or axis.ticks[-1] >= high * (1 - 1e-9)


def test_dots_and_intervals_lie_where_their_values_say() -> None:
    svg = parse(interval_plot("u", "t", "d", UNIT, [mark("low", 0.25, 0.25), mark("none", None), mark("high", 0.75)]))
    dot = by_class(svg, "dot")
    assert [e.tag for e in dot] == ["circle", "path"]  # sorted: the best first, the worst a diamond
    assert float(dot[0].get("cx", "").rstrip("%")) == pytest.approx(31 + 54 * 0.75)
    place = by_class(svg, "place")[0]
    assert float(place.get("x", "").rstrip("%")) == pytest.approx(31 + 54 * 0.25)
    (whisker,) = by_class(svg, "whisker")  # `high` has no interval and gets none
    ends = [float(whisker.get(x, "").rstrip("%")) for x in ("x1", "x2")]
    assert ends == pytest.approx([31, 31 + 54 * 0.5])
    words = [e.text for e in svg.iter("text")]
    assert words[-6:] == ["high", "0.75", "low", "0.25", "none", "–"]


def test_a_language_without_data_gets_no_dot() -> None:
    for picture in (
        interval_plot("u", "t", "d", UNIT, [mark("none", None)]),
        strip_plot("u", "t", "d", UNIT, [Strip("run", (mark("none", None),))]),
        curve_plot("u", "t", "d", "x", UNIT, [Curve("none", "no", {1: Estimate()})]),
    ):
        assert by_class(parse(picture), "dot") == []
        assert "–" in picture or "none" in picture


def test_strips_name_the_lowest_and_the_highest() -> None:
    marks = tuple(mark(name, value) for name, value in (("aa", 0.4), ("bb", 0.2), ("cc", 0.9)))
    svg = parse(strip_plot("u", "t", "d", UNIT, [Strip("run", marks)]))
    assert [e.text for e in by_class(svg, "halo")] == ["bb 0.20", "cc 0.90"]
    assert len(by_class(svg, "dot")) == 3
    assert len(by_class(svg, "dot", "worst")) == 1


def test_curves_colour_the_ends_and_keep_their_labels_apart() -> None:
    curves = [
        Curve(n, n, {1: Estimate(value=0.5), 3: Estimate(value=v)}) for n, v in (("a", 0.50), ("b", 0.51), ("c", 0.5))
    ]
    svg = parse(curve_plot("u", "t", "d", "x", UNIT, curves))
    best, worst = by_class(svg, "figure")
    assert (best.text, worst.text) == ("b 0.51", "a 0.50")
    assert float(worst.get("y", "")) - float(best.get("y", "")) >= 17
    assert len(by_class(svg, "curve", "rest")) == 1


def test_a_single_language_is_not_called_worst() -> None:
    assert "worst" not in interval_plot("u", "t", "d", UNIT, [mark("only", 0.5)])


def test_words_are_escaped_and_harmless() -> None:
    name = "</text><script>x</script>\" onload='x' \u202e\x00"
    bad = Mark(name, name, Estimate(value=0.5))
    for picture in (
        interval_plot("u", name, name, UNIT, [bad, mark("b", 0.1)]),
        strip_plot("u", name, name, UNIT, [Strip(name, (bad,))]),
        curve_plot("u", name, name, name, UNIT, [Curve(name, name, {1: bad.estimate})]),
    ):
        assert not list(parse(picture).iter("script"))
        assert not re.search("[\u202e\x00]", picture)


def test_inert_keeps_letters_of_every_script() -> None:
    text = "日本語 ไทย తెలుగు বাংলা नमस्‍ते می‌خواهم é"
    assert inert(text) == text
    assert inert("a\u202eb\u2066c\x1bd\ud800e\ufefff\ng") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf g"


def test_shorten() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
