"""One language across the boards: who serves it best and who worst.

Knows boards and how figures are written. Only ranked submissions are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fairspec_bench.records import Estimate
from fairspec_bench.site.board import Board, Placed
from fairspec_bench.site.cells import Column, est_cell, folded, head, link, number, row, table
from fairspec_bench.site.parts import Mark, axis_for
from fairspec_bench.site.plots import interval_plot
from fairspec_bench.site.words import NOTHING, Vocabulary, figure

BEST, WORST = 12, 3  # rows of a plot that cannot hold all
TABLED = 50  # rows of a table


@dataclass(frozen=True)
class Served:
    """One submission's figures in one language, and the language's place among its own: 1 served best."""

    placed: Placed
    acceptance: Estimate
    block_efficiency: Estimate
    speedup: Estimate
    place: int
    of: int


@dataclass(frozen=True)
class Section:
    """A language in one suite of one track, best served first."""

    board: Board
    suite: str
    rows: tuple[Served, ...]

    def headline(self) -> str:
        """Best and worst in a sentence."""
        known = [each for each in self.rows if each.acceptance.value is not None]
        if not known:
            return "No figures."
        best, worst = known[0], known[-1]
        words = f"Served best by {best.placed.candidate.name}, acceptance {figure(best.acceptance.value, 'ratio')}"
        if worst is best:
            return f"{words}."
        least = figure(worst.acceptance.value, "ratio")
        return f"{words}; worst by {worst.placed.candidate.name}, {least}."

    @property
    def shown(self) -> tuple[Served, ...]:
        return self.rows if len(self.rows) <= BEST + WORST else (*self.rows[:BEST], *self.rows[-WORST:])

    def plot(self, uid: str, language: str) -> Markup:
        marks = [Mark(each.placed.candidate.name, each.placed.candidate.slug, each.acceptance) for each in self.shown]
        title = f"Acceptance in {language} by submission, {self.suite}"
        desc = f"One row a submission, best first; the line is the 95 % interval. {self.headline()}"
        return interval_plot(uid, title, desc, axis_for("acceptance", [1.0]), marks)

    def data(self) -> Markup:
        """The figures behind the plot."""
        rows = [
            row(
                head(link(f"../{each.placed.candidate.page}", each.placed.candidate.name)),
                est_cell(each.acceptance, "ratio"),
            )
            for each in self.shown
        ]
        label = f"Acceptance in figures, {self.suite}, {self.board.track.name}"
        return folded(label, Column("Submission"), number("Acceptance"), rows=rows)

    def table(self, uid: str) -> Markup:
        columns = [
            Column("Submission", "text"),
            number("Acceptance"),
            number("Tokens per verifier call"),
            number("Speed-up"),
            number("Place among its languages"),
        ]
        rows = [
            row(
                head(link(f"../{each.placed.candidate.page}", each.placed.candidate.name)),
                est_cell(each.acceptance, "ratio"),
                est_cell(each.block_efficiency, "number"),
                est_cell(each.speedup, "times"),
                f'<td class="num" data-value="{each.place}">{each.place} of {each.of}</td>',
            )
            for each in self.rows[:TABLED]
        ]
        count = len(self.rows)
        caption = f"Who serves it, {self.suite}, {self.board.track.name}" + (
            f": the first {TABLED} of {count}" if count > TABLED else ""
        )
        return table(caption, columns, rows, caption=caption, uid=uid, order=(1, "descending"))


@dataclass(frozen=True)
class LanguagePage:
    """A language, its page and its sections."""

    code: str
    page: str
    sections: tuple[Section, ...]


def language_pages(boards: Sequence[Board], words: Vocabulary, pages: Mapping[str, str]) -> list[LanguagePage]:
    """Every language of `pages` (its code and page), by its English name."""
    sections: dict[str, list[Section]] = {code: [] for code in pages}
    for board in boards:
        for suite in board.suites:
            found: dict[str, list[Served]] = {}
            for placed in board.ranked(suite):
                tasks = placed.view.tasks
                for place, task in enumerate(tasks, 1):
                    get = task.measures.get
                    served = Served(
                        placed,
                        acceptance=get("acceptance", NOTHING),
                        block_efficiency=get("block_efficiency_uncut", NOTHING),
                        speedup=get("speedup", NOTHING),
                        place=place,
                        of=len(tasks),
                    )
                    found.setdefault(task.language, []).append(served)
            for code, group in found.items():
                group.sort(key=lambda s: (-(s.acceptance.value or 0.0), s.placed.candidate.slug))
                sections[code].append(Section(board, suite, tuple(group)))
    ordered = sorted(pages, key=lambda code: (words.language(code), code))
    return [LanguagePage(code, pages[code], tuple(sections[code])) for code in ordered]
