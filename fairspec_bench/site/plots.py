"""Inline SVG made at build time: dots with intervals, strips of dots, curves.

Knows estimates, labels and where on a line a value lies. Knows nothing of runs, measures, files or pages.

Across, everything is placed in per cent of the page's width; down and in type size, in pixels: a plot narrows with the
page while its letters stay readable. Colours are classes of the style sheet (light, dark, print); the worst is also a
diamond, so that no meaning hangs on colour. Every text passes `inert` and is escaped.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fairspec_bench.records import Estimate

NO_DATA = "–"
JOINERS = "\u200c\u200d"  # shape letters in Persian and the Indic scripts; every other format character goes
LARGEST = 1e12  # an axis ends here; what a hostile report claims beyond it is drawn at its end
HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def inert(text: str) -> str:
    """`text` with control, bidirectional, surrogate and private characters as U+FFFD, tabs and line ends as blanks."""

    def safe(c: str) -> str:
        if c in "\t\n\r":
            return " "
        return "\ufffd" if unicodedata.category(c) in HARMFUL and c not in JOINERS else c

    return "".join(map(safe, text))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis if any was lost."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True)
class Mark:
    """One estimate and the names it goes by: in full, and short enough to stand beside a dot."""

    name: str
    code: str
    estimate: Estimate


@dataclass(frozen=True)
class Strip:
    """One line of a strip plot: a heading and its marks."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Curve:
    """One line of a curve plot: estimates by whole-numbered x."""

    name: str
    code: str
    points: Mapping[int, Estimate]


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low` to the last of `ticks`; what lies outside is drawn at its end."""

    title: str
    low: float
    ticks: tuple[float, ...]
    unit: str = ""
    reference: float | None = None

    def share(self, value: float) -> float:
        """Where `value` lies, from 0 to 1."""
        high = self.ticks[-1]
        return (min(max(value, self.low), high) - self.low) / (high - self.low)

    def text(self, value: float) -> str:
        return f"{value:.6g}{self.unit}"


@dataclass(frozen=True)
class Placer:
    """Values of an axis as per cent of the page's width, between two edges in per cent."""

    axis: Axis
    left: float
    right: float

    def __call__(self, value: float) -> str:
        return f"{self.left + (self.right - self.left) * self.axis.share(value):.2f}%"


def axis_for(
    title: str, values: Iterable[float], *, low: float = 0.0, unit: str = "", reference: float | None = None
) -> Axis:
    """An axis from `low` over every value and the reference, with four to seven round ticks."""
    high = min(max([*values, low, *([] if reference is None else [reference])]), LARGEST)
    rough = (high - low) / 5 if high - low > 1e-9 else 0.2
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if power * m >= rough)
    count = max(1, math.ceil(rough * 5 / step - 1e-9))
    return Axis(title, low, tuple(low + step * i for i in range(count + 1)), unit, reference)


def estimate_values(marks: Iterable[Mark | Curve]) -> list[float]:
    """Every value and interval end of these marks: what an axis must hold."""
    estimates = [e for m in marks for e in (m.points.values() if isinstance(m, Curve) else [m.estimate])]
    return [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]


def interval_plot(uid: str, title: str, desc: str, axis: Axis, marks: Sequence[Mark]) -> Markup:
    """A row for each mark, best first, those without data last: dot, 95 % interval, value in figures."""
    row, top = 26, 8
    place = Placer(axis, 31, 85)
    bottom = top + row * len(marks)
    ordered = sorted(marks, key=lambda m: -math.inf if m.estimate.value is None else m.estimate.value, reverse=True)
    worst = _extremes(marks)[0]
    body = [_grid(place, top, bottom)]
    for i, mark in enumerate(ordered):
        y = top + row * i + row // 2
        estimate = mark.estimate
        parts = [_text(shorten(mark.name, 16), "0%", y + 4)]
        if estimate.value is None:
            parts.append(_text(NO_DATA, "100%", y + 4, "end muted"))
        else:
            extreme = "worst" if mark is worst else ""
            parts += _whisker(place, estimate, y, extreme)
            parts.append(_dot(place(estimate.value), y, extreme))
            parts.append(_text(_figure(estimate, axis), "100%", y + 4, "end figure"))
        body.append(_element("g", _join([_title(_sentence(mark, axis)), *parts])))
    return _svg(uid, title, desc, bottom + 44, body)


def strip_plot(uid: str, title: str, desc: str, axis: Axis, strips: Sequence[Strip]) -> Markup:
    """A line for each strip with a dot for every mark; the lowest and the highest carry their names."""
    row, top = 60, 6
    place = Placer(axis, 9, 91)
    bottom = top + row * len(strips)
    body = [_grid(place, top, bottom)]
    for i, strip in enumerate(strips):
        y = top + row * i + 38
        worst, best = _extremes(strip.marks)
        parts = [_text(shorten(strip.name, 44), "0%", y - 20, "heading"), _line("0%", y, "100%", y, "rail")]
        for mark in strip.marks:
            if mark.estimate.value is not None:
                x = place(mark.estimate.value)
                dot = _dot(x, y, "worst" if mark is worst else "")
                parts.append(_element("g", _title(_sentence(mark, axis)) + dot))
        for end, side, shift in ((worst, "end", -10), (best, "start", 10)):
            if end is not None and end.estimate.value is not None:
                label = f"{shorten(end.code, 8)} {_figure(end.estimate, axis)}"
                parts.append(_text(label, place(end.estimate.value), y + 4, f"{side} figure halo", dx=shift))
        if best is None:
            parts.append(_text(NO_DATA, "0%", y + 4, "muted"))
        body.append(_element("g", _join(parts)))
    return _svg(uid, title, desc, bottom + 44, body)


def curve_plot(uid: str, title: str, desc: str, x_title: str, axis: Axis, curves: Sequence[Curve]) -> Markup:
    """Every curve in grey, the lowest and the highest at the last x in colour, named and with intervals."""
    height, top = 230, 10
    xs = sorted({x for curve in curves for x in curve.points})
    across = Placer(Axis(x_title, xs[0], (max(xs[-1], xs[0] + 1),)), 11, 84)

    def down(value: float) -> float:
        return top + height * (1 - axis.share(value))

    body = [_line("11%", down(t), "84%", down(t), "grid") for t in axis.ticks]
    body += [_text(axis.text(t), "9%", down(t) + 4, "end muted") for t in axis.ticks]
    every = math.ceil(len(xs) / 10)
    body += [_text(str(x), across(x), top + height + 18, "middle muted") for x in xs[::every]]
    body.append(_text(x_title, "47.5%", top + height + 38, "middle muted"))

    worst, best = _extremes([Mark(c.name, c.code, c.points.get(xs[-1], Estimate())) for c in curves])
    ends = [(mark, style) for mark, style in ((best, "best"), (worst, "worst")) if mark is not None]
    styles = {mark.name: style for mark, style in ends}
    for curve in sorted(curves, key=lambda c: c.name in styles):
        body.append(_curve(curve, styles.get(curve.name, "rest"), across, down))
    body += _end_labels(ends, axis, down)
    return _svg(uid, title, desc, top + height + 46, body)


def _curve(curve: Curve, style: str, across: Placer, down: Callable[[float], float]) -> Markup:
    known = [(x, e, e.value) for x, e in sorted(curve.points.items()) if e.value is not None]
    parts = [_title(curve.name)]
    for (x0, _, v0), (x1, _, v1) in pairwise(known):
        parts.append(_line(across(x0), down(v0), across(x1), down(v1), f"curve {style}"))
    if style != "rest":
        for x, e, v in known:
            if e.low is not None and e.high is not None:
                parts.append(_line(across(x), down(e.low), across(x), down(e.high), f"whisker {style}"))
            parts.append(_dot(across(x), down(v), style))
    return _element("g", _join(parts))


def _end_labels(ends: Sequence[tuple[Mark, str]], axis: Axis, down: Callable[[float], float]) -> list[Markup]:
    """The names of the curves in colour at the right, highest first, moved apart where they would touch."""
    heights = [down(mark.estimate.value or 0.0) for mark, _ in ends]
    apart = max(0.0, 17 - (heights[1] - heights[0])) / 2 if len(ends) == 2 else 0.0
    labels = []
    for (mark, style), y, shift in zip(ends, heights, (-apart, apart), strict=False):
        words = f"{shorten(mark.code, 6)} {_figure(mark.estimate, axis)}"
        labels.append(_text(words, "100%", y + shift + 4, f"end figure {style}"))
    return labels


# --------------------------------------------------------------------------- parts


def _extremes(marks: Sequence[Mark]) -> tuple[Mark | None, Mark | None]:
    """The lowest and the highest mark with data; of a single one no worst is said."""
    known = sorted((m for m in marks if m.estimate.value is not None), key=lambda m: m.estimate.value or 0.0)
    return (known[0] if len(known) > 1 else None, known[-1] if known else None)


def _figure(estimate: Estimate, axis: Axis) -> str:
    if estimate.value is None:
        return NO_DATA
    return f"{estimate.value:.2f}{axis.unit}" if abs(estimate.value) < 1e6 else f"{estimate.value:.2g}{axis.unit}"


def _sentence(mark: Mark, axis: Axis) -> str:
    """What a pointer resting on a mark is told."""
    estimate = mark.estimate
    if estimate.value is None:
        return f"{mark.name}: no data"
    words = f"{mark.name}: {estimate.value:.3g}{axis.unit}"
    if estimate.low is not None and estimate.high is not None:
        words += f", 95 % interval {estimate.low:.3g} to {estimate.high:.3g}"
    return words


def _grid(place: Placer, top: float, bottom: float) -> Markup:
    """Vertical grid, tick figures, the axis title and the dashed reference."""
    axis = place.axis
    parts = [_line(place(t), top, place(t), bottom, "grid") for t in axis.ticks]
    parts += [_text(axis.text(t), place(t), bottom + 18, "middle muted") for t in axis.ticks]
    if axis.reference is not None:
        parts.append(_line(place(axis.reference), top, place(axis.reference), bottom, "reference"))
    parts.append(_text(axis.title, f"{(place.left + place.right) / 2:.2f}%", bottom + 38, "middle muted"))
    return _join(parts)


def _whisker(place: Placer, estimate: Estimate, y: float, style: str) -> list[Markup]:
    if estimate.low is None or estimate.high is None:
        return []
    return [_line(place(estimate.low), y, place(estimate.high), y, f"whisker {style}".strip())]


def _dot(x: str, y: float, style: str) -> Markup:
    """A disc; the worst is a diamond. The inner `svg` carries the per-cent place, which a path cannot."""
    if style != "worst":
        return _element("circle", cx=x, cy=y, r=5, class_=f"dot {style}".strip())
    return _element("svg", _element("path", d="M0-7 7 0 0 7-7 0Z", class_="dot worst"), x=x, y=y, class_="place")


def _line(x1: str, y1: float, x2: str, y2: float, style: str) -> Markup:
    return _element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def _text(words: str, x: str, y: float, style: str = "", dx: int = 0) -> Markup:
    return _element("text", inert(words), x=x, y=y, dx=dx or "", class_=style)


def _title(words: str) -> Markup:
    return _element("title", inert(words))


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _element(name: str, body: str = "", **attributes: str | float) -> Markup:
    """One element; attribute values and a plain `body` are escaped, a `Markup` body is kept, empty attributes go."""
    written = _join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), f"{v:.6g}" if isinstance(v, float) else v)
        for key, v in attributes.items()
        if v != ""
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, body)


def _svg(uid: str, title: str, desc: str, height: float, body: Iterable[Markup]) -> Markup:
    """The picture, named and described for those who do not see it; `uid` must be the page's own."""
    named = _element("title", inert(title), id=f"{uid}-title") + _element("desc", inert(desc), id=f"{uid}-desc")
    return _element(
        "svg",
        named + _join(body),
        class_="plot",
        role="img",
        aria_labelledby=f"{uid}-title {uid}-desc",
        width="100%",
        height=height,
    )
