"""The tables of a board: acceptance and the clock ranked, the heat map, who is not ranked.

Knows boards and how a table is written. `up` is the way from the page to the site's top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from fairspec_bench.records import Estimate
from fairspec_bench.site.board import Board, Candidate, Entry, Placed, mean_acceptance
from fairspec_bench.site.cells import (
    DASH,
    Column,
    cell,
    est_cell,
    folded,
    head,
    link,
    number,
    row,
    table,
    tag,
)
from fairspec_bench.site.parts import Axis, element, escaped
from fairspec_bench.site.tables import figure_words, unfairness_cell, validity_words, worst_cell
from fairspec_bench.site.views import SuiteView
from fairspec_bench.site.wide_plots import row_strip
from fairspec_bench.site.words import NOTHING, Kind, Vocabulary, figure

SHOWN = 30  # rows of the heat map, the ranges of ranks and the figures of the plane
NAMED = 4  # languages that a tag spells out
STEPS = 10  # of the heat map's scale
UNIT = Axis("acceptance", 0.0, (1.0,))


def acceptance_table(board: Board, suite: str, uid: str, up: str) -> Markup:
    """The ranked board of one suite."""
    columns = [
        number("Rank range"),
        Column("Submission", "text"),
        number("Mean acceptance"),
        Column("Its languages, from 0 to 1"),
        Column("Worst language", "number"),
        number("Tokens per verifier call"),
        number("Unfairness U (nats²) and its noise floor"),
        Column("Validity, worst language", "text"),
    ]
    rows = (_acceptance_row(board, suite, placed, up) for placed in board.ranked(suite))
    caption = "Acceptance, best mean first. Submissions whose rank ranges overlap are not told apart."
    return table(
        f"Acceptance in {suite}", columns, rows, caption=caption, uid=uid, order=(2, "descending"), css="board"
    )


def _acceptance_row(board: Board, suite: str, placed: Placed, up: str) -> str:
    view, standing = placed.view, placed.standing
    mean = view.mean("acceptance")
    return row(
        f'<td class="num rank" data-value="{standing.low}">{_range(standing.low, standing.high)}</td>',
        _name(board, suite, placed.candidate, up),
        est_cell(mean if mean.value is not None else Estimate(value=standing.mean), "ratio", "main"),
        cell(row_strip(view.marks("acceptance"), UNIT), "spreads"),
        worst_cell(view, "acceptance", "ratio"),
        est_cell(view.mean("block_efficiency_uncut"), "number"),
        unfairness_cell(view),
        cell(validity_words(view), "words"),
    )


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _name(board: Board, suite: str, candidate: Candidate, up: str) -> str:
    below = f'<span class="pair">{escaped(candidate.method)} {tags(board, suite, candidate)}</span>'
    return head(Markup(f"{link(f'{up}{candidate.page}', candidate.name)} {below}"))


def tags(board: Board, suite: str, candidate: Candidate) -> Markup:
    """What must be known beside a submission's name."""
    found = [tag("audited", "good") if candidate.audited else tag("self-reported")]
    if candidate is board.baseline:
        found.append(tag("baseline"))
    if candidate.run.small:
        found.append(tag("machinery only"))
    if candidate.verified.entry.drafter.trained_on_suite_data:
        found.append(tag("trained on suite data", "down"))
    if fallen := board.levelled_down(candidate, suite):
        where = ", ".join(fallen) if len(fallen) <= NAMED else f"{len(fallen)} languages"
        found.append(tag(f"levelled down in {where}", "down"))
    return Markup(" ".join(found))


def unranked_table(board: Board, suite: str, up: str) -> Markup:
    """Who is shown and not ranked, and why."""
    rows = [
        row(
            _name(board, suite, candidate, up),
            cell(reason, "words"),
            est_cell(mean_acceptance(candidate, suite), "ratio"),
            worst_cell(candidate.views[suite], "acceptance", "ratio") if suite in candidate.views else cell(DASH),
        )
        for candidate, reason in board.unranked(suite)
    ]
    heads = Column("Submission"), Column("Why it is not ranked"), number("Mean acceptance"), Column("Worst language")
    return table(f"Not ranked in {suite}", heads, rows, caption="Not ranked", css="board")


def refused_table(refused: Iterable[tuple[Entry, str]]) -> Markup:
    """Folders that the check refused, each with its first finding and how many more there are."""
    rows = []
    for entry, page in refused:
        first = entry.refusals[0] if entry.refusals else "refused by the check"
        more = f" (and {len(entry.refusals) - 1} more)" if len(entry.refusals) > 1 else ""
        rows.append(row(head(link(page, entry.slug)), cell(Markup(f"<bdi>{escaped(first)}</bdi>{more}"), "words")))
    columns = [Column("Submission"), Column("First finding")]
    return table("Refused by the check", columns, rows, caption="Refused: the check found faults, so nothing is shown")


def clock_table(board: Board, suite: str, uid: str, up: str) -> Markup:
    """Those raced on the track's hardware, by mean speed-up; without a verdict nobody is ranked."""
    columns = [
        number("Rank range"),
        Column("Submission", "text"),
        number("Mean speed-up"),
        Column("Worst language", "number"),
        number("Longest wait for one answer, alone → with the drafter"),
        Column("Race", "text"),
    ]
    rows = []
    for timed in board.timed(suite):
        ranks = cell(DASH, "num rank") if timed.ranks is None else _rank_cell(*timed.ranks)
        rows.append(
            row(
                ranks,
                _name(board, suite, timed.candidate, up),
                _speedup_cell(timed.view, timed.mean),
                worst_cell(timed.view, "speedup", "times"),
                _wait_cell(timed.view),
                cell(Markup(f"<bdi>{escaped(timed.candidate.run.report.race_verdict)}</bdi>"), "words"),
            )
        )
    caption = "Wall-clock, best mean speed-up first; without a verdict of the race nobody is ranked."
    label = f"Wall-clock in {suite}"
    return table(label, columns, rows, caption=caption, uid=uid, order=(2, "descending"), css="board")


def _rank_cell(low: int, high: int) -> str:
    return f'<td class="num rank" data-value="{low}">{_range(low, high)}</td>'


def _speedup_cell(view: SuiteView, mean: Estimate) -> str:
    value = "" if mean.value is None else f' data-value="{mean.value:.6g}"'
    return f'<td class="num main"{value}>{figure_words(view, "speedup", "times")}</td>'


def _wait_cell(view: SuiteView) -> str:
    waits = [each for each in view.waits() if each.second.value is not None]
    if not waits or not view.has("seconds_per_answer"):
        return cell(DASH, "num")
    longest = waits[0]
    values = " → ".join(figure(e.value, "number") for e in (longest.first, longest.second))
    ends = [
        f"[{figure(e.low, 'number')}, {figure(e.high, 'number')}]"
        for e in (longest.first, longest.second)
        if None not in (e.low, e.high)
    ]
    below = f' <span class="ci">{" → ".join(ends)}</span>' if ends else ""
    who = f'<span class="language">{escaped(view.words.language(longest.code))}</span>'
    value = f'{longest.second.value:.6g}">{who} <span class="value">{values} s</span>'
    return f'<td class="num" data-value="{value}{below}</td>'


# --------------------------------------------------------------------------- heat map


def heat_map(board: Board, suite: str, words: Vocabulary, up: str) -> Markup:
    """Acceptance of the leading submissions by language, the figure written on its shade."""
    placed = board.ranked(suite)[:SHOWN]
    codes = languages_by_acceptance(placed)
    rows = []
    for each in placed:
        figures = {task.language: task.measures.get("acceptance", NOTHING) for task in each.view.suite.tasks}
        name = head(link(f"{up}{each.candidate.page}", each.candidate.name))
        rows.append(row(name, *(_heat_cell(figures.get(code, NOTHING)) for code in codes)))
    columns = [Column("Submission"), *(Column(_upright(words, code), css="heat-head") for code in codes)]
    return table(f"Acceptance by language and submission, {suite}", columns, rows, css="heat")


def _upright(words: Vocabulary, code: str) -> Markup:
    known = words.languages.get(code)
    own = f'<bdi class="own" lang="{escaped(code)}">{escaped(known[1])}</bdi>' if known and known[0] != known[1] else ""
    return Markup(f"{escaped(words.language(code))} {own}")


def _heat_cell(e: Estimate) -> str:
    if e.value is None:
        return cell(DASH, "heat-none")
    step = min(STEPS - 1, max(0, int(e.value * STEPS)))
    whole = e.low is not None and e.high is not None
    interval = f' title="95 % interval {e.low:.3f} to {e.high:.3f}"' if whole else ""
    return f'<td class="h{step}"{interval}>{e.value:.2f}</td>'


def languages_by_acceptance(placed: Sequence[Placed]) -> list[str]:
    """The languages of these submissions, that with the highest mean over them first."""
    totals: dict[str, list[float]] = {}
    for each in placed:
        for task in each.view.suite.tasks:
            value = task.measures.get("acceptance", NOTHING).value
            totals.setdefault(task.language, []).append(0.0 if value is None else value)
    return sorted(totals, key=lambda code: (-sum(totals[code]) / len(totals[code]), code))


def plane_table(board: Board, suite: str, measure: str, front: set[str], up: str) -> Markup:
    """The figures behind a plane: the leading submissions and all of the front."""
    kind: Kind = "times" if measure == "speedup" else "ratio"
    rows = []
    for each in board.ranked(suite):
        slug, view = each.candidate.slug, each.view
        if each.place > SHOWN and slug not in front:
            continue
        rows.append(
            row(
                head(link(f"{up}{each.candidate.page}", each.candidate.name)),
                est_cell(view.mean(measure), kind),
                unfairness_cell(view),
                cell("on the front" if slug in front else ""),
            )
        )
    mean = "Mean speed-up" if measure == "speedup" else "Mean acceptance"
    label = f"{mean} and U in figures, {suite}"
    return folded(label, Column("Submission"), number(mean), number("Unfairness U"), Column("Pareto front"), rows=rows)


def ranges_table(board: Board, suite: str, up: str) -> Markup:
    """The figures behind the ranges of ranks."""
    rows = [
        row(
            head(link(f"{up}{each.candidate.page}", each.candidate.name)),
            cell(str(each.place), "num"),
            cell(str(each.standing.low), "num"),
            cell(str(each.standing.high), "num"),
        )
        for each in board.ranked(suite)[:SHOWN]
    ]
    label = f"Rank ranges in figures, {suite}"
    return folded(
        label, Column("Submission"), *map(number, ("Place by the mean", "Best rank", "Worst rank")), rows=rows
    )


def own_name(words: Vocabulary, code: str) -> Markup:
    """A language by its own name in its own script."""
    english, own = words.languages.get(code, (code, code))
    lang = code if code in words.languages else ""
    return element("bdi", own or english, lang=lang)
