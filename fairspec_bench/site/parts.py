"""What every picture and table is made of: harmless text, elements, marks, axes, lines and dots.

Knows estimates and where on a line a value lies. Knows nothing of runs, measures, files or pages.

Across, everything is placed in per cent of the page's width; down and in type size, in pixels: a plot narrows with the
page while its letters stay readable. Colours are classes of the style sheet (light, dark, print); the worst is also a
diamond, so that no meaning hangs on colour. Every text passes `inert` and is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from fairspec_bench.measure.escape import inert
from fairspec_bench.records import Estimate

NO_DATA = "–"
LARGEST = 1e12  # an axis ends here; what a hostile report claims beyond it is drawn at its end

# --------------------------------------------------------------------------- text


@lru_cache(maxsize=2**14)
def escaped(text: str) -> str:
    """`text` inert and fit to stand between tags or in a quoted attribute."""
    return html.escape(inert(text))


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
    return Markup(f"<{name}{written}>{body if isinstance(body, Markup) else escaped(body)}</{name}>")


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return escaped(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------- marks and axes


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
    """A scale from `low` to the last of `ticks`; what lies outside is drawn at its end.

    Linear, or by the square root: for squares that differ by orders of magnitude and may be 0.
    """

    title: str
    low: float
    ticks: tuple[float, ...]
    unit: str = ""
    reference: float | None = None
    root: bool = False

    def share(self, value: float) -> float:
        """Where `value` lies, from 0 to 1."""
        high = self.ticks[-1]
        share = (min(max(value, self.low), high) - self.low) / (high - self.low)
        return math.sqrt(share) if self.root else share

    def text(self, value: float) -> str:
        return f"{value:.6g}{self.unit}"


@dataclass(frozen=True)
class Placer:
    """Values of an axis as per cent of the page's width, between two edges in per cent."""

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
    return Axis(title, 0.0, tuple(tick**2 for tick in linear.ticks), unit, root=True)


def estimate_values(marks: Iterable[Mark | Curve]) -> list[float]:
    """Every value and interval end of these marks: what an axis must hold."""
    estimates = [e for m in marks for e in (m.points.values() if isinstance(m, Curve) else [m.estimate])]
    return [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]


def extremes(marks: Sequence[Mark]) -> tuple[Mark | None, Mark | None]:
    """The lowest and the highest mark with data; of a single one no worst is said."""
    known = sorted((m for m in marks if m.estimate.value is not None), key=lambda m: m.estimate.value or 0.0)
    return (known[0] if len(known) > 1 else None, known[-1] if known else None)


# --------------------------------------------------------------------------- words


def short_figure(estimate: Estimate, axis: Axis) -> str:
    """A value as it stands beside its dot."""
    if estimate.value is None:
        return NO_DATA
    return f"{estimate.value:.2f}{axis.unit}" if abs(estimate.value) < 1e6 else f"{estimate.value:.2g}{axis.unit}"


def sentence(name: str, estimate: Estimate, unit: str = "") -> str:
    """What a pointer resting on a mark is told."""
    if estimate.value is None:
        return f"{name}: no data"
    words = f"{name}: {estimate.value:.3g}{unit}"
    if estimate.low is not None and estimate.high is not None:
        words += f", 95 % interval {estimate.low:.3g} to {estimate.high:.3g}"
    return words


# --------------------------------------------------------------------------- elements of a picture


def grid(place: Placer, top: float, bottom: float) -> Markup:
    """Vertical grid, tick figures, the axis title and the dashed reference."""
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
    """A disc; the worst is a diamond, whose inner `svg` carries the per-cent place. Styles are the site's own words."""
    if style != "worst":
        return Markup(f'<circle cx="{x}" cy="{y:.6g}" r="5" class="{f"dot {style}" if style else "dot"}"></circle>')
    return Markup(f'<svg x="{x}" y="{y:.6g}" class="place"><path d="M0-7 7 0 0 7-7 0Z" class="dot worst"></path></svg>')


def line(x1: str, y1: float, x2: str, y2: float, style: str) -> Markup:
    return Markup(f'<line x1="{x1}" y1="{y1:.6g}" x2="{x2}" y2="{y2:.6g}" class="{style}"></line>')


def text(words: str, x: str, y: float, style: str = "", dx: int = 0) -> Markup:
    more = (f' dx="{dx}"' if dx else "") + (f' class="{style}"' if style else "")
    return Markup(f'<text x="{x}" y="{y:.6g}"{more}>{escaped(words)}</text>')


def told(words: str, *parts: Markup) -> Markup:
    """Parts of a picture that answer a pointer resting on them."""
    return Markup(f"<g><title>{escaped(words)}</title>{''.join(parts)}</g>")


def svg(uid: str, title: str, desc: str, height: float, body: Iterable[Markup]) -> Markup:
    """The picture, named and described for those who do not see it; `uid` must be the page's own."""
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
