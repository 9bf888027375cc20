"""Two runs on the same texts: paired differences by language, and who was levelled down.

Knows two runs' lines and the interval that fits a difference; the intervals of one table hold together (max-t), so
that "no language falls" is not refuted by chance among many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from rich.console import Group, RenderableType

from fairspec_bench.measure import bootstrap, unfairness
from fairspec_bench.measure.bootstrap import Array, Partition
from fairspec_bench.measure.catalogue import measures
from fairspec_bench.measure.lines import Book, Lines, Sheets, open_book, suite_sheets
from fairspec_bench.measure.show import cell, line, plain_table
from fairspec_bench.measure.table import Linear, Measure, Sheet, assemble, known, linear, published, replicate
from fairspec_bench.records import Estimate, FairspecError, Record, RunConfig, Shown

SPREADS: Mapping[str, tuple[str, Callable[[Array], Array]]] = {
    "unfairness": ("misfit", unfairness.unfairness),
    "unfairness_ce": ("misfit_ce", unfairness.unfairness),
    "acceptance_variance": ("acceptance", unfairness.variance),
}
COMPARED = ("acceptance", "block_efficiency_uncut", "misfit", "misfit_ce")


class SuiteComparison(Record):
    """Second − first: `differences[measure][task]` with simultaneous intervals, over `clusters[task]` problems.

    `unfairness` is the difference of U, `relative` the changes of spreads as shares of the first run's (after / before
    − 1), by the spread's name. `levelled_down` are tasks whose acceptance surely fell.
    """

    suite: str
    clusters: dict[str, int]
    differences: dict[str, dict[str, Estimate]]
    unfairness: Estimate
    relative: dict[str, Estimate]
    levelled_down: tuple[str, ...]


class Comparison(Shown):
    """What changed from the first run to the second on the texts both have."""

    suites: tuple[SuiteComparison, ...]
    replicates: int
    bootstrap_seed: int


def compare_runs(
    first: tuple[RunConfig, Lines],
    second: tuple[RunConfig, Lines],
    *,
    replicates: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Paired differences, second − first, on prompts that both replayed.

    Raises `FairspecError` where the runs share no suite, differ in γ, decoding rule or a suite's version, or hold
    different texts of one prompt.
    """
    before, after = open_book(*first), open_book(*second)
    if (before.config.gamma, before.config.rule) != (after.config.gamma, after.config.rule):
        raise FairspecError(
            "compare: the runs differ in gamma or decoding rule. Run both with the same --gamma and rule."
        )
    versions = {suite.name: suite.version for suite in before.config.suites}
    shared = [suite for suite in after.config.suites if suite.name in versions]
    if not shared:
        raise FairspecError("compare: the runs have no suite in common. Run both on the same --suite.")
    for suite in shared:
        if suite.version != versions[suite.name]:
            both = f"{versions[suite.name]} in the first run, {suite.version} in the second"
            raise FairspecError(f"compare: {suite.name} is of version {both}: other prompts. Run both on one version.")
    before, after = _on_common_prompts(before, after, after.config), _on_common_prompts(after, before, after.config)
    gamma = after.config.gamma
    suites = tuple(
        compare_sheets(suite.name, suite_sheets(before, suite), suite_sheets(after, suite), gamma, replicates, seed)
        for suite in shared
    )
    return Comparison(suites=suites, replicates=replicates, bootstrap_seed=seed)


def _on_common_prompts(book: Book, other: Book, config: RunConfig) -> Book:
    common = book.replays.keys() & other.replays.keys()
    for key in sorted(common):
        if book.traces[key].ids != other.traces[key].ids or book.traces[key].prompt_sha != other.traces[key].prompt_sha:
            raise FairspecError(
                f"compare: {key} is another text in the two runs. Compare drafters of one verifier and rule."
            )
    traces = {key: book.traces[key] for key in sorted(common)}
    replays = {key: book.replays[key] for key in sorted(common)}
    return replace(
        book, config=config, traces=traces, replays=replays, answers={}, drafter_answers={}, dropped={}, timings=()
    )


def compare_sheets(
    suite: str, old: Sheets, new: Sheets, gamma: int, replicates: int = 10_000, seed: int = 0
) -> SuiteComparison:
    """`new` − `old` of one suite. Both are laid out over the same prompts."""
    table = measures(gamma)
    differences = {
        name: _differences(table[name], old.prompts, new.prompts, new.parts, replicates) for name in COMPARED
    }
    return SuiteComparison(
        suite=suite,
        clusters={task: len(np.unique(sheet.clusters)) for task, sheet in new.prompts.items()},
        differences=differences,
        unfairness=_change_of_spread(table["misfit"], unfairness.unfairness, _minus, old, new, replicates, seed),
        relative={
            name: _change_of_spread(table[measure], spread, _over, old, new, replicates, seed)
            for name, (measure, spread) in SPREADS.items()
        },
        levelled_down=unfairness.levelled_down(differences["acceptance"]),
    )


def _differences(
    measure: Measure, old: Mapping[str, Sheet], new: Mapping[str, Sheet], parts: Partition, replicates: int
) -> dict[str, Estimate]:
    """New − old of each task on the prompts that both know; intervals hold for all tasks at once."""
    found: dict[str, Linear] = {}
    for task in new:
        rows = known(measure, old[task]) & known(measure, new[task])
        before, after = linear(measure, old[task].only(rows)), linear(measure, new[task].only(rows))
        if before is not None and after is not None:
            found[task] = Linear(after.value - before.value, after.influence - before.influence, after.have)
    single = [task for task, one in found.items() if one.have.sum() < 2]
    differences = {task: Estimate() for task in new} | {task: Estimate(value=found.pop(task).value) for task in single}
    if found:
        law = assemble(found, parts)
        low, high = bootstrap.simultaneous(law.value, law.influence, strata=law.strata, replicates=replicates)
        for place, task in enumerate(law.tasks):
            value, bounds = float(law.value[place]), (float(low[place]), float(high[place]))
            whole = Estimate(value=value, low=bounds[0], high=bounds[1]) if np.isfinite(bounds).all() else None
            differences[task] = published(whole or Estimate(value=value))
    return differences


def _minus(after: Array, before: Array) -> Array:
    return after - before


def _over(after: Array, before: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return after / before - 1


def _change_of_spread(
    measure: Measure,
    spread: Callable[[Array], Array],
    change: Callable[[Array, Array], Array],
    old: Sheets,
    new: Sheets,
    replicates: int,
    seed: int,
) -> Estimate:
    """`change(after, before)` of a spread over tasks, corrected for noise; no figure where a task has no data."""
    values: list[float] = []
    fewest: list[int] = []
    drawn: list[Array] = []
    for sheets in (old.prompts, new.prompts):
        found = {task: one for task, sheet in sheets.items() if (one := linear(measure, sheet)) is not None}
        if len(found) < max(2, sum(len(sheet.clusters) > 0 for sheet in new.prompts.values())):
            return Estimate()
        values.extend(one.value for one in found.values())
        fewest.extend(int(one.have.sum()) for one in found.values())
        drawn.extend(
            replicate([measure], sheets[task], replicates, (seed, new.parts.stratum[task]))[measure.name]
            for task in found
        )

    def both(figures: Array) -> Array:
        before, after = np.split(figures, 2)
        return change(spread(after), spread(before))

    stars = np.stack(drawn, axis=1)
    return published(bootstrap.corrected(both, np.array(values), stars, min(fewest), least=-np.inf))


def render_comparison(comparison: Comparison) -> RenderableType:
    """The comparison as Rich tables; a task that was levelled down says so."""
    parts: list[RenderableType] = []
    for suite in comparison.suites:
        rows = []
        for task, count in suite.clusters.items():
            verdict = "levelled down" if task in suite.levelled_down else ""
            figures = (cell(suite.differences[name][task]) for name in COMPARED)
            rows.append([task.rpartition("/")[2], str(count), *figures, verdict])
        parts.append(plain_table(f"{suite.suite}: second − first", ["language", "n", *COMPARED, "verdict"], rows))
        parts.append(line(f"U, second − first: {cell(suite.unfairness)} nats²"))
        shares = (f"{name} {cell(each)}" for name, each in suite.relative.items())
        parts.append(line(f"As a share of the first: {', '.join(shares)}"))
    parts.append(line("Intervals: 95 %, simultaneous over the languages of a table, paired by problem."))
    return Group(*parts)
