"""A change over several trainings: figures across tasks before and after, averaged over the trainings.

Runs come in pairs (before, after) on the same prompts. Seeds that fine-tune one drafter repeat each other closely, so
the unit is the drafter: its change is the mean over its seeds, and an interval covers other problems and other drafters
(`bootstrap.crossed`). Of a single drafter the trainings are the units, and nothing is said of other drafters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.metrics import bootstrap, spread, unfairness
from fairspec_bench.metrics.bootstrap import Array, Labels
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.measure import Joint, joint, published, replicate, rounded
from fairspec_bench.metrics.run_data import Lines, load_run_data, suite_sheets
from fairspec_bench.metrics.spread import Spread
from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.report import Estimate

Run = tuple[RunConfig, Lines]


@dataclass(frozen=True)
class Statistic:
    """A figure over tasks, `[m, ...] → [...]`, of a measure; of a `Spread` the unbiased one."""

    measure: str
    value: Callable[[Array], Array] | Spread


STATISTICS: Mapping[str, Statistic] = {
    "mean_acceptance": Statistic("acceptance", lambda a: a.mean(axis=0)),
    "worst_acceptance": Statistic("acceptance", lambda a: a.min(axis=0)),
    "best_acceptance": Statistic("acceptance", lambda a: a.max(axis=0)),
    "acceptance_variance": Statistic("acceptance", spread.variance),
    "mean_overlap": Statistic("overlap", lambda a: a.mean(axis=0)),
    "worst_overlap": Statistic("overlap", lambda a: a.min(axis=0)),
    "unfairness": Statistic("misfit", spread.unfairness),
    "unfairness_ce": Statistic("misfit_ce", spread.unfairness),
    "mean_block_efficiency": Statistic("block_efficiency_uncut", lambda b: b.mean(axis=0)),
    "block_efficiency_gap": Statistic("block_efficiency_uncut", lambda b: b.max(axis=0) - b.min(axis=0)),
}


class Change(Record):
    """Means over the units, and the change with its interval.

    `relative` is exp(mean of ln(after / before)) − 1 over the units: drafters of any scale count alike.
    `None` where a figure is not above 0, or a spread before within its noise floor.
    """

    before: float
    after: float
    change: Estimate
    relative: Estimate


class Trainings(Record):
    """What `trainings` trainings did on one suite; figures of drafters without a proper q lack misfit and U.

    `drafters` is how many were trained: with several they are the units, with one its trainings are. `problems` are
    those that the languages share. `acceptance` is by task, its intervals simultaneous (Bonferroni); `levelled_down`
    are tasks that fell significantly. `runs` holds the change of every single training, `noise_floor` the U (nats²)
    that noise alone gives after.
    """

    suite: str
    trainings: int
    drafters: int
    problems: int
    noise_floor: float | None
    across: dict[str, Change]
    acceptance: dict[str, Change]
    levelled_down: tuple[str, ...]
    runs: dict[str, tuple[float, ...]]
    replicates: int
    bootstrap_seed: int


def over_trainings(
    pairs: Sequence[tuple[Run, Run]],
    suite: str,
    *,
    drafters: Sequence[str] | None = None,
    replicates: int = 4_000,
    seed: int = 0,
) -> Trainings:
    """The mean change over (before, after) runs.

    `drafters` names the drafter that each pair trained; without, all trained one. Raises `FairspecError` for runs of
    different prompts or none.
    """
    if not pairs:
        raise FairspecError("no trainings to compare. Finish at least one.")
    distributions = [tuple(_distribution(run, suite, replicates, seed) for run in pair) for pair in pairs]
    if len({tuple(one.prompts) for pair in distributions for one in pair}) > 1:
        raise FairspecError(f"{suite}: the runs are not of the same prompts. Score all with the same --limit.")
    tasks, clusters = distributions[0][0].tasks, distributions[0][0].clusters
    names = drafters or [str(number) for number in range(len(pairs))]
    units = np.unique(names, return_inverse=True)[1]
    floors = [_floor(after) for _, after in distributions]
    floor = None if None in floors else rounded(float(np.mean([each for each in floors if each is not None])))
    across, single = {}, {}
    for name, statistic in STATISTICS.items():
        if all(statistic.measure in one.joints for pair in distributions for one in pair):
            before, after = (_figures([pair[side] for pair in distributions], statistic) for side in (0, 1))
            (across[name],) = _changes(before, after, units, clusters)
            single[name] = tuple(rounded(float(each)) for each in (after.value - before.value)[:, 0])
    alone = Statistic("acceptance", lambda a: a)
    before, after = (_figures([pair[side] for pair in distributions], alone) for side in (0, 1))
    by_task = dict(zip(tasks, _changes(before, after, units, clusters), strict=True))
    return Trainings(
        suite=suite,
        trainings=len(pairs),
        drafters=len(set(drafters)) if drafters else 1,
        problems=clusters,
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
    """By measure that all tasks have: figures and influences, and joint replicates `[R, m]`.

    `clusters` is the fewest problems that a task has.
    """

    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    clusters: int
    joints: dict[str, Joint]
    samples: dict[str, Array]


def _distribution(run: Run, name: str, replicates: int, seed: int) -> _Distribution:
    data = load_run_data(*run)
    suite = next((each for each in data.config.suites if each.name == name), None)
    if suite is None:
        raise FairspecError(f"the run has no suite {name}. Score it on --suite {name}.")
    sheets, table = suite_sheets(data, suite), measures(data.config.gamma)
    tasks = tuple(sheets.prompts)
    found = {
        each: one
        for each in dict.fromkeys(each.measure for each in STATISTICS.values())
        if (one := joint(table[each], sheets.prompts, sheets.parts)) is not None and one.tasks == tasks
    }
    if "acceptance" not in found:
        raise FairspecError(f"{name}: a task has no replayed prompt, or there is only one. Finish the run.")
    # One seed for all runs: the same problems are drawn in each, so that differences stay paired.
    drawn = [
        replicate([table[each] for each in found], sheet, replicates, (seed, sheets.parts.stratum[task]))
        for task, sheet in sheets.prompts.items()
    ]
    return _Distribution(
        tasks,
        tuple(sorted(data.replays)),
        min(len(np.unique(sheet.clusters)) for sheet in sheets.prompts.values()),
        found,
        {each: np.stack([one[each] for one in drawn], axis=1) for each in found},
    )


def _floor(one: _Distribution) -> float | None:
    if "misfit" not in one.joints:
        return None
    return spread.noise_floor(spread.unfairness, one.joints["misfit"], one.samples["misfit"])


@dataclass(frozen=True)
class _Figures:
    """K figures of n runs: `value` `[n, K]`, and their replicates `[R, n, K]`; whether all are `clear` of noise."""

    value: Array
    samples: Array
    clear: bool = True


def _figures(distributions: Sequence[_Distribution], statistic: Statistic) -> _Figures:
    value, samples, clear = [], [], True
    for one in distributions:
        found, drawn = one.joints[statistic.measure], one.samples[statistic.measure]
        plain = np.atleast_1d(statistic.value(found.value))
        if isinstance(statistic.value, Spread):
            floor = spread.noise_floor(statistic.value, found, drawn)
            plain = np.array([spread.unbiased(statistic.value, found)])
            clear &= floor is not None and plain[0] > floor
        value.append(plain)
        samples.append(statistic.value(drawn.T).reshape(len(plain), -1).T)
    return _Figures(np.array(value), np.stack(samples, axis=1), clear)


def _changes(before: _Figures, after: _Figures, units: Labels, clusters: int) -> list[Change]:
    """The mean change of each of the K figures; intervals hold for all at once. `units` `[n]` labels the runs."""
    means = _by_unit(before.value, units).mean(axis=0), _by_unit(after.value, units).mean(axis=0)
    change = _bounds(after.value - before.value, after.samples - before.samples, units, clusters)
    relative = [Estimate()] * len(change)
    if before.clear and (before.value > 0).all() and (after.value > 0).all():
        logs = np.log(after.value / before.value)
        # The logarithm linearised at the figures: a replicate may be 0 or less.
        drawn = after.samples / after.value - before.samples / before.value
        relative = [_as_ratio(each) for each in _bounds(logs, drawn, units, clusters)]
    return [
        Change(before=rounded(float(low)), after=rounded(float(high)), change=moved, relative=ratio)
        for low, high, moved, ratio in zip(*means, map(published, change), map(published, relative), strict=True)
    ]


def _by_unit(runs: Array, units: Labels) -> Array:
    """Means over each unit's runs: `[n, ...]` → `[units, ...]`."""
    return np.stack([runs[units == unit].mean(axis=0) for unit in range(units.max() + 1)])


def _bounds(runs: Array, samples: Array, units: Labels, clusters: int) -> list[Estimate]:
    values = _by_unit(runs, units)
    drawn = np.swapaxes(_by_unit(np.swapaxes(samples, 0, 1), units), 0, 1)
    found = zip(values.mean(axis=0), *bootstrap.crossed(values, drawn, clusters), strict=True)
    return [Estimate(value=v, low=low, high=high) if np.isfinite(low) else Estimate(value=v) for v, low, high in found]


def _as_ratio(figure: Estimate) -> Estimate:
    return Estimate(**{name: None if value is None else float(np.expm1(value)) for name, value in figure})
