"""What the pages show of one report, and of two compared: names, figures, rows, plots.

Rows are sorted by acceptance or by name, never by `unfairness`: a drafter equally bad everywhere has none of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.metrics.comparison import Comparison, SuiteComparison
from fairspec_bench.metrics.measure import Definition
from fairspec_bench.metrics.validity import COMPLETE, DTYPE_DIVERGENCE, FITNESS, SHARES, is_mostly_bad
from fairspec_bench.reporting.svg import (
    Axis,
    Curve,
    Mark,
    Strip,
    axis_for,
    estimate_values,
)
from fairspec_bench.schemas.base import EMBEDDED
from fairspec_bench.schemas.config import ModelConfig
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport, TaskReport
from fairspec_bench.site.labels import NOTHING, Labels, figure
from fairspec_bench.site.plots import Both, both_plot, curve_plot, interval_plot, strip_plot

SMALL_PARAMETERS = 20_000_000
CAUSAL_LMS = {name for name, kind in DRAFTER_KINDS.items() if kind.causal_lm}  # named without their kind


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
        return drafter.name if drafter.kind in CAUSAL_LMS else f"{drafter.kind}: {drafter.name}"

    @property
    def embedded(self) -> bool:
        return self.verifier.startswith(EMBEDDED)

    @property
    def small(self) -> bool:
        """Whether the models are toys, too small to say anything of real ones."""
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
    labels: Labels

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
        known, count = len(self._known(name)), len(self.suite.tasks)
        return f"{known} of {count} languages" if 0 < known < count else ""

    def _known(self, name: str) -> list[float]:
        values = (task.measures.get(name, NOTHING).value for task in self.suite.tasks)
        return [value for value in values if value is not None]

    def lowest(self, name: str) -> tuple[tuple[str, ...], Estimate]:
        """The languages with the lowest value of a measure, as the pages round it, and the figure; none without data.

        The figure is the report's `worst_…` where it has one: its interval allows for the choice of the lowest, so it
        is never narrower than a language's own, which at exactly 0 rests on the number of problems alone.
        """
        known = [task for task in self.suite.tasks if task.measures.get(name, NOTHING).value is not None]
        if not known:
            return (), NOTHING
        kind, least = self.labels.measure(name).kind, min(_order(task, name) for task in known)
        tied = [task for task in known if figure(_order(task, name), kind) == figure(least, kind)]
        codes = tuple(sorted(task.language for task in tied))
        own = [task.measures[name] for task in known if _order(task, name) == least]
        return codes, _widest([self.suite.across.get(f"worst_{name}", own[0]), *own])

    def slower(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Languages in which the drafter costs time: those whose whole interval is below 1×, those with no interval."""
        raced = [(t.language, t.measures.get("speedup", NOTHING)) for t in self.tasks]
        below = [(code, e) for code, e in raced if e.value is not None and e.value < 1]
        significant = tuple(code for code, e in below if e.high is not None and e.high < 1)
        return significant, tuple(code for code, e in below if e.high is None)

    @cached_property
    def mostly_bad(self) -> frozenset[str]:
        """The languages of which most answers repeat themselves or are cut: they are shown and not ranked."""
        unknown = dict.fromkeys(SHARES, NOTHING)
        return frozenset(t.language for t in self.suite.tasks if is_mostly_bad({**unknown, **t.measures}))

    def may_be_lowest(self) -> tuple[str, ...]:
        """The languages whose acceptance is the lowest or does not differ significantly from it."""
        last = max((high for _, high in self.suite.ranks.values()), default=0)
        found = {Task(task).language for task, (_, high) in self.suite.ranks.items() if high == last}
        return tuple(sorted(found.union(self.lowest("acceptance")[0])))

    @property
    def codes(self) -> list[str]:
        return [task.language for task in self.suite.tasks]

    def figure_of(self, language: str, name: str) -> Estimate:
        """A figure of one language; no data where this run does not have it."""
        return next((t.measures.get(name, NOTHING) for t in self.suite.tasks if t.language == language), NOTHING)

    def acceptance_of(self, language: str) -> Estimate:
        return self.figure_of(language, "acceptance")

    def has(self, *names: str) -> bool:
        """Whether any language has a value of any of these measures."""
        return any(self._known(name) for name in names)

    def fitness(self) -> tuple[str, ...]:
        """The measures of either model's fitness that this suite has."""
        return tuple(name for name in FITNESS if self.has(name))

    @property
    def complete(self) -> tuple[str, ...]:
        """Figures with and without answers that repeat themselves or are cut; none where no answer does."""
        bad = any(_order(task, name) > 0 for task in self.suite.tasks for name in ("looping", "truncated"))
        return tuple(name for pair in COMPLETE.items() for name in pair if bad and self.has(name))

    @property
    def divergence(self) -> tuple[str, ...]:
        """The measures of divergence from float32; none where the run did not compute them."""
        return DTYPE_DIVERGENCE if self.has(DTYPE_DIVERGENCE[0]) else ()

    def within_noise(self) -> bool:
        """Whether the unfairness could be noise alone: it is within the floor."""
        value, floor = self.across("unfairness").value, self.suite.noise_floor
        return value is not None and floor is not None and value <= floor

    def rank(self, task: TaskReport) -> tuple[int, int] | None:
        """The ranks that the task may have among its suite's."""
        return self.suite.ranks.get(task.task)

    def validity(self) -> list[tuple[Definition, str, Estimate]]:
        """Each share of bad or diverged answers that is not 0 everywhere: its highest value, and the language."""
        found = []
        for name in (*SHARES, DTYPE_DIVERGENCE[0]):
            tasks = [task for task in self.suite.tasks if _order(task, name) > 0]
            if tasks:
                task = max(tasks, key=lambda t: (_order(t, name), t.language))
                found.append((self.labels.measure(name), task.language, task.measures[name]))
        return found

    def recorded(self) -> list[Definition]:
        """Every measure that any language has, in the order of the catalogue, unknown ones last by name."""
        order = {name: i for i, name in enumerate(self.labels.measures)}
        names = {name for task in self.suite.tasks for name in task.measures}
        return [self.labels.measure(name) for name in sorted(names, key=lambda n: (order.get(n, len(order)), n))]

    def heading(self, measure: Definition) -> str:
        """A column's heading. The embedded suite's accuracy is named for what it is."""
        if self.run.embedded and measure.name.endswith("_fitness"):
            return f"{measure.label.split()[0]}, template exact match"
        return measure.heading

    # ------------------------------------------------------------------- plots

    def marks(self, name: str) -> tuple[Mark, ...]:
        return tuple(
            Mark(self.labels.language(t.language), t.language, t.measures.get(name, NOTHING)) for t in self.tasks
        )

    def interval_plot(self, uid: str, name: str) -> Markup:
        """Dots and intervals of `acceptance` or `speedup` by language."""
        measure = self.labels.measure(name)
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
        """Whether the clock of this run's race can be trusted."""
        return self.run.report.race_verdict.quiet

    def waits(self) -> tuple[Both, ...]:
        """The waiting time for one answer without and with the drafter, longest first: seconds, else verifier calls.

        Without a drafter there is one call per token.
        """
        names = ("seconds_per_answer_autoregressive", "seconds_per_answer")
        first, second = names if self.has(names[1]) else ("tokens_per_answer", "verifier_calls_per_answer")
        ordered = sorted(self.suite.tasks, key=lambda t: (-_order(t, second), t.language))
        return tuple(
            Both(
                self.labels.language(t.language),
                t.measures.get(first, NOTHING),
                t.measures.get(second, NOTHING),
                (t.measures.get("speedup", NOTHING).high or math.inf) < 1,
                t.language,
            )
            for t in ordered
        )

    def longest_wait(self) -> Both | None:
        """The language that waits longest with the drafter, in seconds; None where no time was measured."""
        known = [each for each in self.waits() if each.second.value is not None]
        return known[0] if known and self.has("seconds_per_answer") else None

    def waits_plot(self, uid: str) -> Markup:
        """Two dots a language: the wait without the drafter and with it."""
        rows = self.waits()
        unit = "seconds" if self.has("seconds_per_answer") else "calls of the verifier"
        title = f"Waiting time for one answer, {self.suite.suite}"
        desc = "One row a language, longest wait first; a ring without the drafter, a disc with it."
        values = [v for each in rows for e in (each.first, each.second) for v in (e.value, e.high) if v is not None]
        axis = axis_for(unit, values)
        return both_plot(uid, title, desc, axis, rows, ("verifier alone", "with the drafter"))

    def _curves(self, points: Mapping[str, Mapping[int, Estimate]]) -> tuple[Curve, ...]:
        """A curve for every language, or none at all where no point has a value."""
        curves = tuple(Curve(self.labels.language(t.language), t.language, points[t.task]) for t in self.tasks)
        return curves if estimate_values(curves) else ()

    def extremes(self, name: str) -> str:
        known = [m for m in self.marks(name) if m.estimate.value is not None]
        if not known:
            return "No data."
        low, high = (pick(known, key=lambda m: m.estimate.value or 0.0) for pick in (min, max))
        kind = self.labels.measure(name).kind
        return (
            f"Highest: {high.name}, {figure(high.estimate.value, kind)}. "
            f"Lowest: {low.name}, {figure(low.estimate.value, kind)}."
        )


def overview_plot(uid: str, suite: str, views: Sequence[SuiteView]) -> Markup:
    """A strip for each run of one suite: a dot a language on the scale of acceptance."""
    strips = [
        Strip(f"{view.run.name} · γ = {view.run.report.config.gamma}", view.marks("acceptance")) for view in views
    ]
    desc = "A line a run, a dot a language; the language with the lowest acceptance is a diamond. " + " ".join(
        f"{view.run.name}: {view.extremes('acceptance')}" for view in views
    )
    return strip_plot(uid, f"Acceptance by language of every run, {suite}", desc, axis_for("acceptance", [1.0]), strips)


def board(runs: Sequence[Run], labels: Labels) -> dict[str, list[SuiteView]]:
    """The suites by name; in each the runs by verifier, full ones first, then by mean acceptance, highest first."""
    views = [SuiteView(run, suite, labels) for run in runs for suite in run.report.suites]
    views.sort(key=lambda v: (v.suite.suite, v.run.verifier, *_standing(v), v.run.slug))
    suites: dict[str, list[SuiteView]] = {}
    for view in views:
        suites.setdefault(view.suite.suite, []).append(view)
    return suites


def _standing(view: SuiteView) -> tuple[bool, float]:
    """The order of runs: a mean that leaves languages out comes after every full one."""
    return bool(view.shortfall("acceptance")), -_known(view.mean("acceptance").value)


def _axis(measure: Definition, marks: Iterable[Mark]) -> Axis:
    if measure.kind == "ratio":
        return axis_for(measure.label.lower(), [1.0])
    title = f"{measure.label.lower()} (dashed: none)"
    return axis_for(title, estimate_values(marks), unit="×", reference=1.0)


def _order(task: TaskReport, name: str) -> float:
    return _known(task.measures.get(name, NOTHING).value)


def _widest(estimates: Sequence[Estimate]) -> Estimate:
    """The first value with the union of the intervals; no interval where one of them has none."""
    lows, highs = [e.low for e in estimates], [e.high for e in estimates]
    if any(end is None for end in (*lows, *highs)):
        return estimates[0]
    low, high = min(end for end in lows if end is not None), max(end for end in highs if end is not None)
    return estimates[0].model_copy(update={"low": low, "high": high})


def _known(value: float | None) -> float:
    """The value, or below every value for no data."""
    return -math.inf if value is None else value


# --------------------------------------------------------------------------- before and after


@dataclass(frozen=True)
class RunChange:
    """Two run folders of the board and their comparison, second − first."""

    before: Path
    after: Path
    comparison: Comparison


@dataclass(frozen=True)
class ChangeView:
    """One suite before and after."""

    before: SuiteView
    after: SuiteView
    comparison: SuiteComparison

    @property
    def suite(self) -> str:
        return self.comparison.suite

    def rows(self) -> Iterator[tuple[str, Estimate, Estimate, Estimate, bool]]:
        """Language, acceptance before and after, change, and whether it was levelled down; worst before first."""
        for task in reversed(self.before.tasks):
            change = self.comparison.differences["acceptance"].get(task.task, NOTHING)
            fallen = task.task in self.comparison.levelled_down
            before, after = (view.acceptance_of(task.language) for view in (self.before, self.after))
            yield task.language, before, after, change, fallen

    def plot(self, uid: str) -> Markup:
        """Both runs as strips of dots, a dot a language."""
        strips = [Strip("before", self.before.marks("acceptance")), Strip("after", self.after.marks("acceptance"))]
        title = f"Acceptance by language before and after, {self.suite}"
        desc = "Two lines, a dot a language; the language with the lowest acceptance is a diamond."
        return strip_plot(uid, title, desc, axis_for("acceptance", [1.0]), strips)


def change_views(change: RunChange, views: Sequence[SuiteView], folders: Mapping[Path, str]) -> list[ChangeView]:
    """The suites that both runs have. `folders` gives each run folder's slug."""
    by_run = {(view.run.slug, view.suite.suite): view for view in views}
    first, second = (folders.get(path.resolve(), "") for path in (change.before, change.after))
    return [
        ChangeView(by_run[first, one.suite], by_run[second, one.suite], one)
        for one in change.comparison.suites
        if (first, one.suite) in by_run and (second, one.suite) in by_run
    ]
