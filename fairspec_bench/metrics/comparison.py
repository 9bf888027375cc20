"""Two runs on the same references: paired differences by language, and the languages that got worse.

The intervals of one table hold simultaneously (max-t), so that "no language gets worse" is not refuted by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from fairspec_bench.metrics import bootstrap, spread, unfairness
from fairspec_bench.metrics.bootstrap import Partition
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.measure import (
    Linear,
    Measure,
    StatTable,
    assemble,
    joint,
    known,
    linear,
    published,
    replicate,
)
from fairspec_bench.metrics.run_data import Lines, RunData, Sheets, load_run_data, suite_sheets
from fairspec_bench.metrics.spread import Spread
from fairspec_bench.schemas.base import FairspecError, NotebookRecord, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.report import Estimate

SPREADS: Mapping[str, tuple[str, Spread]] = {
    "unfairness": ("misfit", spread.unfairness),
    "unfairness_ce": ("misfit_ce", spread.unfairness),
    "acceptance_variance": ("acceptance", spread.variance),
}
COMPARED = ("acceptance", "block_efficiency_uncut", "misfit", "misfit_ce")


class SuiteComparison(Record):
    """Second − first: `differences[measure][task]` with simultaneous intervals, over `clusters[task]` problems.

    `unfairness` is the difference of U, `relative` the changes of spreads as shares of the first run's (after / before
    − 1), by the spread's name: none where the first run's is within its noise floor. `levelled_down` are tasks whose
    acceptance fell significantly.
    """

    suite: str
    clusters: dict[str, int]
    differences: dict[str, dict[str, Estimate]]
    unfairness: Estimate
    relative: dict[str, Estimate]
    levelled_down: tuple[str, ...]


class Comparison(NotebookRecord):
    """What changed from the first run to the second, on the references that both have."""

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

    Raises `FairspecError` where the runs share no suite, differ in γ, sampling parameters or a suite's version, or hold
    different references of one prompt.
    """
    before, after = load_run_data(*first), load_run_data(*second)
    if (before.config.gamma, before.config.sampling) != (after.config.gamma, after.config.sampling):
        raise FairspecError(
            "compare: the runs differ in gamma or sampling parameters. Run both with the same --gamma, --temperature, "
            "--top_k and --top_p."
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


def _on_common_prompts(data: RunData, other: RunData, config: RunConfig) -> RunData:
    common = data.replays.keys() & other.replays.keys()
    for key in sorted(common):
        if (
            data.references[key].ids != other.references[key].ids
            or data.references[key].prompt_sha != other.references[key].prompt_sha
        ):
            raise FairspecError(
                f"compare: {key} has different references in the two runs. Compare drafters of one verifier."
            )
    references = {key: data.references[key] for key in sorted(common)}
    replays = {key: data.replays[key] for key in sorted(common)}
    return replace(
        data,
        config=config,
        references=references,
        replays=replays,
        answers={},
        drafter_answers={},
        dropped={},
        timings=(),
    )


def compare_sheets(
    suite: str,
    old: Sheets,
    new: Sheets,
    gamma: int,
    replicates: int = 10_000,
    seed: int = 0,
    *,
    compared: Collection[str] = COMPARED,
    spreads: bool = True,
) -> SuiteComparison:
    """`new` − `old` of one suite, both over the same prompts.

    Args:
        suite: Its name.
        old: Sums of the first run.
        new: Sums of the second run.
        gamma: Drafts in a block.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.
        compared: Measures of `COMPARED` whose differences are given; the others are left empty.
        spreads: Whether the changes of U and of variances are given, which take most of the time.
    """
    table = measures(gamma)
    differences = {
        name: _differences(table[name], old.prompts, new.prompts, new.parts, replicates) if name in compared else {}
        for name in COMPARED
    }
    changes = SPREADS if spreads else {}
    return SuiteComparison(
        suite=suite,
        clusters={task: len(np.unique(sheet.clusters)) for task, sheet in new.prompts.items()},
        differences=differences,
        unfairness=_change_of_spread(table["misfit"], spread.unfairness, old, new, replicates, seed)
        if spreads
        else Estimate(),
        relative={
            name: _change_of_spread(table[measure], kind, old, new, replicates, seed, relative=True)
            for name, (measure, kind) in changes.items()
        },
        levelled_down=unfairness.levelled_down(differences["acceptance"]),
    )


def _differences(
    measure: Measure, old: Mapping[str, StatTable], new: Mapping[str, StatTable], parts: Partition, replicates: int
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
        found_jointly = assemble(found, parts)
        low, high = bootstrap.simultaneous(
            found_jointly.value, found_jointly.influence, strata=found_jointly.strata, replicates=replicates
        )
        for place, task in enumerate(found_jointly.tasks):
            value, bounds = float(found_jointly.value[place]), (float(low[place]), float(high[place]))
            whole = Estimate(value=value, low=bounds[0], high=bounds[1]) if np.isfinite(bounds).all() else None
            differences[task] = published(whole or Estimate(value=value))
    return differences


def _change_of_spread(
    measure: Measure, kind: Spread, old: Sheets, new: Sheets, replicates: int, seed: int, *, relative: bool = False
) -> Estimate:
    """A spread over tasks, after − before; no figure where a task has no data."""
    joints, drawn = [], []
    for sheets in (old.prompts, new.prompts):
        found = joint(measure, sheets, new.parts)
        if found is None or len(found.tasks) < sum(len(sheet.clusters) > 0 for sheet in new.prompts.values()):
            return Estimate()
        joints.append(found)
        columns = [
            replicate([measure], sheets[task], replicates, (seed, new.parts.stratum[task]))[measure.name]
            for task in found.tasks
        ]
        drawn.append(np.stack(columns, axis=1))
    return published(spread.change(kind, joints, drawn, relative=relative))
