"""Before and after of a fine-tuned drafter on the board: figures as given, falls named, hostile names stay text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reading import HOSTILE, Page, assert_inert
from site_sample import around, report, run_folder

from fairspec_bench.metrics.comparison import Comparison, SuiteComparison
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.site.build import build_site
from fairspec_bench.site.views import RunChange

SUITE = "embedded_math"


def comparison(tasks: list[str]) -> Comparison:
    """The first task rose by .1, the last fell significantly; the others have no data."""
    given = dict.fromkeys(tasks, Estimate()) | {tasks[0]: around(0.1, 0.02), tasks[-1]: around(-0.2, 0.05)}
    suite = SuiteComparison(
        suite=SUITE,
        clusters=dict.fromkeys(tasks, 10),
        differences={"acceptance": given},
        unfairness=around(-0.3, 0.1),
        relative={},
        levelled_down=(tasks[-1],),
    )
    return Comparison(suites=(suite,), replicates=100, bootstrap_seed=0)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return run_folder(tmp_path, "plain", report()), run_folder(tmp_path, HOSTILE.replace("/", ""), report())


def test_the_change_stands_between_both_runs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tasks = [f"{SUITE}/{task.language}" for task in report().suites[0].tasks]
    page = build_site(list(folders), tmp_path / "site", [RunChange(*folders, comparison(tasks))])
    read = Page(page.read_text(encoding="utf-8"))
    assert_inert(read)
    assert all("<table" in figure for figure in re.findall(r"<figure.*?</figure>", read.html, re.S))
    assert f"Before and after fine-tuning: {SUITE}" in read.words
    rows = {row[0].split()[-1]: row for row in read.rows if len(row) == 5}
    risen, fallen = Task(tasks[0]).language, Task(tasks[-1]).language
    assert rows[risen][3].startswith("+0.100")
    assert rows[risen][4] == "higher than before"
    assert rows[fallen][3].startswith("−0.200")
    assert rows[fallen][4] == "lower than before"


def test_a_change_of_a_run_that_is_not_on_the_board_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="Name it among the runs too"):
        build_site([folders[0]], tmp_path / "site", [RunChange(*folders, comparison([f"{SUITE}/en"]))])
    assert not (tmp_path / "site").exists()
