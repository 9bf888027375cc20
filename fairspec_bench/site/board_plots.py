"""The pictures of a board, and the sentence each of them shows.

Knows boards; draws with `wide_plots` and `plots`.
"""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from fairspec_bench.measure.compare import SuiteComparison
from fairspec_bench.site.board import Board, Candidate, Placed, pareto
from fairspec_bench.site.board_tables import SHOWN
from fairspec_bench.site.parts import Strip, axis_for, close_axis
from fairspec_bench.site.plots import Both, both_plot, strip_plot
from fairspec_bench.site.views import SuiteView
from fairspec_bench.site.wide_plots import Range, Spot, plane, range_plot
from fairspec_bench.site.words import Vocabulary, figure


def plane_front(board: Board, suite: str, measure: str) -> set[str]:
    """The Pareto front of mean acceptance or mean speed-up, and U."""
    if measure == "acceptance":
        return board.front(suite)
    points = {
        timed.candidate.slug: (timed.mean.value, u.value)
        for timed in board.timed(suite)
        for u in [timed.view.across("unfairness")]
        if timed.ranks is not None and timed.mean.value is not None and u.value is not None
    }
    return pareto(points)


def on_plane(board: Board, suite: str, measure: str) -> list[tuple[Candidate, SuiteView]]:
    """Those with both figures, in the order of the board."""
    if measure == "acceptance":
        found = [(placed.candidate, placed.view) for placed in board.ranked(suite)]
    else:
        found = [(timed.candidate, timed.view) for timed in board.timed(suite) if timed.ranks is not None]
    return [
        (each, view)
        for each, view in found
        if view.mean(measure).value is not None and view.across("unfairness").value is not None
    ]


def plane_plot(board: Board, suite: str, measure: str, uid: str) -> Markup:
    """Mean acceptance or speed-up across, U up."""
    front, base, shown = plane_front(board, suite, measure), board.baseline, on_plane(board, suite, measure)
    leader = shown[0][0].slug if shown else ""
    spots = [
        Spot(
            each.name,
            view.mean(measure),
            view.across("unfairness"),
            each.slug in front,
            view.within_noise(),
            each.slug in front or each is base or each.slug == leader or len(shown) <= 8,
        )
        for each, view in shown
    ]
    floor = max((view.suite.noise_floor or 0.0 for _, view in shown), default=0.0)
    label = "mean acceptance" if measure == "acceptance" else "mean speed-up"
    desc = f"{plane_headline(board, suite, measure)} A dot a submission; lines are 95 % intervals."
    title = f"Unfairness and {label}, {suite}"
    return plane(uid, title, desc, label, spots, floor, "" if measure == "acceptance" else "×")


def plane_headline(board: Board, suite: str, measure: str) -> str:
    front, count = plane_front(board, suite, measure), len(on_plane(board, suite, measure))
    gain = "accepts more" if measure == "acceptance" else "is faster"
    if len(front) == 1:
        return f"One submission leads in both: no other {gain} or is fairer."
    return f"{len(front)} of {count} submissions are on the front: none {gain} and is fairer at once."


def ranges_plot(board: Board, suite: str, uid: str) -> Markup:
    """The ranks that the leading submissions may have."""
    placed = board.ranked(suite)
    rows = [Range(p.candidate.name, p.standing.low, p.standing.high, p.place) for p in placed[:SHOWN]]
    desc = f"{ranges_headline(placed)} A row a submission; the bar spans the ranks it may have."
    return range_plot(uid, f"Rank ranges, {suite}", desc, len(placed), rows)


def ranges_headline(placed: list[Placed]) -> str:
    first = sum(each.standing.low == 1 for each in placed)
    if first == len(placed):
        return "No submission is told apart from the others." if first > 1 else "A single submission is ranked."
    return "One submission surely leads." if first == 1 else f"{first} submissions may be the first."


def heat_headline(board: Board, suite: str, words: Vocabulary) -> str:
    """Which language is served worst how often."""
    placed = board.ranked(suite)
    worst = Counter(code for each in placed if (code := each.view.lowest("acceptance")[0]))
    if not worst:
        return "No figures."
    code, times = min(worst.items(), key=lambda each: (-each[1], each[0]))
    return f"{words.language(code)} is served worst by {times} of {len(placed)} submissions."


def leaders_plot(board: Board, suite: str, uid: str) -> Markup:
    """The first three and the baseline as strips, a dot a language."""
    strips = [
        Strip(f"{each.name}{' (baseline)' if each is board.baseline else ''}", each.views[suite].marks("acceptance"))
        for each in _leaders(board, suite)
    ]
    desc = "A line a submission, a dot a language; the language served worst is a diamond."
    return strip_plot(uid, f"Acceptance by language, {suite}", desc, axis_for("acceptance", [1.0]), strips)


def leaders(board: Board, suite: str) -> list[SuiteView]:
    """The views that `leaders_plot` shows."""
    return [each.views[suite] for each in _leaders(board, suite)]


def _leaders(board: Board, suite: str) -> list[Candidate]:
    """The first three, and the baseline."""
    chosen = [placed.candidate for placed in board.ranked(suite)[:3]]
    base = board.baseline
    return chosen if base is None or base in chosen or suite not in base.views else [*chosen, base]


def leader_words(board: Board, suite: str) -> str:
    """The first of a board in a sentence."""
    placed = board.ranked(suite)
    if not placed:
        return "Nobody is ranked yet."
    first = placed[0]
    code, least = first.view.lowest("acceptance")
    words = f"{first.candidate.name} accepts {figure(first.standing.mean, 'ratio')} on average"
    if not code:
        return f"{words}."
    return f"{words} and {figure(least.value, 'ratio')} in {first.view.words.language(code)}, which it serves worst."


def pair_plot(compared: SuiteComparison, first: Candidate, second: Candidate, words: Vocabulary, uid: str) -> Markup:
    """Both submissions' acceptance by language; a diamond where the second surely accepts less."""
    rows = []
    for task in compared.differences["acceptance"]:
        code = task.rpartition("/")[2]
        before, after = (each.views[compared.suite].acceptance_of(code) for each in (first, second))
        rows.append(Both(words.language(code), before, after, task in compared.levelled_down, code))
    rows.sort(key=lambda each: (-(each.second.value or 0.0), each.code))
    desc = (
        f"A row a language: a ring for {first.name}, a disc for {second.name}, a diamond where it surely accepts less."
    )
    values = [v for each in rows for e in (each.first, each.second) for v in (e.value, e.low, e.high) if v is not None]
    axis = axis_for("acceptance", [1.0]) if min(values, default=0.0) < 0.4 else close_axis("acceptance", values)
    return both_plot(uid, f"Acceptance of both, {compared.suite}", desc, axis, rows, (first.name, second.name))
