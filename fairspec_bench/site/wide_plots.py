"""Pictures of a whole board: the plane of acceptance and unfairness, ranges of ranks, the small strip in a table's row.

Knows estimates and names; draws with `parts`. Judges nothing: who is on the front or within noise is said by the board.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from markupsafe import Markup

from fairspec_bench.records import Estimate
from fairspec_bench.site.parts import (
    Axis,
    Mark,
    Placer,
    close_axis,
    dot,
    element,
    extremes,
    join,
    line,
    root_axis,
    sentence,
    shorten,
    svg,
    text,
    told,
    whisker,
)

Down = Callable[[float], float]
LABELS = 8  # the most names a plane carries
NOMINAL = 760.0  # width in pixels at which labels are kept apart
LETTER = 6.8  # width of a letter there
WHISKERS = 40  # beyond so many spots only the named ones carry intervals


@dataclass(frozen=True)
class Spot:
    """A drafter on the plane. `front`: none is better in both; `noise`: its U is within its floor."""

    name: str
    across: Estimate
    up: Estimate
    front: bool
    noise: bool
    named: bool


def plane(uid: str, title: str, desc: str, x_title: str, spots: Sequence[Spot], floor: float, unit: str = "") -> Markup:
    """Further right is better, further down fairer; the front is a stepped line, the shaded band is noise.

    Downwards by the square root of U, which is a gap in nats, so that small differences near 0 are seen.
    """
    height, top = 340, 14
    xs = [v for s in spots for v in (s.across.value, s.across.low, s.across.high) if v is not None]
    ys = [v for s in spots for v in (s.up.value, s.up.high) if v is not None]
    place = Placer(close_axis(x_title, xs, unit), 9, 97)
    up = root_axis("unfairness U, nats²", [*ys, floor])

    def down(value: float) -> float:
        return top + height * (1 - up.share(value))

    bottom = top + height
    body = [_band(down(floor), bottom)] if floor > 0 else []
    body += [line("9%", down(t), "97%", down(t), "grid") for t in up.ticks]
    body += [text(f"{t:.2g}", "7.5%", down(t) + 4, "end muted") for t in up.ticks]
    body += [line(place(t), top, place(t), bottom, "grid") for t in place.axis.ticks]
    body += [text(place.axis.text(t), place(t), bottom + 18, "middle muted") for t in place.axis.ticks]
    body.append(text(f"{x_title} →", "97%", bottom + 38, "end muted"))
    body.append(text("unfairness U, nats²; fairer ↓", "0%", bottom + 38, "muted"))
    if floor > 0:
        body.append(text("noise", "96.5%", bottom - 6, "end muted"))
    body += _front([s for s in spots if s.front], place, down)
    crowded = len(spots) > WHISKERS
    for spot in sorted(spots, key=lambda s: (s.named, s.front)):
        body.append(_spot(spot, place, down, bare=crowded and not spot.named))
    body += _labels([s for s in spots if s.named][:LABELS], place, down)
    return svg(uid, title, desc, bottom + 46, body)


def _band(top: float, bottom: float) -> Markup:
    return element("rect", x="9%", y=top, width="88%", height=max(1.0, bottom - top), class_="noise")


def _front(spots: Sequence[Spot], place: Placer, down: Down) -> list[Markup]:
    """The Pareto front as steps from its least to its most accepted drafter."""
    known = sorted((s.across.value, s.up.value) for s in spots if s.across.value is not None and s.up.value is not None)
    parts = []
    for (x0, y0), (x1, y1) in pairwise(known):
        parts.append(line(place(x0), down(y0), place(x1), down(y0), "front"))
        parts.append(line(place(x1), down(y0), place(x1), down(y1), "front"))
    return parts


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
    parts.append(dot(place(x), down(y), style))
    return told(f"{sentence(spot.name, spot.across)}; {sentence('U', spot.up)}", *parts)


def _labels(spots: Sequence[Spot], place: Placer, down: Down) -> list[Markup]:
    """Names beside their dots, each where it covers no other name, else left out."""
    taken: list[tuple[float, float, float, float]] = []
    parts = []
    for spot in spots:
        if spot.across.value is None or spot.up.value is None:
            continue
        name = shorten(spot.name, 28)
        x, y, wide = place.at(spot.across.value) / 100 * NOMINAL, down(spot.up.value), LETTER * len(name)
        sides = (("start", 11), ("end", -11)) if x < NOMINAL / 2 else (("end", -11), ("start", 11))
        for dy, (side, dx) in product((-8, 18), sides):
            left = x + dx if side == "start" else x + dx - wide
            box = (left, y + dy - 13, left + wide, y + dy + 3)
            if left < 0 or box[2] > NOMINAL or box[1] < 0 or any(_meet(box, other) for other in taken):
                continue
            taken.append(box)
            parts.append(text(name, place(spot.across.value), y + dy, f"{side} halo name", dx=dx))
            break
    return parts


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
        body.append(told(f"{each.name}: rank {words}", *parts))
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
