"""SVG for the site and the experiments: escaped text, axes, lines, dots, and a scatter plot in a file of its own.

Horizontal places are per cent of the width, vertical ones pixels: a plot narrows with the page while its letters stay
readable. Colours are classes: of the site's style sheet on a page (light, dark, print), of `STYLE` in a file. The
lowest mark is also a diamond, so that no meaning rests on colour alone. Every text passes `escape.html`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from fairspec_bench.reporting import escape
from fairspec_bench.schemas.report import Estimate

NO_DATA = "–"
LARGEST = 1e12  # an axis ends here; a larger value is drawn at its end

# --------------------------------------------------------------------------- text


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis if any was lost."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def element(name: str, body: str = "", **attributes: str | float) -> Markup:
    """One element; attribute values and a plain `body` are escaped, a `Markup` body is kept, empty attributes go."""
    written = "".join(
        [f' {key.rstrip("_").replace("_", "-")}="{_attribute(v)}"' for key, v in attributes.items() if v != ""]
    )
    return Markup(f"<{name}{written}>{body if isinstance(body, Markup) else escape.html(body)}</{name}>")


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return escape.html(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------- marks and axes


@dataclass(frozen=True)
class Mark:
    """One estimate, its name, and a code short enough to stand beside a dot."""

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
    """A scale from `low` to the last of `ticks`; what lies outside is drawn at its end.

    `root` suits squares that differ by orders of magnitude and may be 0; `log` needs `low` above 0.
    """

    title: str
    low: float
    ticks: tuple[float, ...]
    unit: str = ""
    reference: float | None = None
    scale: Literal["linear", "root", "log"] = "linear"

    def share(self, value: float) -> float:
        """Where `value` lies, from 0 to 1."""
        high = self.ticks[-1]
        inside = min(max(value, self.low), high)
        if self.scale == "log":
            return math.log(inside / self.low) / math.log(high / self.low)
        share = (inside - self.low) / (high - self.low)
        return math.sqrt(share) if self.scale == "root" else share

    def text(self, value: float) -> str:
        return f"{value:.6g}{self.unit}"


@dataclass(frozen=True)
class Placer:
    """Places values of an axis between two edges, in per cent of the width."""

    axis: Axis
    left: float
    right: float

    def at(self, value: float) -> float:
        return self.left + (self.right - self.left) * self.axis.share(value)

    def __call__(self, value: float) -> str:
        return f"{self.at(value):.2f}%"


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


def close_axis(title: str, values: Sequence[float], unit: str = "") -> Axis:
    """An axis that need not begin at 0: from the round number below the least value."""
    known = [value for value in values if abs(value) < LARGEST] or [0.0, 1.0]
    span = max(known) - min(known)
    power = 10.0 ** math.floor(math.log10(span / 4)) if span > 1e-9 else 0.1
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= span / 5)
    first = math.floor(min(known) / step + 1e-9)
    last = max(first + 1, math.ceil(max(known) / step - 1e-9))
    return Axis(title, first * step, tuple(step * i for i in range(first, last + 1)), unit)


def root_axis(title: str, values: Iterable[float], unit: str = "") -> Axis:
    """A square-root axis from 0, its ticks the squares of round numbers."""
    linear = axis_for(title, [math.sqrt(max(0.0, value)) for value in values])
    return Axis(title, 0.0, tuple(tick**2 for tick in linear.ticks), unit, scale="root")


def log_axis(title: str, values: Iterable[float], unit: str = "") -> Axis:
    """A logarithmic axis over the values above 0: its ticks are 1 and 3 times powers of ten."""
    known = [value for value in values if 0 < value < LARGEST] or [1.0]
    powers = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
    ticks = sorted({10.0**power * m for power in powers for m in (1, 3)})
    first = max(place for place, tick in enumerate(ticks) if tick <= min(known) * (1 + 1e-9))
    last = min(place for place, tick in enumerate(ticks) if tick >= max(known) * (1 - 1e-9))
    kept = ticks[first : max(last, first + 1) + 1]
    return Axis(title, kept[0], tuple(kept), unit, scale="log")


def estimate_values(marks: Iterable[Mark | Curve]) -> list[float]:
    """Every value and interval end of these marks, for an axis that holds them all."""
    estimates = [e for m in marks for e in (m.points.values() if isinstance(m, Curve) else [m.estimate])]
    return [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]


def extremes(marks: Sequence[Mark]) -> tuple[Mark | None, Mark | None]:
    """The lowest and the highest mark with data; a single mark is not the lowest."""
    known = sorted((m for m in marks if m.estimate.value is not None), key=lambda m: m.estimate.value or 0.0)
    return (known[0] if len(known) > 1 else None, known[-1] if known else None)


# --------------------------------------------------------------------------- figures in words


def short_figure(estimate: Estimate, axis: Axis) -> str:
    """A value as written beside its dot."""
    if estimate.value is None:
        return NO_DATA
    return f"{estimate.value:.2f}{axis.unit}" if abs(estimate.value) < 1e6 else f"{estimate.value:.2g}{axis.unit}"


def describe(name: str, estimate: Estimate, unit: str = "") -> str:
    """The tooltip of a mark: its name, value and interval."""
    if estimate.value is None:
        return f"{name}: no data"
    words = f"{name}: {estimate.value:.3g}{unit}"
    if estimate.low is not None and estimate.high is not None:
        words += f", 95 % interval {estimate.low:.3g} to {estimate.high:.3g}"
    return words


# --------------------------------------------------------------------------- elements of a picture


def grid(place: Placer, top: float, bottom: float) -> Markup:
    """Vertical grid, tick labels, the axis title and the dashed reference."""
    axis = place.axis
    parts = [line(place(t), top, place(t), bottom, "grid") for t in axis.ticks]
    parts += [text(axis.text(t), place(t), bottom + 18, "middle muted") for t in axis.ticks]
    if axis.reference is not None:
        parts.append(line(place(axis.reference), top, place(axis.reference), bottom, "reference"))
    parts.append(text(axis.title, f"{(place.left + place.right) / 2:.2f}%", bottom + 38, "middle muted"))
    return join(parts)


def whisker(place: Placer, estimate: Estimate, y: float, style: str = "") -> list[Markup]:
    """The interval as a line; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return []
    return [line(place(estimate.low), y, place(estimate.high), y, f"whisker {style}".strip())]


def dot(x: str, y: float, style: str = "") -> Markup:
    """A disc; `worst` is a diamond, whose inner `svg` has the place in per cent. `style` is a class."""
    if style != "worst":
        radius = 9 if "numbered" in style else 5
        return Markup(f'<circle cx="{x}" cy="{y:.6g}" r="{radius}" class="{f"dot {style}".strip()}"></circle>')
    return Markup(f'<svg x="{x}" y="{y:.6g}" class="place"><path d="M0-7 7 0 0 7-7 0Z" class="dot worst"></path></svg>')


def line(x1: str, y1: float, x2: str, y2: float, style: str) -> Markup:
    return Markup(f'<line x1="{x1}" y1="{y1:.6g}" x2="{x2}" y2="{y2:.6g}" class="{style}"></line>')


def text(words: str, x: str, y: float, style: str = "", dx: int = 0) -> Markup:
    more = (f' dx="{dx}"' if dx else "") + (f' class="{style}"' if style else "")
    return Markup(f'<text x="{x}" y="{y:.6g}"{more}>{escape.html(words)}</text>')


def titled(words: str, *parts: Markup) -> Markup:
    """Parts of a picture with a tooltip."""
    return Markup(f"<g><title>{escape.html(words)}</title>{''.join(parts)}</g>")


def svg(uid: str, title: str, desc: str, height: float, body: Iterable[Markup]) -> Markup:
    """A plot with a name and a description for screen readers; `uid` must be unique on the page."""
    named = element("title", title, id=f"{uid}-title") + element("desc", desc, id=f"{uid}-desc")
    return element(
        "svg",
        named + join(body),
        class_="plot",
        role="img",
        aria_labelledby=f"{uid}-title {uid}-desc",
        width="100%",
        height=height,
    )


# --------------------------------------------------------------------------- a scatter plot in a file of its own

WIDTH, EDGES, HEADROOM = 720, (9.0, 80.0), 14
STYLE = """
text { fill: currentColor; } .end { text-anchor: end; } .middle { text-anchor: middle; } .place { overflow: visible; }
line, polyline { stroke: currentColor; fill: none; } .grid { opacity: .15; } .leader { opacity: .2; }
.joined { opacity: .5; stroke-dasharray: 4 3; } .reference { stroke: #b45309; } .noise { fill: #b45309; }
.dot { fill: var(--colour); stroke: var(--colour); } .dot.hollow { fill: none; } .trend { stroke: var(--colour); }
"""


@dataclass(frozen=True)
class Series:
    """Points `(x, y)` of one colour, with an optional straight line between the two points of `trend`.

    `name` is written at the right, level with the end of the trend or the last point. `colour` is a CSS colour.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = "#0369a1"
    trend: tuple[tuple[float, float], tuple[float, float]] | None = None
    hollow: bool = False


def hue(place: int, count: int) -> str:
    """The colour of series `place` of `count`, evenly spaced around the colour circle."""
    return f"hsl({round(360 * place / count)} 65% 45%)"


def scatter(
    title: str,
    desc: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    joined: Sequence[tuple[float, float]] = (),
    threshold: tuple[float, str] | None = None,
    height: int = 420,
) -> str:
    """A scatter plot as an SVG file.

    Args:
        title: Name of the plot, for screen readers.
        desc: What it shows, for screen readers.
        x: Horizontal axis.
        y: Vertical axis.
        series: What is drawn; their names stand at the right, moved down where they would touch.
        joined: Points `(x, y)` joined by a dashed line, such as a Pareto front.
        threshold: A value of `y` that is marked by a horizontal line, and its label.
        height: Of the picture in pixels; the width is `WIDTH`.
    """
    across, bottom = Placer(x, *EDGES), height - 46
    left, right = (f"{edge:g}%" for edge in EDGES)

    def down(value: float) -> float:
        return HEADROOM + (bottom - HEADROOM) * (1 - y.share(value))

    body = [line(left, down(tick), right, down(tick), "grid") for tick in y.ticks]
    body += [text(y.text(tick), left, down(tick) + 4, "end", dx=-8) for tick in y.ticks]
    body += [text(x.text(tick), across(tick), bottom + 18, "middle") for tick in x.ticks]
    body.append(text(x.title, f"{sum(EDGES) / 2:g}%", bottom + 38, "middle"))
    body.append(element("text", y.title, transform=f"translate(14 {bottom / 2:g}) rotate(-90)", class_="middle"))
    if threshold is not None:
        level, words = threshold
        body += [
            line(left, down(level), right, down(level), "reference"),
            text(words, left, down(level) - 4, "noise", 4),
        ]
    if joined:
        points = " ".join(f"{across.at(a) / 100 * WIDTH:.1f},{down(b):.1f}" for a, b in joined)
        body.append(element("polyline", points=points, class_="joined"))
    ends = []
    for each in series:
        parts = []
        if each.trend is not None:
            (x0, y0), (x1, y1) = each.trend
            parts.append(line(across(x0), down(y0), across(x1), down(y1), "trend"))
        style = "hollow" if each.hollow else ""
        for a, b in each.points:
            words = f"{each.name}: {x.title} {a:.3g}{x.unit}, {y.title} {b:.3g}{y.unit}"
            parts.append(titled(words, dot(across(a), down(b), style)))
        body.append(element("g", join(parts), style=f"--colour: {each.colour}"))
        ends.append((down((each.trend or each.points)[-1][1]), across((each.trend or each.points)[-1][0]), each.name))
    free = -math.inf
    for level, at, name in sorted(ends):
        free = max(level, free + 13)
        body += [line(at, level, f"{EDGES[1] + 1:g}%", free, "leader"), text(name, f"{EDGES[1] + 2:g}%", free + 4)]
    inner = element("title", title) + element("desc", desc) + element("style", Markup(STYLE)) + join(body)
    frame = f'viewBox="0 0 {WIDTH} {height}" role="img" font-size="12" font-family="system-ui, sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>{inner}</svg>\n'
