"""Pictures of one submission or run: dots with intervals, strips of dots, curves, two dots a row.

Knows marks and axes (`parts`), made inline as SVG at build time. Knows nothing of runs, measures, files or pages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fairspec_bench.records import Estimate
from fairspec_bench.site.parts import (
    NO_DATA,
    Axis,
    Curve,
    Mark,
    Placer,
    Strip,
    dot,
    element,
    extremes,
    grid,
    join,
    line,
    sentence,
    short_figure,
    shorten,
    svg,
    text,
    told,
    whisker,
)


def interval_plot(uid: str, title: str, desc: str, axis: Axis, marks: Sequence[Mark]) -> Markup:
    """A row for each mark, best first, those without data last: dot, 95 % interval, value in figures."""
    row, top = 26, 8
    place = Placer(axis, 31, 85)
    bottom = top + row * len(marks)
    ordered = sorted(marks, key=lambda m: -math.inf if m.estimate.value is None else m.estimate.value, reverse=True)
    worst = extremes(marks)[0]
    body = [grid(place, top, bottom)]
    for i, mark in enumerate(ordered):
        y = top + row * i + row // 2
        estimate = mark.estimate
        parts = [text(shorten(mark.name, 16), "0%", y + 4)]
        if estimate.value is None:
            parts.append(text(NO_DATA, "100%", y + 4, "end muted"))
        else:
            extreme = "worst" if mark is worst else ""
            parts += whisker(place, estimate, y, extreme)
            parts.append(dot(place(estimate.value), y, extreme))
            parts.append(text(short_figure(estimate, axis), "100%", y + 4, "end figure"))
        body.append(told(sentence(mark.name, mark.estimate, axis.unit), *parts))
    return svg(uid, title, desc, bottom + 44, body)


def strip_plot(uid: str, title: str, desc: str, axis: Axis, strips: Sequence[Strip]) -> Markup:
    """A line for each strip with a dot for every mark; the lowest and the highest carry their names."""
    row, top = 60, 6
    place = Placer(axis, 9, 91)
    bottom = top + row * len(strips)
    body = [grid(place, top, bottom)]
    for i, strip in enumerate(strips):
        y = top + row * i + 38
        worst, best = extremes(strip.marks)
        parts = [text(shorten(strip.name, 44), "0%", y - 20, "heading"), line("0%", y, "100%", y, "rail")]
        for mark in strip.marks:
            if mark.estimate.value is not None:
                x = place(mark.estimate.value)
                own = dot(x, y, "worst" if mark is worst else "")
                parts.append(told(sentence(mark.name, mark.estimate, axis.unit), own))
        for end, side, shift in ((worst, "end", -10), (best, "start", 10)):
            if end is not None and end.estimate.value is not None:
                label = f"{shorten(end.code, 8)} {short_figure(end.estimate, axis)}"
                parts.append(text(label, place(end.estimate.value), y + 4, f"{side} figure halo", dx=shift))
        if best is None:
            parts.append(text(NO_DATA, "0%", y + 4, "muted"))
        body.append(element("g", join(parts)))
    return svg(uid, title, desc, bottom + 44, body)


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
    return told(curve.name, *parts)


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
    """One row of a plot of two: what stands on the first side and on the second. `worse`: the second surely loses."""

    name: str
    first: Estimate
    second: Estimate
    worse: bool = False
    code: str = ""


def both_plot(
    uid: str, title: str, desc: str, axis: Axis, rows: Sequence[Both], names: tuple[str, str] = ("", "")
) -> Markup:
    """A row for each: a ring for the first, a disc for the second (a diamond where worse), a line between."""
    row, top = 30, 30 if names[0] else 8
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
        body.append(told("; ".join(sentence(f"{each.name}, {name}", e) for name, e in sides), *parts))
    return svg(uid, title, desc, bottom + 44, body)


def _overlap(a: Estimate, b: Estimate) -> bool:
    """Whether the two intervals meet, so that they must be drawn apart."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _key(names: tuple[str, str]) -> Markup:
    """Which sign is which, above the plot."""
    first = dot("28%", 12, "ring") + text(shorten(names[0], 26), "28%", 16, "muted", dx=11)
    second = dot("64%", 12) + text(shorten(names[1], 26), "64%", 16, "muted", dx=11)
    return first + second
