"""What was found, in the units of a person who waits: calls of the verifier for one answer, and seconds.

Every sentence takes its figures from the results, and says that languages differ only where intervals do not meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fairspec_bench.schemas.report import Estimate
from fairspec_bench.site.board import Board, Candidate, Placed
from fairspec_bench.site.labels import NOTHING, Labels, figure, name_list
from fairspec_bench.site.views import Run, SuiteView

CALLS, TOKENS = "verifier_calls_per_answer", "tokens_per_answer"
ALONE, DRAFTED = "seconds_per_answer_autoregressive", "seconds_per_answer"
ENGLISH = "en"
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def above(one: Estimate, other: Estimate) -> bool:
    """Whether the whole interval of `one` lies above that of `other`."""
    return one.low is not None and other.high is not None and one.low > other.high


@dataclass(frozen=True)
class LanguageStory:
    """One language in one suite of a board beside English: the calls of the baseline, and of the best drafter there."""

    board: Board
    suite: str
    code: str
    labels: Labels

    @cached_property
    def baseline(self) -> Candidate | None:
        """The track's baseline, or else the last ranked, where it has the suite."""
        placed = self.board.ranked(self.suite)
        base = self.board.baseline or (placed[-1].candidate if placed else None)
        return base if base is not None and self.suite in base.views else None

    @cached_property
    def best(self) -> Placed | None:
        """The ranked submission with the fewest calls in this language."""
        known = [each for each in self.board.ranked(self.suite) if each.view.figure_of(self.code, CALLS).value]
        return min(known, key=lambda each: each.view.figure_of(self.code, CALLS).value or 0.0, default=None)

    def of(self, candidate: Candidate, name: str, code: str = "") -> Estimate:
        return candidate.views[self.suite].figure_of(code or self.code, name)

    @property
    def ratio(self) -> float:
        """Calls with the baseline ÷ those in English, where significantly more; else 0."""
        base = self.baseline
        if base is None or self.code in self.board.left_out(self.suite):
            return 0.0
        here, there = self.of(base, CALLS), self.of(base, CALLS, ENGLISH)
        return here.value / there.value if here.value and there.value and above(here, there) else 0.0

    @property
    def name(self) -> str:
        return self.labels.language(self.code)

    def sentence(self) -> str:
        """The gap to English in calls of the verifier, and what the best drafter leaves of it; empty without data."""
        base, best = self.baseline, self.best
        if base is None or best is None:
            return ""
        here, there = self.of(base, CALLS), self.of(base, CALLS, ENGLISH)
        if here.value is None or there.value is None:
            return ""
        words = f"{self.name}: {_round(here)} calls of the big model for one answer"
        if self.code != ENGLISH:
            words += f" that takes English {_round(there)}"
            words += "" if above(here, there) else " (not significantly more)"
        return f"{words}, with the drafter {base.name}. {self._rest(best, base, here)}"

    def _rest(self, best: Placed, base: Candidate, here: Estimate) -> str:
        least = self.of(best.candidate, CALLS)
        if best.candidate is base or not above(here, least):
            return "No other drafter needs significantly fewer."
        english = self.of(best.candidate, CALLS, ENGLISH)
        beside = f" (English {_round(english)})" if self.code != ENGLISH and english.value is not None else ""
        return f"The best drafter here, {best.candidate.name}, closes it to {_round(least)}{beside}."

    def waiting(self) -> str:
        """The seconds for one answer with and without the fastest raced drafter here; empty where none was raced."""
        raced = [t for t in self.board.timed(self.suite) if self.of(t.candidate, DRAFTED).value]
        if not raced:
            return ""
        timed = min(raced, key=lambda t: self.of(t.candidate, DRAFTED).value or 0.0)
        alone, drafted = self.of(timed.candidate, ALONE), self.of(timed.candidate, DRAFTED)
        if alone.value is None:
            return ""
        speedup = self.of(timed.candidate, "speedup")
        sure = speedup.low is not None and speedup.high is not None and not speedup.low <= 1 <= speedup.high
        doubt = "" if sure else " (not significant: the interval of the speed-up covers 1, or there is none)"
        return (
            f"Waiting time for one answer: {figure(alone.value, 'number')} s without a drafter, "
            f"{figure(drafted.value, 'number')} s with {timed.candidate.name}{doubt}."
        )


def _round(e: Estimate) -> str:
    return "–" if e.value is None else f"{e.value:.0f}" if e.value >= 10 else f"{e.value:.1f}"


def stories(board: Board, labels: Labels) -> Iterator[LanguageStory]:
    """Every language of every suite with ranked submissions."""
    for suite in board.suites:
        for code in sorted({code for each in board.ranked(suite) for code in each.view.codes}):
            yield LanguageStory(board, suite, code, labels)


def in_order(boards: Sequence[Board]) -> list[Board]:
    """Open tracks of real models first, demonstrations last."""
    return sorted((each for each in boards if not each.track.archived), key=lambda each: (each.small, each.track.name))


def finding(boards: Sequence[Board], labels: Labels) -> LanguageStory | None:
    """The largest significant gap to English, in the first track that has one."""
    for board in in_order(boards):
        known = [story for story in stories(board, labels) if story.ratio]
        if known:
            return max(known, key=lambda story: (story.ratio, story.code))
    return None


@dataclass(frozen=True)
class Highlight:
    """One of the three on the first page: who, and why, with a link to the submission where it is a single one."""

    title: str
    words: str
    pages: tuple[tuple[str, str], ...] = ()


def highlights(board: Board, suite: str) -> list[Highlight]:
    """The highest mean, the highest acceptance in the lowest language, and who is slower; ties are named as ties."""
    placed = board.ranked(suite)
    best = [each for each in placed if each.standing.low == 1]
    found = [_highlight("Highest acceptance", "on average over the languages", best, lambda v: v.mean("acceptance"))]
    worst = [(each, each.view.lowest("acceptance")[1]) for each in placed]
    top = max((e.value or 0.0 for _, e in worst), default=0.0)
    leader = next((e for _, e in worst if e.value == top), NOTHING)
    fair = [each for each, e in worst if not above(leader, e)]
    title, words = "Fairest", "in the language it accepts least in"
    found.append(_highlight(title, words, fair, lambda v: v.lowest("acceptance")[1]))
    return [each for each in found if each.pages] + [_slower(board, suite)]


def _highlight(title: str, words: str, placed: Sequence[Placed], of: Callable[[SuiteView], Estimate]) -> Highlight:
    links = tuple((each.candidate.page, each.candidate.name) for each in placed[:4])
    more = f"(and {len(placed) - 4} more) " if len(placed) > 4 else ""
    value = of(placed[0].view).value if placed else None
    tie = ", not significantly different" if len(placed) > 1 else ""
    return Highlight(title, f"{more}{figure(value, 'ratio')} {words}{tie}.", links)


def _slower(board: Board, suite: str) -> Highlight:
    title, raced = "Slower than no drafter", board.timed(suite)
    found = [(t, t.view.slower()[0]) for t in raced if t.view.slower()[0]]
    if not found:
        words = "No race of this suite shows a significant slow-down." if raced else "Nobody was raced in this suite."
        return Highlight(title, words)
    parts = [
        f"{t.candidate.name} in {name_list([t.view.labels.language(code) for code in codes])}" for t, codes in found[:3]
    ]
    return Highlight(title, f"{'; '.join(parts)}.")


def latest(runs: Sequence[Run], boards: Sequence[Board]) -> str:
    """The day of the newest run or audit that the site shows, `2026-11-21`; empty where there is none."""
    shown = [*runs, *(each.run for board in boards for each in board.candidates)]
    days = [environment.started[:10] for run in shown for environment in run.report.environments]
    days += [c.entry.audit.date[:10] for board in boards for c in board.candidates if c.entry.audit is not None]
    return max((day for day in days if DAY.fullmatch(day)), default="")
