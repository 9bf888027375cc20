"""Rank ranges of several drafters, and comparisons from per-prompt sums alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fairspec_bench.metrics.bootstrap import Array, partition
from fairspec_bench.metrics.comparison import compare_runs, compare_sheets
from fairspec_bench.metrics.measure import StatTable
from fairspec_bench.metrics.prompt_sums import prompt_sums, sheets_of
from fairspec_bench.metrics.ranking import standings
from fairspec_bench.metrics.run_data import Lines, Sheets
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Answer, Reference, Replay
from fairspec_bench.scoring.run_folder import RunFolder

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CONTEXTS = 50


def sheets(accepted: Mapping[str, Array]) -> Sheets:
    """One suite: `accepted[task]` `[clusters]` of 50 contexts a prompt, the problems shared by the tasks."""
    size = len(next(iter(accepted.values())))
    names = [str(n).zfill(4) for n in range(size)]
    parts = partition({f"s/{task}": names for task in accepted})
    rows = np.arange(size)
    columns = {task: {"alpha": hits, "contexts": np.full(size, float(CONTEXTS))} for task, hits in accepted.items()}
    return Sheets(parts, {f"s/{task}": StatTable(rows, size, columns[task]) for task in accepted}, {})


def drafter(mean: float, generator: np.random.Generator, problems: Array) -> Sheets:
    """A drafter of that true mean; problems shift all drafters alike, its own noise is small."""
    hits = {
        task: np.clip(CONTEXTS * (mean + problems + generator.normal(0, 0.01, len(problems))), 0, CONTEXTS)
        for task in ("en", "ja")
    }
    return sheets(hits)


def test_what_is_surely_better_is_ranked_apart_and_what_is_not_shares_ranks() -> None:
    generator = np.random.default_rng(0)
    problems = generator.normal(0, 0.05, 80)
    found = standings({"a": drafter(0.7, generator, problems), "b": drafter(0.5, generator, problems)}, 4)
    assert (found["a"].low, found["a"].high) == (1, 1)
    assert (found["b"].low, found["b"].high) == (2, 2)
    alike = standings({name: drafter(0.6, generator, problems) for name in "abc"}, 4)
    assert {(each.low, each.high) for each in alike.values()} == {(1, 3)}


def test_the_comparison_is_paired_by_problem() -> None:
    """.03 apart is lost among problems that vary by .2 unless each problem is compared with itself."""
    generator = np.random.default_rng(1)
    problems = generator.normal(0, 0.1, 60)
    pair = {"a": drafter(0.6, generator, problems), "b": drafter(0.57, generator, problems)}
    assert standings(pair, 4)["a"].high == 1
    shuffled = {"a": pair["a"], "b": drafter(0.57, generator, generator.permutation(problems))}
    assert standings(shuffled, 4)["a"].high == 2


def test_equal_drafters_are_told_apart_in_at_most_one_of_twenty_boards() -> None:
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        board = {str(n): drafter(0.6, generator, generator.normal(0, 0.05, 60)) for n in range(6)}
        wrong += any((each.low, each.high) != (1, 6) for each in standings(board, 4).values())
    assert wrong <= 22  # 5 % of 200 is 10; above 22 has a chance of 1e-4


def test_a_drafter_equal_to_another_is_not_surely_anything() -> None:
    generator = np.random.default_rng(3)
    one = drafter(0.6, generator, generator.normal(0, 0.05, 40))
    assert {(each.low, each.high) for each in standings({"a": one, "b": one}, 4).values()} == {(1, 2)}


def test_one_that_lacks_a_language_has_no_rank_and_other_prompts_are_refused() -> None:
    generator = np.random.default_rng(4)
    whole = drafter(0.6, generator, generator.normal(0, 0.05, 40))
    short = Sheets(whole.parts, {**whole.prompts, "s/ja": whole.prompts["s/ja"].only(np.zeros(40, dtype=bool))}, {})
    assert list(standings({"a": whole, "b": short}, 4)) == ["a"]
    other = drafter(0.6, generator, generator.normal(0, 0.05, 30))
    with pytest.raises(FairspecError, match="different prompts"):
        standings({"a": whole, "b": other}, 4)


def lines(folder: RunFolder) -> Lines:
    return Lines(
        references=folder.lines("reference", Reference),
        answers=folder.lines("answer", Answer),
        replays=folder.lines("replay", Replay),
    )


def test_kept_sums_give_the_comparison_that_the_lines_give() -> None:
    runs = [RunFolder(RESULTS / name) for name in ("ntrex-multiq", "ntrex-mended-multiq")]
    from_lines = compare_runs(*((run.config, lines(run)) for run in runs), replicates=200)
    suite, gamma = runs[0].config.suites[0], runs[0].config.gamma
    old, new = (sheets_of(prompt_sums(run.config, lines(run)), suite) for run in runs)
    from_sums = compare_sheets(suite.name, old, new, gamma, 200)
    expected = from_lines.suites[0]
    assert from_sums.clusters == expected.clusters
    for name, tasks in expected.differences.items():
        for task, each in tasks.items():
            found = from_sums.differences[name][task]
            assert found.model_dump() == pytest.approx(each.model_dump(), abs=1e-6)
    assert from_sums.unfairness.model_dump() == pytest.approx(expected.unfairness.model_dump(), rel=1e-5, abs=1e-7)
