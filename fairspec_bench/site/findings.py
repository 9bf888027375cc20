"""What the pages of a board show: the plots, the sentence above each, and rows that need more than a template.

Templates call these functions by name (`findings.…`); they return text, typed rows and finished plots.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from fairspec_bench.metrics.comparison import SuiteComparison
from fairspec_bench.metrics.sweep import served_within
from fairspec_bench.reporting.svg import Axis, Mark, Strip, axis_for, close_axis
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, SweepCell, SweepReport
from fairspec_bench.site import plots
from fairspec_bench.site.board import Board, Candidate, Placed, unsurpassed
from fairspec_bench.site.labels import NOTHING, Labels, figure, name_list
from fairspec_bench.site.plots import Both, Range, Spot, both_plot, interval_plot, plane, range_plot, strip_plot
from fairspec_bench.site.stories import ENGLISH, LanguageStory
from fairspec_bench.site.views import SuiteView

SHOWN = 30  # rows of the heat map, the ranges of ranks and the figures of the plane
TABLED = 50  # rows of a language's table
BEST, LOWEST = 12, 3  # rows of a language's plot where it cannot hold all
STEPS = 10  # of the heat map's scale
FEWEST = 3  # submissions on a plane
UNIT = Axis("acceptance", 0.0, (1.0,))


# --------------------------------------------------------------------------- acceptance or speed, and U


@dataclass(frozen=True)
class OnPlane:
    """A submission with both figures; `place` is its row in the table of that measure, from 1."""

    candidate: Candidate
    view: SuiteView
    ranks: tuple[int, int]
    place: int


def on_plane(board: Board, suite: str, measure: str) -> list[OnPlane]:
    """Those with both figures, in the order of the board; none where they are too few for a picture."""
    if measure == "acceptance":
        ranked = [(p.candidate, p.view, (p.standing.low, p.standing.high)) for p in board.ranked(suite)]
    else:
        ranked = [(t.candidate, t.view, t.ranks) for t in board.timed(suite) if t.ranks is not None]
    found = [
        OnPlane(each, view, ranks, place)
        for place, (each, view, ranks) in enumerate(ranked, 1)
        if view.mean(measure).value is not None and view.across("unfairness").value is not None
    ]
    return found if len(found) >= FEWEST else []


def plane_front(board: Board, suite: str, measure: str) -> set[str]:
    """The slugs that no other significantly surpasses in both."""
    shown = on_plane(board, suite, measure)
    return unsurpassed({each.candidate.slug: (each.ranks, each.view.across("unfairness")) for each in shown})


def plane_plot(board: Board, suite: str, measure: str, uid: str) -> Markup:
    """Mean acceptance or speed-up across, U up."""
    front, shown = plane_front(board, suite, measure), on_plane(board, suite, measure)
    spots = [
        Spot(
            each.candidate.name,
            each.view.mean(measure),
            each.view.across("unfairness"),
            each.candidate.slug in front,
            each.view.within_noise(),
            each.place if each.place <= SHOWN else None,
        )
        for each in shown
    ]
    floor = max((each.view.suite.noise_floor or 0.0 for each in shown), default=0.0)
    label = "mean acceptance" if measure == "acceptance" else "mean speed-up"
    desc = f"{plane_headline(board, suite, measure)} A dot a submission; lines are 95 % intervals."
    title = f"Unfairness and {label}, {suite}"
    return plane(uid, title, desc, label, spots, floor, "" if measure == "acceptance" else "×")


def plane_headline(board: Board, suite: str, measure: str) -> str:
    """Who is significantly surpassed in both by nobody, of those in the picture."""
    front, shown = plane_front(board, suite, measure), on_plane(board, suite, measure)
    gain, kind = ("accepts more", "ranked") if measure == "acceptance" else ("is faster", "raced")
    names = [each.candidate.name for each in shown if each.candidate.slug in front]
    who = name_list(names) if len(names) <= 4 else f"{len(names)} submissions"
    return f"No other submission significantly {gain} and is fairer at once than {who}: of the {len(shown)} {kind}."


# --------------------------------------------------------------------------- ranks


def ranges_plot(board: Board, suite: str, uid: str) -> Markup:
    """The ranks that the first submissions may have."""
    placed = board.ranked(suite)
    rows = [Range(p.candidate.name, p.standing.low, p.standing.high, p.place) for p in placed[:SHOWN]]
    desc = f"{ranges_headline(placed)} A row a submission; the bar spans the ranks it may have."
    return range_plot(uid, f"Rank ranges, {suite}", desc, len(placed), rows)


def ranges_headline(placed: Sequence[Placed]) -> str:
    """How many submissions may be the first."""
    first = sum(each.standing.low == 1 for each in placed)
    if first == len(placed):
        return "No submission differs significantly from the others." if first > 1 else "A single submission is ranked."
    return "One submission leads significantly." if first == 1 else f"{first} submissions may be the first."


def row_strip(view: SuiteView) -> Markup:
    """The acceptance of every language on one line."""
    return plots.row_strip(view.marks("acceptance"), UNIT)


# --------------------------------------------------------------------------- languages of a board


def heat_headline(board: Board, suite: str, labels: Labels) -> str:
    """The languages that most often have the lowest acceptance, or one that does not differ from it."""
    placed = board.ranked(suite)
    lowest = Counter(code for each in placed for code in each.view.may_be_lowest())
    if not lowest:
        return "No figures."
    times = max(lowest.values())
    names = name_list(sorted(labels.language(code) for code, found in lowest.items() if found == times))
    return f"Lowest acceptance, or not significantly above it, in {times} of {len(placed)} submissions: {names}."


def heat_step(value: float) -> int:
    """The step of the heat map's scale for an acceptance."""
    return min(STEPS - 1, max(0, int(value * STEPS)))


def languages_by_acceptance(placed: Sequence[Placed]) -> list[str]:
    """The languages of these submissions, highest mean acceptance over them first."""
    totals: dict[str, list[float]] = {}
    for each in placed:
        for task in each.view.suite.tasks:
            value = task.measures.get("acceptance", NOTHING).value
            totals.setdefault(task.language, []).append(0.0 if value is None else value)
    return sorted(totals, key=lambda code: (-sum(totals[code]) / len(totals[code]), code))


def languages_json(board: Board, suite: str, labels: Labels) -> str:
    """The languages of a board's table as the script reads them: pairs of code and name, by name."""
    codes = {code for placed in board.ranked(suite) for code in placed.view.codes}
    return json.dumps(sorted(([code, labels.language(code)] for code in codes), key=lambda pair: pair[1]))


def acceptance_json(view: SuiteView) -> str:
    """The acceptance of each language that has one, by its code."""
    known = {code: view.acceptance_of(code).value for code in view.codes}
    return json.dumps({code: round(value, 6) for code, value in known.items() if value is not None})


def leaders(board: Board, suite: str) -> list[SuiteView]:
    """The views of the first three, and of the baseline."""
    return [each.views[suite] for each in _leaders(board, suite)]


def leaders_plot(board: Board, suite: str, uid: str) -> Markup:
    """The first three and the baseline as strips, a dot a language."""
    strips = [
        Strip(f"{each.name}{' (baseline)' if each is board.baseline else ''}", each.views[suite].marks("acceptance"))
        for each in _leaders(board, suite)
    ]
    desc = "A line a submission, a dot a language; the language with the lowest acceptance is a diamond."
    return strip_plot(uid, f"Acceptance by language, {suite}", desc, axis_for("acceptance", [1.0]), strips)


def _leaders(board: Board, suite: str) -> list[Candidate]:
    chosen = [placed.candidate for placed in board.ranked(suite)[:3]]
    base = board.baseline
    return chosen if base is None or base in chosen or suite not in base.views else [*chosen, base]


def leader_words(board: Board, suite: str) -> str:
    """The first of a board in a sentence."""
    placed = board.ranked(suite)
    if not placed:
        return "No submission is ranked yet."
    first = placed[0]
    codes, lowest = first.view.lowest("acceptance")
    words = f"{first.candidate.name} accepts {figure(first.standing.mean, 'ratio')} on average"
    if not codes:
        return f"{words}."
    names = name_list([first.view.labels.language(code) for code in codes])
    return f"{words} and {figure(lowest.value, 'ratio')} in {names}, its lowest."


def slower_words(view: SuiteView) -> str:
    """In which languages the drafter makes decoding slower; empty where in none."""
    significant, unsure = view.slower()
    names = name_list([view.labels.language(code) for code in significant])
    parts = (
        [f"significantly slower in {len(significant)} of {len(view.codes)} languages: {names}"] if significant else []
    )
    if unsure:
        parts.append(f"measured slower, without an interval, in {len(unsure)} of {len(view.codes)}")
    return "; ".join(parts)


# --------------------------------------------------------------------------- one language


@dataclass(frozen=True)
class LanguageRow:
    """A ranked submission in one language; `place` is the language's among the submission's `of`, 1 the highest."""

    candidate: Candidate
    measures: Mapping[str, Estimate]
    place: int
    of: int

    def figure(self, name: str) -> Estimate:
        return self.measures.get(name, NOTHING)

    def beside_english(self, suite: str, name: str) -> tuple[Estimate, float | None]:
        """The figure of the same submission in English, and this language's ÷ it."""
        english = self.candidate.views[suite].figure_of(ENGLISH, name)
        here = self.figure(name).value
        return english, here / english.value if here is not None and english.value else None

    @property
    def slower(self) -> str:
        """Whether the drafter makes this language slower than none: by its whole interval, else unknown."""
        speedup = self.figure("speedup")
        if speedup.value is None or speedup.value >= 1:
            return ""
        if speedup.high is None:
            return "slower than no drafter (no interval)"
        return "slower than no drafter" if speedup.high < 1 else ""


@dataclass(frozen=True)
class Section:
    """A language in one suite of one track, highest acceptance first."""

    board: Board
    suite: str
    rows: tuple[LanguageRow, ...]
    story: LanguageStory

    def headline(self) -> str:
        """Highest and lowest in a sentence."""
        known = [each for each in self.rows if each.figure("acceptance").value is not None]
        if not known:
            return "No figures."
        best, lowest = (
            f"{each.candidate.name}, {figure(each.figure('acceptance').value, 'ratio')}"
            for each in (known[0], known[-1])
        )
        words = f"Highest acceptance: {best}"
        return f"{words}." if len(known) == 1 else f"{words}; lowest: {lowest}."

    @property
    def shown(self) -> tuple[LanguageRow, ...]:
        """The rows of the plot."""
        return self.rows if len(self.rows) <= BEST + LOWEST else (*self.rows[:BEST], *self.rows[-LOWEST:])

    def plot(self, uid: str, language: str) -> Markup:
        """Acceptance and its interval, a row a submission."""
        marks = [Mark(each.candidate.name, each.candidate.slug, each.figure("acceptance")) for each in self.shown]
        title = f"Acceptance in {language} by submission, {self.suite}"
        desc = f"One row a submission, best first; the line is the 95 % interval. {self.headline()}"
        return interval_plot(uid, title, desc, axis_for("acceptance", [1.0]), marks)


@dataclass(frozen=True)
class LanguagePage:
    """A language, its page and its sections."""

    code: str
    page: str
    sections: tuple[Section, ...]


def language_pages(boards: Sequence[Board], labels: Labels, pages: Mapping[str, str]) -> list[LanguagePage]:
    """Every language of `pages` (its code and page), by its English name."""
    sections: dict[str, list[Section]] = {code: [] for code in pages}
    for board in boards:
        for suite in board.suites:
            found: dict[str, list[LanguageRow]] = {}
            for placed in board.ranked(suite):
                tasks = placed.view.tasks
                for place, task in enumerate(tasks, 1):
                    row = LanguageRow(placed.candidate, task.measures, place, len(tasks))
                    found.setdefault(task.language, []).append(row)
            for code, rows in found.items():
                rows.sort(key=lambda row: (-(row.figure("acceptance").value or 0.0), row.candidate.slug))
                sections[code].append(Section(board, suite, tuple(rows), LanguageStory(board, suite, code, labels)))
    ordered = sorted(pages, key=lambda code: (labels.language(code), code))
    known = {code: tuple(sorted(sections[code], key=lambda each: each.board.small)) for code in ordered}
    return [LanguagePage(code, pages[code], known[code]) for code in ordered]


# --------------------------------------------------------------------------- two submissions


def pair_plot(compared: SuiteComparison, first: Candidate, second: Candidate, labels: Labels, uid: str) -> Markup:
    """Both submissions' acceptance by language; a diamond where the second accepts significantly less."""
    rows = []
    for task in compared.differences["acceptance"]:
        code = Task(task).language
        before, after = (each.views[compared.suite].acceptance_of(code) for each in (first, second))
        rows.append(Both(labels.language(code), before, after, task in compared.levelled_down, code))
    rows.sort(key=lambda each: (-(each.second.value or 0.0), each.code))
    desc = (
        f"A row a language: a ring for {first.name}, a disc for {second.name}, "
        "a diamond where it accepts significantly less."
    )
    values = [v for each in rows for e in (each.first, each.second) for v in (e.value, e.low, e.high) if v is not None]
    axis = axis_for("acceptance", [1.0]) if min(values, default=0.0) < 0.4 else close_axis("acceptance", values)
    return both_plot(uid, f"Acceptance of both, {compared.suite}", desc, axis, rows, (first.name, second.name))


def by_change(compared: SuiteComparison) -> list[str]:
    """The tasks, smallest change of acceptance first, those without data last."""
    moved = compared.differences["acceptance"]
    return sorted(moved, key=lambda task: (moved[task].value is None, moved[task].value or 0.0, task))


def significant(comparisons: Iterable[SuiteComparison]) -> tuple[int, int, int]:
    """In how many tasks the second accepts significantly more and less, and of how many."""
    moved = [e for each in comparisons for e in each.differences["acceptance"].values()]
    more = sum(e.low is not None and e.low > 0 for e in moved)
    return more, sum(e.high is not None and e.high < 0 for e in moved), len(moved)


def in_rank_order(board: Board) -> list[Candidate]:
    """The ranked submissions of the first suite, the baseline last."""
    base = board.baseline
    order = [placed.candidate for placed in board.ranked(board.suites[0]) if placed.candidate is not base]
    return order if base is None else [*order, base]


# --------------------------------------------------------------------------- a sweep


@dataclass(frozen=True)
class SweepRows:
    """A sweep by row (task and γ, 0 without a drafter) and batch size."""

    sweep: SweepReport

    @cached_property
    def batches(self) -> list[int]:
        return sorted({each.batch_size for each in self.sweep.cells})

    @cached_property
    def rows(self) -> list[tuple[str, int]]:
        return list(dict.fromkeys((each.task, each.gamma) for each in self.sweep.cells))

    @cached_property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(each.task for each in self.sweep.cells))

    @cached_property
    def _cells(self) -> dict[tuple[str, int, int], SweepCell]:
        return {(each.task, each.gamma, each.batch_size): each for each in self.sweep.cells}

    def cell(self, task: str, gamma: int, batch: int) -> SweepCell:
        """The cell, without data where it was not swept."""
        nothing = SweepCell(task=task, batch_size=batch, gamma=gamma, tokens_per_second=NOTHING, speedup=NOTHING)
        return self._cells.get((task, gamma, batch), nothing)

    @cached_property
    def latencies(self) -> list[tuple[str, int, str, list[Estimate]]]:
        """Task, γ, share of requests, and by batch size the seconds that they stay within; of served requests only."""
        return [
            (task, gamma, share, latencies)
            for task, gamma in self.rows
            for share, latencies in served_within([self.cell(task, gamma, batch) for batch in self.batches]).items()
        ]
