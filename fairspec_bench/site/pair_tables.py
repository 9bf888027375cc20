"""The tables of two submissions compared: language by language, and who is compared with whom.

Knows comparisons and how a table is written; measures nothing. `up` is the way from the page to the site's top.
"""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from fairspec_bench.measure.compare import SuiteComparison
from fairspec_bench.records import Estimate
from fairspec_bench.site.board import Board, Candidate
from fairspec_bench.site.cells import (
    Column,
    cell,
    change,
    est_cell,
    folded,
    head,
    language,
    link,
    number,
    row,
    table,
)
from fairspec_bench.site.parts import escaped
from fairspec_bench.site.words import NOTHING, Vocabulary

FURTHER = {"block_efficiency_uncut": "Change of tokens per call", "misfit": "Change of misfit (nats)"}


def comparison_table(
    compared: SuiteComparison, first: Candidate, second: Candidate, words: Vocabulary, up: str, pages: dict[str, str]
) -> Markup:
    """Two submissions by language, where the change is least first."""
    moved = compared.differences["acceptance"]
    more = [name for name in FURTHER if compared.differences[name]]
    rows = []
    for task in sorted(moved, key=lambda t: (moved[t].value is None, moved[t].value or 0.0, t)):
        code = task.rpartition("/")[2]
        page = f"{up}{pages[code]}" if code in pages else ""
        sides = (each.views[compared.suite].acceptance_of(code) for each in (first, second))
        others = (compared.differences[name].get(task, NOTHING) for name in more)
        rows.append(
            row(
                head(language(words, code, page)),
                cell(str(compared.clusters[task]), "num"),
                *(est_cell(side, "ratio") for side in sides),
                f'<td class="num main">{change(moved[task])}</td>',
                *(cell(change(other), "num") for other in others),
                cell(_verdict(moved[task], first, second), "words"),
            )
        )
    columns = [
        Column("Language"),
        number("Problems"),
        number("First"),
        number("Second"),
        number("Change of acceptance"),
        *(number(FURTHER[name]) for name in more),
        Column("Verdict"),
    ]
    caption = "Second − first, paired by problem; the intervals of a column hold for all languages at once."
    return table(f"Differences in {compared.suite}", columns, rows, caption=caption)


def comparison_data(compared: SuiteComparison, first: Candidate, second: Candidate, words: Vocabulary) -> Markup:
    """The figures behind the plot of both."""
    rows = [
        row(
            head(language(words, code)),
            *(est_cell(each.views[compared.suite].acceptance_of(code), "ratio") for each in (first, second)),
        )
        for code in (task.rpartition("/")[2] for task in compared.differences["acceptance"])
    ]
    return folded(
        f"Acceptance of both in figures, {compared.suite}",
        Column("Language"),
        *(number(Markup(f"<bdi>{escaped(each.name)}</bdi>")) for each in (first, second)),
        rows=rows,
    )


def _verdict(e: Estimate, first: Candidate, second: Candidate) -> str:
    if e.low is None or e.high is None:
        return "no interval"
    if e.low > 0:
        return "second surely more"
    return "first surely more" if e.high < 0 else "not told apart"


def sure(comparisons: Iterable[SuiteComparison]) -> tuple[int, int, int]:
    """In how many tasks the second surely accepts more and surely less, and of how many."""
    moved = [e for each in comparisons for e in each.differences["acceptance"].values()]
    more = sum(e.low is not None and e.low > 0 for e in moved)
    return more, sum(e.high is not None and e.high < 0 for e in moved), len(moved)


def matrix(board: Board, pages: dict[tuple[str, str], str]) -> Markup:
    """Every pair of a small board: down the second, across the first; how often each surely accepts more."""
    base = board.baseline
    order = [placed.candidate for placed in board.ranked(board.suites[0]) if placed.candidate is not base]
    names = order if base is None else [*order, base]
    rows = []
    for second in names[:-1]:
        cells = []
        for first in names[1:]:
            page = pages.get((first.slug, second.slug))
            if page is None:
                cells.append("<td></td>")
            else:
                more, less, _ = sure(board.compared(first, second))
                pair = escaped(f"{second.name} against {first.name}: ")
                words = f'<span class="unseen">{pair}</span>{more} ↑ {less} ↓'
                cells.append(f'<td class="num"><a href="{escaped(page)}">{words}</a></td>')
        rows.append(row(head(Markup(f"<bdi>{escaped(second.name)}</bdi>")), *cells))
    columns = [Column("Second ↓, first →")]
    columns += [number(Markup(f"<bdi>{escaped(each.name)}</bdi>")) for each in names[1:]]
    caption = "In how many languages of all suites the second surely accepts more (↑) and less (↓) than the first"
    return table(f"Pairs of {board.track.title}", columns, rows, caption=caption, css="matrix")


def pair_list(board: Board, pages: dict[tuple[str, str], str], uid: str) -> Markup:
    """Every pair of a large board, a row each."""
    rows = []
    for first, second in board.pairs:
        more, less, count = sure(board.compared(first, second))
        page = pages[first.slug, second.slug]
        rows.append(
            row(
                head(link(page, second.name)),
                cell(Markup(f"<bdi>{escaped(first.name)}</bdi>")),
                f'<td class="num" data-value="{more}">{more} of {count}</td>',
                f'<td class="num" data-value="{less}">{less} of {count}</td>',
            )
        )
    columns = [
        Column("Second", "text"),
        Column("First", "text"),
        number("Second surely accepts more"),
        number("Second surely accepts less"),
    ]
    caption = "Each submission against the baseline, then against its neighbour on the board"
    return table(f"Pairs of {board.track.title}", columns, rows, caption=caption, uid=uid)
