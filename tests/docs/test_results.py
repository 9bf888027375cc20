"""The committed results: the report of each committed run is what its lines give, byte for byte."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fairspec_bench
from fairspec_bench.api.reports import markdown
from fairspec_bench.experiments import causal, compare_methods, transfer
from fairspec_bench.metrics.bounds import bounds
from fairspec_bench.schemas.io import read_lines, read_record
from fairspec_bench.schemas.lines import Answer
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/run.json"))

STUDIES = (
    ("causal", causal.Causal, causal.describe),
    ("compare-methods", compare_methods.MethodComparison, compare_methods.page),
    ("transfer", transfer.Transfer, transfer.page),
)


FIGURES = Path(__file__).parent / "figures.json"
"""Headline figures by run, from the reports of version 0.1."""


def test_the_figures_are_those_of_version_0_1() -> None:
    """Acceptance by task, U with its interval, speed-up by task where raced; of committed runs and submissions."""
    root = RESULTS.parents[1]
    wanted = json.loads(FIGURES.read_text(encoding="utf-8"))
    folders = {str(path.parent.relative_to(root)): path.parent for path in RESULTS.glob("*/run.json")}
    folders |= {str(path.parent.relative_to(root)): path for path in root.glob("submissions/*/run")}
    assert folders.keys() == wanted.keys()
    for name, folder in folders.items():
        stored = folder.name == "run"  # a submission's; it is checked against its lines
        report = read_record(folder / "report.json", Report) if stored else fairspec_bench.report(folder)
        found = {suite.suite: headline(suite) for suite in report.suites}
        assert found == wanted[name], name


def headline(suite: SuiteReport) -> dict[str, Any]:
    def with_interval(each: Estimate) -> list[float | None]:
        return [each.value, each.low, each.high]

    speedups = {task.language: task.measures["speedup"] for task in suite.tasks if "speedup" in task.measures}
    raced = {language: with_interval(each) for language, each in speedups.items() if each.value is not None}
    return {
        "acceptance": {task.language: task.measures["acceptance"].value for task in suite.tasks},
        "unfairness": with_interval(suite.across["unfairness"]),
        **({"speedup": raced} if raced else {}),
    }


def test_there_are_committed_runs() -> None:
    assert {run.name for run in RUNS} >= {"ntrex-mgsm", "ntrex-multiq"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_lines_give_the_committed_report(run: Path) -> None:
    made = markdown(fairspec_bench.report(run))
    assert (run / "report.md").read_text(encoding="utf-8") == made.rstrip("\n") + "\n"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_no_bound_is_broken(run: Path) -> None:
    """Theorems, by language: overlap against KL and cross-entropy, greedy block efficiency against acceptance."""
    report = fairspec_bench.report(run)
    checked = []
    for task in (task for suite in report.suites for task in suite.tasks):
        value = {name: each.value for name, each in task.measures.items()}
        efficiency, blocks = value["block_efficiency"], value["blocks_expected"]
        contexts = None if efficiency is None or blocks is None else efficiency * blocks
        checked += [
            *bounds(overlap=value["overlap"], misfit=value["misfit"]),
            *bounds(overlap=value["overlap"], misfit=value["misfit_ce"]),
            *bounds(
                block_efficiency=efficiency,
                acceptance=value["acceptance"],
                gamma=report.config.gamma,
                contexts=contexts,
            ),
        ]
    assert len(checked) >= 6 * len(report.suites[0].tasks)
    assert all(bound.holds for bound in checked)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_no_text_of_the_data_is_committed(run: Path) -> None:
    answers = list(read_lines(run / "answer.jsonl", Answer))
    assert answers
    assert all(answer.text is None for answer in answers)


def test_the_pages_of_studies_are_those_of_their_figures() -> None:
    for name, kind, page in STUDIES:
        made = page(read_record(RESULTS / name / f"{name}.json", kind))
        assert (RESULTS / name / f"{name}.md").read_text(encoding="utf-8") == made


@pytest.mark.parametrize(
    ("name", "kind", "plot"),
    [
        ("causal", causal.Causal, causal.plot),
        ("compare-methods", compare_methods.MethodComparison, compare_methods.plot),
    ],
)
def test_the_plots_are_those_of_the_figures(name: str, kind: Any, plot: Callable[[Any], str]) -> None:
    made = plot(read_record(RESULTS / name / f"{name}.json", kind))
    assert (RESULTS / name / f"{name}.svg").read_text(encoding="utf-8") == made


def test_the_result_in_the_readme_is_what_the_submissions_say() -> None:
    """Acceptance in English and Thai before and after s-CDF, then U before and after: rounded, with their intervals."""
    root = RESULTS.parents[1]
    figures: list[Estimate] = []
    unfairness: list[Estimate] = []
    for name in ("plain", "s-cdf"):
        report = fairspec_bench.report(root / "submissions" / name / "run")
        (suite,) = (suite for suite in report.suites if suite.suite == "embedded_math")
        acceptance = {task.language: task.measures["acceptance"] for task in suite.tasks}
        figures += [acceptance["en"], acceptance["th"]]
        unfairness.append(suite.across["unfairness"])
    wanted = [f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in (*figures, *unfairness)]
    text = (root / "README.md").read_text(encoding="utf-8").partition("**One result**")[2].partition("```")[0]
    assert re.findall(r"\d\.\d+ \[[^]]+\]", text) == wanted


def test_the_studies_on_the_page_of_results_are_what_their_json_says() -> None:
    """The slope of share, per doubling, and how far s-CDF's mean lies below plain distillation's."""
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    found = read_record(RESULTS / "causal" / "causal.json", causal.Causal)
    slope = [None if value is None else value * math.log(2) for _, value in found.fits[0].slope]
    compared = read_record(RESULTS / "compare-methods" / "compare-methods.json", compare_methods.MethodComparison)
    against = next(one.against for one in compared.methods if one.method == "uniform")
    assert against is not None
    mean = against.across["mean_acceptance"].change
    wanted = ["+{:.3f} [{:.3f}, {:.3f}]".format(*slope)]
    wanted.append("{:.3f} [{:.3f}, {:.3f}]".format(*(-value for value in (mean.value, mean.high, mean.low) if value)))
    assert re.findall(r"\+?\d\.\d+ \[[^]]+\]", text) == wanted
