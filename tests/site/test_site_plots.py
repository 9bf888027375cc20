"""The pictures: every dot where its value says, the worst titled by its shape, words harmless."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fairspec_bench.reporting.escape import inert
from fairspec_bench.reporting.svg import (
    Axis,
    Curve,
    Mark,
    Strip,
    axis_for,
    close_axis,
    root_axis,
    shorten,
)
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.site.plots import (
    Both,
    Range,
    Spot,
    both_plot,
    curve_plot,
    interval_plot,
    plane,
    range_plot,
    row_strip,
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
    assert [e.text for e in by_class(svg, "figure")] == ["bb: 0.20", "cc: 0.90"]
    assert len(by_class(svg, "dot")) == 3
    assert len(by_class(svg, "dot", "worst")) == 1


def test_dots_that_hide_others_name_them_all() -> None:
    marks = tuple(mark(name, value) for name, value in (("aa", 0.0), ("bb", 0.001), ("cc", 1.0), ("dd", 0.0)))
    many = (*marks, mark("ee", 0.0), mark("ff", 0.0))
    for given, words in ((marks, "aa, bb, dd: 0.00"), (many, "aa, bb, dd +2: 0.00")):
        svg = parse(strip_plot("u", "t", "d", UNIT, [Strip("run", given)]))
        assert [e.text for e in by_class(svg, "figure")] == [words, "cc: 1.00"]
        assert {e.get("x") for e in by_class(svg, "figure")} == {"0%", "100%"}  # never cut off by an edge


def test_a_slow_down_is_shaded_and_coloured_only_where_significant() -> None:
    axis = axis_for("speed-up", [1.5], unit="×", reference=1.0)
    marks = [mark("fast", 1.4, 0.1), mark("slow", 0.6, 0.1), mark("unsure", 0.9, 0.2), mark("bare", 0.4)]
    svg = parse(interval_plot("u", "t", "d", axis, marks))
    (shade,) = by_class(svg, "slow")
    start, width = (float(shade.get(name, "").rstrip("%")) for name in ("x", "width"))
    assert start + width == pytest.approx(31 + 54 * axis.share(1.0))
    titles = [g.find("title").text for g in svg.iter("g") if list(g.iter("path"))]  # type: ignore[union-attr]
    assert [title.split(":")[0] for title in titles if title] == ["slow", "bare"]  # `bare` is the lowest
    assert not by_class(parse(interval_plot("u", "t", "d", UNIT, marks)), "slow")


def test_a_long_name_stands_above_its_row_and_is_whole() -> None:
    name = "s-CDF with cross-entropy gaps"
    svg = parse(interval_plot("u", "t", "d", UNIT, [mark(name, 0.5), mark("b", 0.25)]))
    words = {e.text: float(e.get("y", "")) for e in svg.iter("text")}
    assert words["0.50"] - words[name] == pytest.approx(17)
    assert float(by_class(svg, "place")[0].get("x", "").rstrip("%")) == pytest.approx(3 + 82 * 0.25)


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


# --------------------------------------------------------------------------- two dots a row, planes, ranges


def test_two_dots_a_row_lie_where_their_values_say_and_are_parted_where_intervals_meet() -> None:
    rows = [
        Both("apart", Estimate(value=0.9), Estimate(value=0.5)),
        Both("meet", mark("m", 0.5, 0.1).estimate, mark("m", 0.4, 0.1).estimate, worse=True),
        Both("none", Estimate(), Estimate()),
    ]
    svg = parse(both_plot("u", "t", "d", UNIT, rows))
    rings = by_class(svg, "ring", "dot")
    assert [float(r.get("cx", "").rstrip("%")) for r in rings] == pytest.approx([27 + 52 * 0.9, 27 + 52 * 0.5])
    (disc,) = [e for e in by_class(svg, "dot") if e.tag == "circle" and "ring" not in e.get("class", "")]
    assert disc.get("cy") == rings[0].get("cy")
    (diamond,) = by_class(svg, "place")
    assert float(diamond.get("y", "")) > float(rings[1].get("cy", "")) + 9
    assert [e.text for e in by_class(svg, "figure")] == ["0.90 → 0.50", "0.50 → 0.40", "–"]


def spot(name: str, x: float, y: float, number: int | None = None, **options: bool) -> Spot:
    return Spot(name, Estimate(value=x), Estimate(value=y), options.get("front", False), False, number)


def test_the_plane_puts_more_right_and_less_unfair_down_by_the_root() -> None:
    spots = [spot("bad", 0.2, 4.0), spot("good", 0.8, 1.0, 7, front=True), spot("low", 0.4, 0.0, front=True)]
    svg = parse(plane("u", "t", "d", "x", spots, floor=0.01))
    dots = {e.find("title").text.split(":")[0]: e.find("circle") for e in svg.iter("g") if e.find("circle") is not None}  # type: ignore[union-attr]
    x = {name: float(dot.get("cx", "").rstrip("%")) for name, dot in dots.items()}  # type: ignore[union-attr]
    y = {name: float(dot.get("cy", "")) for name, dot in dots.items()}  # type: ignore[union-attr]
    assert x["bad"] < x["low"] < x["good"]
    assert y["bad"] < y["good"] < y["low"]
    assert (y["low"] - y["good"]) == pytest.approx(y["good"] - y["bad"])  # √4 − √1 = √1 − √0
    assert [e.text for e in by_class(svg, "number")] == ["7"]
    assert len(by_class(svg, "dot", "front-dot")) == 2


def test_every_dot_of_the_plane_is_known_by_its_number_and_no_name_covers_another() -> None:
    spots = [spot(f"a rather long name {n}", 0.1 * n, 0.5, n + 1) for n in range(8)]
    svg = parse(plane("u", "t", "d", "x", spots, floor=0.0))
    assert sorted(e.text or "" for e in by_class(svg, "number")) == [str(n) for n in range(1, 9)]
    assert not [e for e in svg.iter("text") if "name" in (e.text or "")]


def test_ranges_span_their_ranks() -> None:
    svg = parse(range_plot("u", "t", "d", 5, [Range("a", 1, 3, 2), Range("b", 4, 4, 4)]))
    bars = [[float(e.get(end, "").rstrip("%")) for end in ("x1", "x2")] for e in by_class(svg, "range")]
    assert bars[0] == pytest.approx([2, 2 + 96 * 2 / 3])
    assert bars[1] == pytest.approx([98, 98])
    assert [e.text for e in by_class(svg, "figure")] == ["1–3", "4"]


@pytest.mark.parametrize("last", [1, 2, 8, 9, 11, 30, 99, 1000, 12345])
def test_ranks_are_whole_and_end_at_the_last(last: int) -> None:
    svg = parse(range_plot("u", "t", "d", last, [Range("a", 1, last, 1)]))
    ticks = [int(e.text or "") for e in by_class(svg, "middle") if (e.text or "").isdigit()]
    assert ticks[0] == 1
    assert ticks[-1] == max(last, 2)
    assert len(ticks) <= 9


@pytest.mark.parametrize("values", [[0.61, 0.93], [0.5], [0.0, 1.0], [1e308, 0.2], [3.0, 3.0]])
def test_close_axes_hold_their_values(values: list[float]) -> None:
    axis = close_axis("x", values)
    known = [v for v in values if v < 1e12]
    assert axis.low <= min(known) + 1e-9
    assert axis.ticks[-1] >= max(known) - 1e-9
    assert len(axis.ticks) <= 8


def test_a_root_axis_shows_small_differences() -> None:
    axis = root_axis("U", [4.0])
    assert (axis.share(0.0), axis.share(1.0), axis.share(4.0)) == pytest.approx((0, 0.5, 1))


def test_a_rows_strip_marks_the_worst_by_its_shape() -> None:
    svg = parse(row_strip([mark("a", 0.2), mark("b", 0.7), mark("c", None)], UNIT))
    assert svg.get("aria-hidden") == "true"
    assert len(by_class(svg, "dot", "worst")) == 1
    assert by_class(svg, "ticks")[0].get("d") == "M81.6 3v10"
