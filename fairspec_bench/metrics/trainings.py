"""A change over several trainings: figures across tasks before and after, averaged over the trainings.

Runs come in pairs (before, after) on the same prompts. An interval covers other problems as well as other trainings:
mean ± t · √(variance over problems + variance over trainings / n), the first by the cluster bootstrap drawn jointly for
all runs, t with n − 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairspec_bench.metrics import unfairness
from fairspec_bench.metrics.bootstrap import TAIL, Array
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.measure import linear, replicate, rounded
from fairspec_bench.metrics.run_data import Lines, load_run_data, suite_sheets
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.report import Estimate

Run = tuple[RunConfig, Lines]


@dataclass(frozen=True)
class Statistic:
    """A figure over tasks, `[m, ...] → [...]`, of a measure; a spread is `corrected` for noise's upward bias."""

    measure: str
    value: Callable[[Array], Array]
    corrected: bool = False


STATISTICS: Mapping[str, Statistic] = {
    "mean_acceptance": Statistic("acceptance", lambda a: a.mean(axis=0)),
    "worst_acceptance": Statistic("acceptance", lambda a: a.min(axis=0)),
    "best_acceptance": Statistic("acceptance", lambda a: a.max(axis=0)),
    "acceptance_variance": Statistic("acceptance", unfairness.variance, corrected=True),
    "unfairness": Statistic("misfit", unfairness.unfairness, corrected=True),
    "unfairness_ce": Statistic("misfit_ce", unfairness.unfairness, corrected=True),
    "mean_block_efficiency": Statistic("block_efficiency_uncut", lambda b: b.mean(axis=0)),
    "block_efficiency_gap": Statistic("block_efficiency_uncut", lambda b: b.max(axis=0) - b.min(axis=0)),
}


class Change(Record):
    """Means over the trainings, and the change with its interval; `relative` is change / before, the interval's too."""

    before: float
    after: float
    change: Estimate
    relative: Estimate


class Trainings(Record):
    """What `trainings` trainings did on one suite; figures of drafters without a proper q lack misfit and U.

    `acceptance` is by task, its intervals simultaneous (Bonferroni); `levelled_down` are tasks that fell significantly.
    `runs` holds the change of every single training, `noise_floor` the U (nats²) that noise alone gives after.
    """

    suite: str
    trainings: int
    problems: int
    noise_floor: float | None
    across: dict[str, Change]
    acceptance: dict[str, Change]
    levelled_down: tuple[str, ...]
    runs: dict[str, tuple[float, ...]]
    replicates: int
    bootstrap_seed: int


def over_trainings(
    pairs: Sequence[tuple[Run, Run]], suite: str, *, replicates: int = 4_000, seed: int = 0
) -> Trainings:
    """The mean change over (before, after) runs. Raises `FairspecError` for runs of different prompts or none."""
    if not pairs:
        raise FairspecError("no trainings to compare. Finish at least one.")
    distributions = [tuple(_distribution(run, suite, replicates, seed) for run in pair) for pair in pairs]
    if len({tuple(one.problems) for pair in distributions for one in pair}) > 1:
        raise FairspecError(f"{suite}: the runs are not of the same prompts. Score all with the same --limit.")
    tasks = distributions[0][0].tasks
    floors = [_floor(after) for _, after in distributions]
    floor = None if None in floors else rounded(float(np.mean([each for each in floors if each is not None])))
    across, single = {}, {}
    for name, statistic in STATISTICS.items():
        if all(statistic.measure in one.value for pair in distributions for one in pair):
            before, after = (_figures([pair[side] for pair in distributions], statistic) for side in (0, 1))
            across[name] = _change(before, after, ways=1)
            single[name] = tuple(rounded(float(each)) for each in after.value - before.value)
    by_task = {}
    for place, task in enumerate(tasks):
        alone = Statistic("acceptance", lambda a, place=place: a[place])  # type: ignore[misc]
        before, after = (_figures([pair[side] for pair in distributions], alone) for side in (0, 1))
        by_task[task] = _change(before, after, ways=len(tasks))
    return Trainings(
        suite=suite,
        trainings=len(pairs),
        problems=len(set(distributions[0][0].problems)),
        noise_floor=floor,
        across=across,
        acceptance=by_task,
        levelled_down=unfairness.levelled_down({task: one.change for task, one in by_task.items()}),
        runs=single,
        replicates=replicates,
        bootstrap_seed=seed,
    )


# --------------------------------------------------------------------------- figures of every run


@dataclass(frozen=True)
class _Distribution:
    """By measure: values `[m]` over the tasks and joint replicates `[R, m]`."""

    tasks: tuple[str, ...]
    problems: tuple[str, ...]
    value: dict[str, Array]
    samples: dict[str, Array]


def _distribution(run: Run, name: str, replicates: int, seed: int) -> _Distribution:
    data = load_run_data(*run)
    suite = next((each for each in data.config.suites if each.name == name), None)
    if suite is None:
        raise FairspecError(f"the run has no suite {name}. Score it on --suite {name}.")
    sheets, table = suite_sheets(data, suite), measures(data.config.gamma)
    wanted = [table[each] for each in dict.fromkeys(each.measure for each in STATISTICS.values())]
    value: dict[str, list[float]] = {}
    samples: dict[str, list[Array]] = {}
    for task, sheet in sheets.prompts.items():
        # One seed for all runs: the same problems are drawn in each, so that differences stay paired.
        drawn = replicate(wanted, sheet, replicates, (seed, sheets.parts.stratum[task]))
        for measure in wanted:
            if (found := linear(measure, sheet)) is not None:
                value.setdefault(measure.name, []).append(found.value)
                samples.setdefault(measure.name, []).append(drawn[measure.name])
    tasks = tuple(sheets.prompts)
    whole = [name for name, values in value.items() if len(values) == len(tasks)]
    if "acceptance" not in whole:
        raise FairspecError(f"{name}: a task has no replayed prompt. Finish the run.")
    return _Distribution(
        tasks,
        tuple(sorted(data.replays)),
        {name: np.array(value[name]) for name in whole},
        {name: np.stack(samples[name], axis=1) for name in whole},
    )


def _floor(one: _Distribution) -> float | None:
    if "misfit" not in one.value:
        return None
    return unfairness.noise_floor(unfairness.unfairness, one.value["misfit"], one.samples["misfit"])


@dataclass(frozen=True)
class _Figures:
    """A statistic of n runs: `value` `[n]`, and its replicates `[n, R]`."""

    value: Array
    samples: Array


def _figures(distributions: Sequence[_Distribution], statistic: Statistic) -> _Figures:
    value, samples = [], []
    for one in distributions:
        plain = statistic.value(one.value[statistic.measure])
        drawn = statistic.value(one.samples[statistic.measure].T)
        value.append(2 * plain - drawn.mean() if statistic.corrected else plain)
        samples.append(drawn)
    return _Figures(np.array(value, dtype=np.float64), np.array(samples))


def _change(before: _Figures, after: _Figures, ways: int) -> Change:
    """The mean change; its interval holds for `ways` such changes at once."""
    changes = after.value - before.value
    low = float(before.value.mean())
    change = _interval(changes, (after.samples - before.samples).mean(axis=0), ways)
    # Both the change and what it is relative to vary: the ratio of means, linearised.
    ratio = float(changes.mean()) / low if low > 0 else None
    relative = Estimate()
    if ratio is not None:
        runs = (changes - ratio * (before.value - low)) / low
        drawn = (after.samples - (1 + ratio) * before.samples).mean(axis=0) / low
        relative = _interval(runs, drawn, ways)
    return Change(before=rounded(low), after=rounded(float(after.value.mean())), change=change, relative=relative)


def _interval(runs: Array, samples: Array, ways: int) -> Estimate:
    count, value = len(runs), float(runs.mean())
    if count < 2:
        return Estimate(value=rounded(value))
    spread = np.sqrt(samples.var(ddof=1) + runs.var(ddof=1) / count)
    reach = float(stats.t.isf(TAIL / ways, count - 1) * spread)
    return Estimate(value=rounded(value), low=rounded(value - reach), high=rounded(value + reach))
