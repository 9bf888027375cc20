"""What the pages say about one report: names, figures, rows, pictures.

Knows reports and their words. Knows nothing of HTML files, folders or templates. Rows are sorted by acceptance or by
name, never by `unfairness`: a drafter equally bad everywhere has none of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from fairspec_bench.measure.speed import QUIET
from fairspec_bench.records import Estimate, ModelConfig, Report, SuiteReport, TaskReport
from fairspec_bench.site.parts import (
    NO_DATA,
    Axis,
    Curve,
    Mark,
    Strip,
    axis_for,
    estimate_values,
)
from fairspec_bench.site.plots import Both, both_plot, curve_plot, interval_plot, strip_plot
from fairspec_bench.site.words import NOTHING, Measure, Vocabulary, figure

VALIDITY = ("truncated", "looping", "off_language", "dropped")
FITNESS = ("verifier_fitness", "drafter_fitness", "verifier_bits_per_byte", "drafter_bits_per_byte")
DEPARTURE = ("departed_share", "departure_gap", "departure_position")
TOLERATED = 0.01  # a share of bad answers above this is marked
SMALL_PARAMETERS = 20_000_000
EMBEDDED = "embedded:"


@dataclass(frozen=True)
class Run:
    """A report and what it is called: `name` as the folder is, `slug` safe in a file name and unique on the board."""

    name: str
    slug: str
    report: Report

    @property
    def page(self) -> str:
        return f"runs/{self.slug}.html"

    @property
    def verifier(self) -> str:
        return self.report.config.verifier.name

    @property
    def drafter(self) -> str:
        drafter = self.report.config.drafter
        if drafter is None:
            return "no drafter"
        return drafter.name if drafter.kind == "model" else f"{drafter.kind}: {drafter.name}"

    @property
    def embedded(self) -> bool:
        return self.verifier.startswith(EMBEDDED)

    @property
    def small(self) -> bool:
        """Whether the pair is evidence about the machinery only."""
        parameters = self.report.config.verifier.parameters
        return self.embedded or (parameters is not None and parameters < SMALL_PARAMETERS)

    @property
    def models(self) -> tuple[tuple[str, ModelConfig], ...]:
        config = self.report.config
        return (("Verifier", config.verifier), *([("Drafter", config.drafter)] if config.drafter else []))


@dataclass(frozen=True)
class SuiteView:
    """One suite of one run as a page shows it."""

    run: Run
    suite: SuiteReport
    words: Vocabulary

    @cached_property
    def tasks(self) -> list[TaskReport]:
        """Best acceptance first, those without data last, equal ones by language."""
        return sorted(self.suite.tasks, key=lambda t: (-_order(t, "acceptance"), t.language))

    def across(self, name: str) -> Estimate:
        return self.suite.across.get(name, NOTHING)

    def mean(self, name: str) -> Estimate:
        """The figure over all languages: the report's own, else the plain mean of those that have one, no interval."""
        own = self.across(f"mean_{name}")
        if own.value is not None:
            return own
        known = self._known(name)
        return Estimate(value=math.fsum(known) / len(known)) if known else NOTHING

    def shortfall(self, name: str) -> str:
        """How many languages a mean or a worst rests on, said only where one lacks data."""
        known, asked = len(self._known(name)), len(self.suite.tasks)
        return f"{known} of {asked} languages" if 0 < known < asked else ""

    def _known(self, name: str) -> list[float]:
        values = (task.measures.get(name, NOTHING).value for task in self.suite.tasks)
        return [value for value in values if value is not None]

    def lowest(self, name: str) -> tuple[str, Estimate]:
        """The language with the lowest value of a measure and the figure for it; no name without data.

        The figure is the report's `worst_…` where it has one: its interval allows for the choice of the lowest.
        """
        known = [task for task in self.suite.tasks if task.measures.get(name, NOTHING).value is not None]
        if not known:
            return "", NOTHING
        task = min(known, key=lambda t: (_order(t, name), t.language))
        return task.language, self.suite.across.get(f"worst_{name}", task.measures[name])

    @property
    def codes(self) -> list[str]:
        return [task.language for task in self.suite.tasks]

    def acceptance_of(self, language: str) -> Estimate:
        """The acceptance of one language; no data where this run has not asked it."""
        return next(
            (t.measures.get("acceptance", NOTHING) for t in self.suite.tasks if t.language == language), NOTHING
        )

    def has(self, *names: str) -> bool:
        """Whether any language has a value of any of these measures."""
        return any(self._known(name) for name in names)

    def fitness(self) -> tuple[str, ...]:
        """The measures of either model's fitness that this suite has."""
        return tuple(name for name in FITNESS if self.has(name))

    @property
    def departure(self) -> tuple[str, ...]:
        """How far texts of a half type are from float32's; nothing where a run did not ask."""
        return DEPARTURE if self.has(DEPARTURE[0]) else ()

    def within_noise(self) -> bool:
        """Whether the unfairness could be noise alone: it is within the floor."""
        value, floor = self.across("unfairness").value, self.suite.noise_floor
        return value is not None and floor is not None and value <= floor

    def rank(self, task: TaskReport) -> str:
        low, high = self.suite.ranks.get(task.task, (0, 0))
        if not low:
            return NO_DATA
        return str(low) if low == high else f"{low}–{high}"

    def validity(self) -> list[tuple[Measure, str, Estimate]]:
        """The highest share of each validity column, departures too, that is not 0 everywhere, and whose it is."""
        found = []
        for name in (*VALIDITY, DEPARTURE[0]):
            tasks = [task for task in self.suite.tasks if _order(task, name) > 0]
            if tasks:
                task = max(tasks, key=lambda t: (_order(t, name), t.language))
                found.append((self.words.measure(name), task.language, task.measures[name]))
        return found

    def recorded(self) -> list[Measure]:
        """Every measure any language carries: in the glossary's order, unknown ones last by name."""
        order = {name: i for i, name in enumerate(self.words.measures)}
        names = {name for task in self.suite.tasks for name in task.measures}
        return [self.words.measure(name) for name in sorted(names, key=lambda n: (order.get(n, len(order)), n))]

    def heading(self, measure: Measure) -> str:
        """A column's heading. The embedded suite's accuracy is named for what it is."""
        if self.run.embedded and measure.name.endswith("_fitness"):
            return f"{measure.label.split()[0]}, template exact match"
        return measure.heading

    # ------------------------------------------------------------------- pictures

    def marks(self, name: str) -> tuple[Mark, ...]:
        return tuple(
            Mark(self.words.language(t.language), t.language, t.measures.get(name, NOTHING)) for t in self.tasks
        )

    def interval_plot(self, uid: str, name: str) -> Markup:
        """Dots and intervals of `acceptance` or `speedup` by language."""
        measure = self.words.measure(name)
        marks = self.marks(name)
        axis = _axis(measure, marks)
        desc = f"One row a language, best first; the line is the 95 % interval. {self.extremes(name)}"
        return interval_plot(uid, f"{measure.label} by language, {self.suite.suite}", desc, axis, marks)

    def gamma_curves(self) -> tuple[Curve, ...]:
        return self._curves({t.task: t.block_efficiency_by_gamma for t in self.tasks})

    def position_curves(self) -> tuple[Curve, ...]:
        return self._curves({t.task: dict(enumerate(t.acceptance_joint, 1)) for t in self.tasks})

    def gamma_plot(self, uid: str) -> Markup:
        curves = self.gamma_curves()
        axis = axis_for("tokens per verifier call", estimate_values(curves), low=1.0)
        desc = "Tokens per verifier call by number of drafts γ, replayed from one run; a line a language."
        return curve_plot(uid, f"Block efficiency by γ, {self.suite.suite}", desc, "drafts per block γ", axis, curves)

    def position_plot(self, uid: str) -> Markup:
        curves = self.position_curves()
        axis = axis_for("chance", [1.0])
        desc = "Chance that this draft and all before it in its block are accepted, by position; a line a language."
        return curve_plot(
            uid, f"Joint acceptance by position, {self.suite.suite}", desc, "position in block", axis, curves
        )

    @property
    def raced(self) -> bool:
        return self.has("speedup")

    @property
    def verdict(self) -> bool:
        """Whether the race of this run says anything: the machine was quiet."""
        return self.run.report.race_verdict.startswith(f"{QUIET}:")

    def waits(self) -> tuple[Both, ...]:
        """What a person waits for one answer without and with the drafter, longest first: seconds, else verifier calls.

        Without a drafter there is a call a token.
        """
        names = ("seconds_per_answer_autoregressive", "seconds_per_answer")
        first, second = names if self.has(names[1]) else ("tokens_per_answer", "verifier_calls_per_answer")
        ordered = sorted(self.suite.tasks, key=lambda t: (-_order(t, second), t.language))
        return tuple(
            Both(
                self.words.language(t.language),
                t.measures.get(first, NOTHING),
                t.measures.get(second, NOTHING),
                (t.measures.get("speedup", NOTHING).high or math.inf) < 1,
                t.language,
            )
            for t in ordered
        )

    def waits_plot(self, uid: str) -> Markup:
        """Two dots a language: the wait without the drafter and with it."""
        rows = self.waits()
        seconds = self.has("seconds_per_answer")
        title = f"What a person waits for one answer, {self.suite.suite}"
        desc = "One row a language, longest wait first; a ring without the drafter, a disc with it."
        values = [v for each in rows for e in (each.first, each.second) for v in (e.value, e.high) if v is not None]
        axis = axis_for("seconds" if seconds else "calls of the verifier", values)
        return both_plot(uid, title, desc, axis, rows, ("verifier alone", "with the drafter"))

    def _curves(self, points: Mapping[str, Mapping[int, Estimate]]) -> tuple[Curve, ...]:
        """A curve for every language, or none at all where no point has a value."""
        curves = tuple(Curve(self.words.language(t.language), t.language, points[t.task]) for t in self.tasks)
        return curves if estimate_values(curves) else ()

    def extremes(self, name: str) -> str:
        known = [m for m in self.marks(name) if m.estimate.value is not None]
        if not known:
            return "No data."
        low, high = (pick(known, key=lambda m: m.estimate.value or 0.0) for pick in (min, max))
        kind = self.words.measure(name).kind
        return (
            f"Highest: {high.name}, {figure(high.estimate.value, kind)}. "
            f"Lowest: {low.name}, {figure(low.estimate.value, kind)}."
        )


def overview_plot(uid: str, suite: str, views: Sequence[SuiteView]) -> Markup:
    """A strip for each run of one suite: a dot a language on the scale of acceptance."""
    strips = [
        Strip(f"{view.run.name} · γ = {view.run.report.config.gamma}", view.marks("acceptance")) for view in views
    ]
    desc = "A line a run, a dot a language; the language served worst is a diamond. " + " ".join(
        f"{view.run.name}: {view.extremes('acceptance')}" for view in views
    )
    return strip_plot(uid, f"Acceptance by language of every run, {suite}", desc, axis_for("acceptance", [1.0]), strips)


def board(runs: Sequence[Run], words: Vocabulary) -> dict[str, list[SuiteView]]:
    """The suites by name; in each the runs by verifier, full ones first, then by mean acceptance, highest first."""
    views = [SuiteView(run, suite, words) for run in runs for suite in run.report.suites]
    views.sort(key=lambda v: (v.suite.suite, v.run.verifier, *_standing(v), v.run.slug))
    suites: dict[str, list[SuiteView]] = {}
    for view in views:
        suites.setdefault(view.suite.suite, []).append(view)
    return suites


def _standing(view: SuiteView) -> tuple[bool, float]:
    """Where a run stands beside others: a mean that leaves languages out comes after every full one."""
    return bool(view.shortfall("acceptance")), -_known(view.mean("acceptance").value)


def _axis(measure: Measure, marks: Iterable[Mark]) -> Axis:
    if measure.kind == "ratio":
        return axis_for(measure.label.lower(), [1.0])
    title = f"{measure.label.lower()} (dashed: none)"
    return axis_for(title, estimate_values(marks), unit="×", reference=1.0)


def _order(task: TaskReport, name: str) -> float:
    return _known(task.measures.get(name, NOTHING).value)


def _known(value: float | None) -> float:
    """The value, or below every value for no data."""
    return -math.inf if value is None else value
