"""How unequal the tasks are: spreads, extremes, ranks, and who was levelled down.

Knows figures of tasks and their joint law; knows no records. A spread near its noise floor is no finding, and a
drafter that is equally bad everywhere has U = 0: mean acceptance is always shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from scipy import stats

from fairspec_bench.measure import bootstrap
from fairspec_bench.measure.bootstrap import Array
from fairspec_bench.measure.table import Joint
from fairspec_bench.records import Estimate

EXACT_TASKS = 7
SURE = 1e-12


# --------------------------------------------------------------------------- figures over tasks, `[m, ...] → [...]`


def unfairness(misfit: Array) -> Array:
    """U = (1/m) Σ_T (D_T − min D)² = Var D + (mean D − min D)², arXiv 2510.02128 (reconstructed)."""
    return np.asarray(((misfit - misfit.min(axis=0)) ** 2).mean(axis=0))


def variance(values: Array) -> Array:
    """The population variance over tasks."""
    return np.asarray(values.var(axis=0))


def noise_floor(statistic: Callable[[Array], Array], value: Array, replicates: Array) -> float | None:
    """The spread that noise alone gives: mean over replicates `[R, m]` after shifting every task to one mean."""
    known = replicates[np.isfinite(replicates).all(axis=1)]
    return float(statistic((known - value).T).mean()) if len(known) else None


def spearman(first: Array, second: Array, replicates: int, seed: int) -> tuple[float | None, float | None]:
    """Spearman's ρ of two figures over tasks and its two-sided permutation p: exact up to 7 tasks, else by draws.

    None, None for fewer than 3 tasks or a figure that is equal everywhere.
    """
    ranks = np.stack([stats.rankdata(first), stats.rankdata(second)])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=1).prod())
    count = len(first)
    if count < 3 or scale == 0:
        return None, None
    rho = float(centred[0] @ centred[1] / scale)
    if count <= EXACT_TASKS:
        shuffled = centred[1][np.array(list(permutations(range(count))))]
        extreme = np.abs(shuffled @ centred[0] / scale) >= abs(rho) - SURE
        return rho, float(extreme.mean())
    shuffled = np.random.default_rng(seed).permuted(np.tile(centred[1], (replicates, 1)), axis=1)
    extreme = np.abs(shuffled @ centred[0] / scale) >= abs(rho) - SURE
    return rho, float((1 + extreme.sum()) / (1 + replicates))


# --------------------------------------------------------------------------- extremes and ranks


def pairs(count: int) -> tuple[list[tuple[int, int]], Array]:
    """All pairs i < j of `count` tasks, and the contrasts `[pairs, count]` that give value_i − value_j."""
    found = list(combinations(range(count), 2))
    contrasts = np.zeros((len(found), count))
    for row, (i, j) in enumerate(found):
        contrasts[row, i], contrasts[row, j] = 1.0, -1.0
    return found, contrasts


def mean(own: Joint, replicates: int) -> Estimate:
    """The mean over tasks, every task alike."""
    count = len(own.tasks)
    bounds = own.bounds(np.full((1, count), 1 / count), replicates)
    value = float(own.value.mean())
    if bounds is None:
        return Estimate(value=value)
    return Estimate(value=value, low=max(0.0, float(bounds[0][0])), high=float(bounds[1][0]))


def worst(own: Joint, replicates: int) -> Estimate:
    """The least value, with the least lower and the least upper of simultaneous bounds: at least 95 %."""
    bounds = own.bounds(np.eye(len(own.tasks)), replicates)
    value = float(own.value.min())
    if bounds is None:
        return Estimate(value=value)
    return Estimate(value=value, low=max(0.0, float(bounds[0].min())), high=float(bounds[1].min()))


def gap(shared: Joint, replicates: int) -> Estimate:
    """max − min over tasks, bounded by the widest of the simultaneous pairwise differences: at least 95 %."""
    value = float(shared.value.max() - shared.value.min())
    extremes = _widest(shared, replicates, log=False)
    return Estimate(value=value) if extremes is None else Estimate(value=value, low=extremes[0], high=extremes[1])


def max_over_min(shared: Joint, replicates: int) -> Estimate:
    """max / min over tasks, bounded by the widest simultaneous pairwise ratio: at least 95 %. None where min is 0."""
    if shared.value.min() <= 0:
        return Estimate()
    value = float(shared.value.max() / shared.value.min())
    extremes = _widest(shared, replicates, log=True)
    if extremes is None or extremes[1] > np.log(np.finfo(np.float64).max):
        return Estimate(value=value)
    return Estimate(value=value, low=float(np.exp(extremes[0])), high=float(np.exp(extremes[1])))


def min_over_max(shared: Joint, replicates: int) -> Estimate:
    """min / max over tasks: the inverse of `max_over_min`."""
    inverse = max_over_min(shared, replicates)
    if inverse.value is None or inverse.low is None or inverse.high is None:
        return Estimate(value=None if inverse.value is None else 1 / inverse.value)
    return Estimate(value=1 / inverse.value, low=1 / inverse.high, high=1 / inverse.low)


def _widest(shared: Joint, replicates: int, *, log: bool) -> tuple[float, float] | None:
    _, contrasts = pairs(len(shared.tasks))
    bounds = shared.bounds(contrasts, replicates, log=log)
    if bounds is None:
        return None
    low, high = bounds
    return max(0.0, float(np.maximum(low, -high).max())), float(np.maximum(high, -low).max())


def rank_ranges(shared: Joint | None, replicates: int) -> dict[str, tuple[int, int]]:
    """Each task's ranks that the data allow, 1 the highest value: [1 + surely better, m − surely worse].

    A task is surely better where the simultaneous interval of the difference excludes 0. Without intervals nothing is
    sure.
    """
    if shared is None:
        return {}
    count = len(shared.tasks)
    found, contrasts = pairs(count)
    better, worse = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    bounds = shared.bounds(contrasts, replicates)
    for row, (i, j) in enumerate(found if bounds is not None else []):
        if bounds is not None and (bounds[0][row] > SURE or bounds[1][row] < -SURE):
            winner, loser = (i, j) if bounds[0][row] > 0 else (j, i)
            better[loser] += 1
            worse[winner] += 1
    return {task: (1 + int(better[i]), count - int(worse[i])) for i, task in enumerate(shared.tasks)}


def levelled_down(differences: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Tasks whose simultaneous paired interval of acceptance, after − before, lies below 0."""
    return tuple(task for task, each in differences.items() if each.high is not None and each.high < -SURE)


# --------------------------------------------------------------------------- the table of figures across tasks


@dataclass(frozen=True)
class Evidence:
    """What the tasks of one suite give for a comparison between them.

    `own(measure)` and `shared(measure)` are joint laws, on each task's clusters or on those that all have (None:
    nothing to compare); `replicates[task][measure]` `[R]` are drawn together. `count` and `seed` are for further
    draws.
    """

    own: Callable[[str], Joint | None]
    shared: Callable[[str], Joint | None]
    replicates: Mapping[str, Mapping[str, Array]]
    count: int
    seed: int

    def drawn(self, joint: Joint, measure: str) -> Array:
        """Replicates `[R, m]` of the tasks of `joint`."""
        return np.stack([self.replicates[task][measure] for task in joint.tasks], axis=1)


@dataclass(frozen=True)
class Across:
    """A figure over the tasks of a suite, by its METRICS name; `of` are the measures it compares."""

    name: str
    unit: str
    definition: str
    of: tuple[str, ...]
    figure: Callable[[Evidence, str], Estimate]


def _spread(statistic: Callable[[Array], Array]) -> Callable[[Evidence, str], Estimate]:
    def figure(evidence: Evidence, measure: str) -> Estimate:
        own = evidence.own(measure)
        if own is None:
            return Estimate()
        return bootstrap.corrected(statistic, own.value, evidence.drawn(own, measure), own.fewest)

    return figure


def _floor(statistic: Callable[[Array], Array]) -> Callable[[Evidence, str], Estimate]:
    def figure(evidence: Evidence, measure: str) -> Estimate:
        own = evidence.own(measure)
        if own is None or own.fewest < 2:
            return Estimate()
        return Estimate(value=noise_floor(statistic, own.value, evidence.drawn(own, measure)))

    return figure


def _over(figure: Callable[[Joint, int], Estimate], *, shared: bool) -> Callable[[Evidence, str], Estimate]:
    def of(evidence: Evidence, measure: str) -> Estimate:
        joint = evidence.shared(measure) if shared else evidence.own(measure)
        return Estimate() if joint is None else figure(joint, evidence.count)

    return of


def _correlation(evidence: Evidence, _: str) -> Estimate:
    return Estimate(value=_fitness(evidence)[0])


def _correlation_p(evidence: Evidence, _: str) -> Estimate:
    return Estimate(value=_fitness(evidence)[1])


def _fitness(evidence: Evidence) -> tuple[float | None, float | None]:
    fitness, speedup = evidence.own("drafter_fitness"), evidence.own("speedup")
    if fitness is None or speedup is None:
        return None, None
    tasks = [task for task in fitness.tasks if task in speedup.tasks]
    first, second = (np.array([joint.value[joint.tasks.index(task)] for task in tasks]) for joint in (fitness, speedup))
    return spearman(first, second, evidence.count, evidence.seed)


ACROSS: tuple[Across, ...] = (
    Across(
        "mean_acceptance",
        "1",
        "mean over tasks; no U is read without it",
        ("acceptance",),
        _over(mean, shared=False),
    ),
    Across("mean_speedup", "1", "mean over tasks; no U is read without it", ("speedup",), _over(mean, shared=False)),
    Across(
        "unfairness", "nats²", "U = mean (D_T − min D)² on misfit, bias-corrected", ("misfit",), _spread(unfairness)
    ),
    Across(
        "unfairness_ce",
        "nats²",
        "the same on misfit_ce: probably arXiv 2510.02128's own form (reconstructed); not 0 for a perfect drafter",
        ("misfit_ce",),
        _spread(unfairness),
    ),
    Across(
        "unfairness_floor",
        "nats²",
        "the U that noise alone gives; within it nothing is ranked",
        ("misfit",),
        _floor(unfairness),
    ),
    Across("misfit_variance", "nats²", "population variance of misfit, bias-corrected", ("misfit",), _spread(variance)),
    Across(
        "acceptance_variance",
        "1",
        "population variance of acceptance, bias-corrected",
        ("acceptance",),
        _spread(variance),
    ),
    Across(
        "acceptance_variance_floor",
        "1",
        "acceptance_variance that noise alone gives",
        ("acceptance",),
        _floor(variance),
    ),
    Across("worst_acceptance", "1", "min acceptance", ("acceptance",), _over(worst, shared=False)),
    Across("acceptance_gap", "1", "max − min acceptance", ("acceptance",), _over(gap, shared=True)),
    Across("worst_speedup", "1", "min speed-up", ("speedup",), _over(worst, shared=False)),
    Across("speedup_gap", "1", "max − min speed-up", ("speedup",), _over(gap, shared=True)),
    Across("speedup_ratio", "1", "min / max speed-up", ("speedup",), _over(min_over_max, shared=True)),
    Across(
        "latency_ratio",
        "1",
        "max / min seconds_per_answer, speculative",
        ("seconds_per_answer",),
        _over(max_over_min, shared=True),
    ),
    Across(
        "latency_ratio_autoregressive",
        "1",
        "max / min seconds_per_answer, no drafter",
        ("seconds_per_answer_autoregressive",),
        _over(max_over_min, shared=True),
    ),
    Across(
        "fitness_correlation",
        "1",
        "Spearman's ρ of drafter_fitness and speed-up; no cause is claimed",
        ("drafter_fitness", "speedup"),
        _correlation,
    ),
    Across("fitness_correlation_p", "1", "its two-sided permutation p", ("drafter_fitness", "speedup"), _correlation_p),
)
