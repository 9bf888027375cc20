"""The plots of the site as inline SVG: of one run (dots, strips, curves), of two, of a board (plane, rank ranges).

They take estimates and names and draw with `reporting.svg`; which submissions are shown, and what is said of them, is
decided by `board` and `views`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fairspec_bench.reporting.svg import (
    NO_DATA,
    Axis,
    Curve,
    Mark,
    Placer,
    Strip,
    close_axis,
    describe,
    dot,
    element,
    extremes,
    grid,
    join,
    line,
    root_axis,
    short_figure,
    shorten,
    svg,
    text,
    titled,
    whisker,
)
from fairspec_bench.schemas.report import Estimate

SHORT = 14  # characters of a name that stands beside its row on the narrowest page


def interval_plot(uid: str, title: str, desc: str, axis: Axis, marks: Sequence[Mark]) -> Markup:
    """A row for each mark, best first, those without data last: dot, 95 % interval, value in figures.

    Long names stand above their row. With a reference, what is below it is shaded and coloured where significant.
    """
    long = any(len(mark.name) > SHORT for mark in marks)
    row, top = 44 if long else 26, 8
    place = Placer(axis, 3 if long else 31, 85)
    bottom = top + row * len(marks)
    ordered = sorted(marks, key=lambda m: -math.inf if m.estimate.value is None else m.estimate.value, reverse=True)
    worst = extremes(marks)[0]
    body = [] if axis.reference is None else [_below(place, axis.reference, top, bottom)]
    body.append(grid(place, top, bottom))
    for i, mark in enumerate(ordered):
        y = top + row * i + (30 if long else row // 2)
        estimate = mark.estimate
        parts = [text(shorten(mark.name, 38), "0%", y - 13 if long else y + 4)]
        if estimate.value is None:
            parts.append(text(NO_DATA, "100%", y + 4, "end muted"))
        else:
            slow = axis.reference is not None and estimate.high is not None and estimate.high < axis.reference
            extreme = "worst" if mark is worst or slow else ""
            parts += whisker(place, estimate, y, extreme)
            parts.append(dot(place(estimate.value), y, extreme))
            parts.append(text(short_figure(estimate, axis), "100%", y + 4, "end figure"))
        body.append(titled(describe(mark.name, mark.estimate, axis.unit), *parts))
    return svg(uid, title, desc, bottom + 44, body)


def _below(place: Placer, reference: float, top: float, bottom: float) -> Markup:
    """A shade over what is below the reference."""
    width = f"{place.at(reference) - place.left:.2f}%"
    return element("rect", x=f"{place.left}%", y=top, width=width, height=bottom - top, class_="slow")


def strip_plot(uid: str, title: str, desc: str, axis: Axis, strips: Sequence[Strip]) -> Markup:
    """A line for each strip with a dot for every mark; under it the lowest and the highest, ties named as ties."""
    row, top = 72, 6
    place = Placer(axis, 9, 91)
    bottom = top + row * len(strips)
    body = [grid(place, top, bottom)]
    for i, strip in enumerate(strips):
        y = top + row * i + 38
        worst, best = extremes(strip.marks)
        parts = [text(shorten(strip.name, 36), "0%", y - 18, "heading"), line("0%", y, "100%", y, "rail")]
        for mark in strip.marks:
            if mark.estimate.value is not None:
                x = place(mark.estimate.value)
                own = dot(x, y, "worst" if mark is worst else "")
                parts.append(titled(describe(mark.name, mark.estimate, axis.unit), own))
        for end, at, style in ((worst, "0%", "figure worst"), (best, "100%", "end figure best")):
            if end is not None:
                parts.append(text(_tied(end, strip.marks, axis), at, y + 22, style))
        if best is None:
            parts.append(text(NO_DATA, "0%", y + 4, "muted"))
        body.append(element("g", join(parts)))
    return svg(uid, title, desc, bottom + 44, body)


def _tied(end: Mark, marks: Sequence[Mark], axis: Axis) -> str:
    """The codes of all marks that read as this one does, and their figure."""
    words = short_figure(end.estimate, axis)
    codes = [shorten(mark.code, 8) for mark in marks if short_figure(mark.estimate, axis) == words]
    more = f" +{len(codes) - 3}" if len(codes) > 3 else ""
    return f"{', '.join(codes[:3])}{more}: {words}"


def curve_plot(uid: str, title: str, desc: str, x_title: str, axis: Axis, curves: Sequence[Curve]) -> Markup:
    """Every curve in grey, the lowest and the highest at the last x in colour, named and with intervals."""
    height, top = 230, 10
    xs = sorted({x for curve in curves for x in curve.points})
    across = Placer(Axis(x_title, xs[0], (max(xs[-1], xs[0] + 1),)), 11, 84)

    def down(value: float) -> float:
        return top + height * (1 - axis.share(value))

    body = [line("11%", down(t), "84%", down(t), "grid") for t in axis.ticks]
    body += [text(axis.text(t), "9%", down(t) + 4, "end muted") for t in axis.ticks]
    every = math.ceil(len(xs) / 10)
    body += [text(str(x), across(x), top + height + 18, "middle muted") for x in xs[::every]]
    body.append(text(x_title, "47.5%", top + height + 38, "middle muted"))

    worst, best = extremes([Mark(c.name, c.code, c.points.get(xs[-1], Estimate())) for c in curves])
    ends = [(mark, style) for mark, style in ((best, "best"), (worst, "worst")) if mark is not None]
    styles = {mark.name: style for mark, style in ends}
    for curve in sorted(curves, key=lambda c: c.name in styles):
        body.append(_curve(curve, styles.get(curve.name, "rest"), across, down))
    body += _end_labels(ends, axis, down)
    return svg(uid, title, desc, top + height + 46, body)


def _curve(curve: Curve, style: str, across: Placer, down: Callable[[float], float]) -> Markup:
    known = [(x, e, e.value) for x, e in sorted(curve.points.items()) if e.value is not None]
    parts = []
    for (x0, _, v0), (x1, _, v1) in pairwise(known):
        parts.append(line(across(x0), down(v0), across(x1), down(v1), f"curve {style}"))
    if style != "rest":
        for x, e, v in known:
            if e.low is not None and e.high is not None:
                parts.append(line(across(x), down(e.low), across(x), down(e.high), f"whisker {style}"))
            parts.append(dot(across(x), down(v), style))
    return titled(curve.name, *parts)


def _end_labels(ends: Sequence[tuple[Mark, str]], axis: Axis, down: Callable[[float], float]) -> list[Markup]:
    """The names of the curves in colour at the right, highest first, moved apart where they would touch."""
    heights = [down(mark.estimate.value or 0.0) for mark, _ in ends]
    apart = max(0.0, 17 - (heights[1] - heights[0])) / 2 if len(ends) == 2 else 0.0
    labels = []
    for (mark, style), y, shift in zip(ends, heights, (-apart, apart), strict=False):
        words = f"{shorten(mark.code, 6)} {short_figure(mark.estimate, axis)}"
        labels.append(text(words, "100%", y + shift + 4, f"end figure {style}"))
    return labels


@dataclass(frozen=True)
class Both:
    """One row of a plot of two: the first figure and the second. `worse`: the second is significantly worse."""

    name: str
    first: Estimate
    second: Estimate
    worse: bool = False
    code: str = ""


def both_plot(
    uid: str, title: str, desc: str, axis: Axis, rows: Sequence[Both], names: tuple[str, str] = ("", "")
) -> Markup:
    """A row for each: a ring for the first, a disc for the second (a diamond where worse), a line between."""
    row, top = 30, 46 if names[0] else 8
    place = Placer(axis, 27, 79)
    bottom = top + row * len(rows)
    body = [_key(names)] if names[0] else []
    body.append(grid(place, top, bottom))
    for i, each in enumerate(rows):
        y = top + row * i + row // 2
        parts = [text(shorten(each.name, 16), "0%", y + 4)]
        a, b = each.first.value, each.second.value
        apart = 5 if _overlap(each.first, each.second) else 0
        if a is not None and b is not None:
            parts.append(line(place(a), y - apart, place(b), y + apart, "bond"))
        for side, value, estimate, style in (
            (-apart, a, each.first, "ring"),
            (apart, b, each.second, "worst" if each.worse else ""),
        ):
            if value is not None:
                parts += whisker(place, estimate, y + side, style)
                parts.append(dot(place(value), y + side, style))
        figures = [short_figure(e, axis) for e in (each.first, each.second)] if (a, b) != (None, None) else [NO_DATA]
        parts.append(text(" → ".join(figures), "100%", y + 4, "end figure"))
        sides = zip(names, (each.first, each.second), strict=True)
        body.append(titled("; ".join(describe(f"{each.name}, {name}", e) for name, e in sides), *parts))
    return svg(uid, title, desc, bottom + 44, body)


def _overlap(a: Estimate, b: Estimate) -> bool:
    """Whether the two intervals meet, so that they must be drawn apart."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _key(names: tuple[str, str]) -> Markup:
    """Which sign is which, above the plot."""
    first = dot("2%", 10, "ring") + text(shorten(names[0], 36), "2%", 14, "muted", dx=11)
    second = dot("2%", 28) + text(shorten(names[1], 36), "2%", 32, "muted", dx=11)
    return first + second


# --------------------------------------------------------------------------- a whole board

Down = Callable[[float], float]
WHISKERS = 40  # beyond so many spots only the numbered ones carry intervals


@dataclass(frozen=True)
class Spot:
    """A drafter on the plane, its number in the dot. `front`: surpassed by none; `noise`: its U is within its floor."""

    name: str
    across: Estimate
    up: Estimate
    front: bool
    noise: bool
    number: int | None


def plane(uid: str, title: str, desc: str, x_title: str, spots: Sequence[Spot], floor: float, unit: str = "") -> Markup:
    """Further right is better, further down fairer; whom none surpasses is coloured, the shaded band is noise.

    Downwards by the square root of U, which is a gap in nats, so that small differences near 0 are seen.
    """
    height, top = 340, 14
    xs = [v for s in spots for v in (s.across.value, s.across.low, s.across.high) if v is not None]
    ys = [v for s in spots for v in (s.up.value, s.up.high) if v is not None]
    place = Placer(close_axis(x_title, xs, unit), 13, 93)
    up = root_axis("unfairness U, nats²", [*ys, floor])

    def down(value: float) -> float:
        return top + height * (1 - up.share(value))

    bottom = top + height
    body = [_band(down(floor), bottom)] if floor > 0 else []
    body += [line("13%", down(t), "93%", down(t), "grid") for t in up.ticks]
    body += [text(f"{t:.2g}", "0%", down(t) + 4, "muted") for t in up.ticks]
    body += [line(place(t), top, place(t), bottom, "grid") for t in place.axis.ticks]
    body += [text(place.axis.text(t), place(t), bottom + 18, "middle muted") for t in place.axis.ticks]
    body.append(text(f"{x_title} →", "100%", bottom + 38, "end muted"))
    body.append(text("U, nats²; fairer ↓", "0%", bottom + 38, "muted"))
    if floor > 0:
        body.append(text("noise", "92.5%", bottom - 6, "end muted"))
    crowded = len(spots) > WHISKERS
    for spot in sorted(spots, key=lambda s: (s.number is not None, s.front)):
        body.append(_spot(spot, place, down, bare=crowded and spot.number is None))
    return svg(uid, title, desc, bottom + 46, body)


def _band(top: float, bottom: float) -> Markup:
    return element("rect", x="13%", y=top, width="80%", height=max(1.0, bottom - top), class_="noise")


def _spot(spot: Spot, place: Placer, down: Down, *, bare: bool) -> Markup:
    x, y = spot.across.value, spot.up.value
    if x is None or y is None:
        return Markup()
    style = ("front-dot" if spot.front else "rest") + (" hollow" if spot.noise else "")
    parts: list[Markup] = []
    if not bare:
        parts += whisker(place, spot.across, down(y), style)
        if spot.up.low is not None and spot.up.high is not None:
            parts.append(line(place(x), down(spot.up.low), place(x), down(spot.up.high), f"whisker {style}"))
    parts.append(dot(place(x), down(y), style if spot.number is None else f"numbered {style}"))
    if spot.number is not None:
        parts.append(text(str(spot.number), place(x), down(y) + 4, f"middle number {style}"))
    return titled(f"{describe(spot.name, spot.across)}; {describe('U', spot.up)}", *parts)


@dataclass(frozen=True)
class Range:
    """A drafter's ranks from `low` to `high`, and its own place in the order."""

    name: str
    low: int
    high: int
    place: int


def range_plot(uid: str, title: str, desc: str, count: int, ranges: Sequence[Range]) -> Markup:
    """A row a drafter: its name, and under it a bar over the ranks it may have."""
    row, top = 40, 4
    last = max([each.high for each in ranges], default=1)
    ticks = tuple(float(t) for t in _whole_ticks(last))
    place = Placer(Axis(f"rank, of {count}", 1.0, ticks), 2, 98)
    bottom = top + row * len(ranges)
    body = [line(place(t), top, place(t), bottom, "grid") for t in ticks]
    body += [text(f"{t:.0f}", place(t), bottom + 18, "middle muted") for t in ticks]
    body.append(text(place.axis.title, "50%", bottom + 38, "middle muted"))
    for i, each in enumerate(ranges):
        y = top + row * i + 16
        words = f"{each.low}" if each.low == each.high else f"{each.low}–{each.high}"
        parts = [
            text(shorten(each.name, 40), "0%", y, "name"),
            text(words, "100%", y, "end figure"),
            line(place(each.low), y + 12, place(each.high), y + 12, "range"),
            dot(place(each.place), y + 12),
        ]
        body.append(titled(f"{each.name}: rank {words}", *parts))
    return svg(uid, title, desc, bottom + 44, body)


def _whole_ticks(last: int) -> list[int]:
    """From 1 to `last`, at most eight whole numbers."""
    if last <= 8:
        return list(range(1, max(2, last) + 1))
    step = next(s * 10**p for p in range(9) for s in (1, 2, 5) if s * 10**p * 6 >= last)
    return [1, *(tick for tick in range(step, last, step) if 1 < tick <= last - step / 2), last]


def row_strip(marks: Sequence[Mark], axis: Axis) -> Markup:
    """The spread of one row over its languages: a tick each, the worst a diamond. The figures stand beside it."""
    known = [m for m in marks if m.estimate.value is not None]
    worst = extremes(marks)[0]

    def x(mark: Mark) -> float:
        return 6 + 108 * axis.share(mark.estimate.value or 0.0)

    ticks = "".join(f"M{x(m):.4g} 3v10" for m in known if m is not worst)
    parts = [element("path", d="M6 8h108", class_="rail"), element("path", d=ticks, class_="ticks")]
    if worst is not None:
        parts.append(element("path", d=f"M{x(worst):.4g} 3l5 5-5 5-5-5Z", class_="dot worst"))
    return element("svg", join(parts), class_="spread", width=120, height=16, aria_hidden="true")
