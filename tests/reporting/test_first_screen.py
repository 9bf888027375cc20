"""The first screen of a report: 80 columns, best to worst, ties told, slow-downs by the whole interval."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence_sample import NOT_RACED, QUIET, between, make_change, make_report, near

from fairspec_bench.api.reports import report
from fairspec_bench.cli.progress import duration, plain
from fairspec_bench.reporting.first_screen import digits, render_change, render_first
from fairspec_bench.reporting.formats import plain as text_of
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report

COMMITTED = Path(__file__).parents[2] / "docs/results"
ACCEPTANCE = {"de": 0.8, "en": 0.9, "te": 0.4, "th": 0.41}


def lines(shown: Report) -> list[str]:
    return [line.rstrip() for line in text_of(render_first(shown)).splitlines()]


def made(race: RaceVerdict = QUIET, **figures: dict[str, Estimate]) -> Report:
    """Thai and Telugu are not told apart; `figures[measure][language]`."""
    whole = make_report(ACCEPTANCE, race=race)
    suite = whole.suites[0]
    ranks = {"toy/en": (1, 1), "toy/de": (2, 2), "toy/th": (3, 4), "toy/te": (3, 4)}
    tasks = tuple(
        each.model_copy(update={"measures": each.measures | {name: of[each.language] for name, of in figures.items()}})
        for each in suite.tasks
    )
    return whole.model_copy(update={"suites": (suite.model_copy(update={"ranks": ranks, "tasks": tasks}),)})


def test_languages_stand_from_best_to_worst_and_ties_are_told() -> None:
    shown = lines(made())
    rows = [line.split()[0] for line in shown if "█" in line]
    assert rows == ["en", "de", "th", "te"]
    said = " ".join(each.strip() for each in shown)
    assert "most in en, 0.900 [0.890, 0.910]" in said
    assert "fewest in te, 0.400 [0.390, 0.410] (not significantly different: th)" in said


@pytest.mark.parametrize(
    ("race", "low", "high", "said"),
    [(QUIET, 0.7, 0.9, True), (QUIET, 0.7, 1.01, False), (NOT_RACED, 0.7, 0.9, False)],
)
def test_a_language_is_slower_by_its_whole_interval_only(
    race: RaceVerdict, low: float, high: float, said: bool
) -> None:
    speedups = {language: between(1.1, 1.5) for language in ACCEPTANCE} | {"te": between(low, high)}
    assert ("Slower than without a drafter: te." in lines(made(race, speedup=speedups))) is said


def test_flags_stand_once_for_the_languages_that_have_them() -> None:
    whole = made()
    flagged = {"toy/te": ("truncated 30.0 %: cut",), "toy/th": ("truncated 50.0 %: cut",)}
    suite = whole.suites[0]
    tasks = tuple(each.model_copy(update={"flags": flagged.get(each.task, ())}) for each in suite.tasks)
    shown = lines(whole.model_copy(update={"suites": (suite.model_copy(update={"tasks": tasks}),)}))
    assert "† te, th: truncated: cut" in shown


@pytest.mark.parametrize("run", sorted(path.parent.name for path in COMMITTED.glob("*/run.json")))
def test_committed_runs_fit_80_columns(run: str) -> None:
    shown = lines(report(COMMITTED / run))
    assert max(map(len, shown)) <= 80
    assert sum("█" in line or "·" in line for line in shown) == sum(
        len(suite.tasks) for suite in report(COMMITTED / run).suites
    )


def test_a_change_is_told_by_whole_intervals() -> None:
    change = make_change({"en": between(-0.02, -0.01), "sw": near(0.1), "th": between(-0.01, 0.02)})
    assert "more in sw; fewer in en; undecided in th." in text_of(render_change(change))


@pytest.mark.parametrize(
    ("value", "shown"), [(65.84, "65.8"), (0.3784, "0.378"), (1234.0, "1234"), (0.00123, "0.00123"), (0.0, "0.00")]
)
def test_three_significant_digits(value: float, shown: str) -> None:
    assert digits(value) == shown


def test_a_log_tells_the_time_left_at_the_pace_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 100.0, 110.0])  # entered; the first call finds half of it done by an earlier process
    with plain(lambda: next(times)) as show:
        show("a", 50, 100)
        show("b", 60, 100)
    assert capsys.readouterr().err == " 50% a\n 60% b, 40 s left\n"
    assert [duration(each) for each in (40, 600, 9000)] == ["40 s", "10 min", "2.5 h"]
