"""Before and after of a mended drafter on the board: figures as given, who fell is named, hostile names stay text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reading import HOSTILE, Page, assert_inert
from site_sample import around, report, run_folder

from fairspec_bench.measure.compare import Comparison, SuiteComparison
from fairspec_bench.records import Estimate, FairspecError
from fairspec_bench.site.build import build_site
from fairspec_bench.site.changes import Changed

SUITE = "embedded_math"


def comparison(tasks: list[str]) -> Comparison:
    """The first task rose by .1, the last surely fell; the others have no data."""
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
    page = build_site(list(folders), tmp_path / "site", [Changed(*folders, comparison(tasks))])
    read = Page(page.read_text(encoding="utf-8"))
    assert_inert(read)
    assert all("<table" in figure for figure in re.findall(r"<figure.*?</figure>", read.html, re.S))
    assert f"Before and after mending: {SUITE}" in read.words
    rows = {row[0].split()[-1]: row for row in read.rows if len(row) == 5}
    risen, fallen = tasks[0].split("/")[1], tasks[-1].split("/")[1]
    assert rows[risen][3].startswith("+0.100")
    assert rows[risen][4] == ""
    assert rows[fallen][3].startswith("−0.200")
    assert rows[fallen][4] == "levelled down"


def test_a_change_of_a_run_that_is_not_on_the_board_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="Name it among the runs too"):
        build_site([folders[0]], tmp_path / "site", [Changed(*folders, comparison([f"{SUITE}/en"]))])
    assert not (tmp_path / "site").exists()
