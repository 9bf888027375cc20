"""Unfairness: spreads, extremes and ranks over tasks, and the tasks that got worse.

A spread near its noise floor is no finding. A drafter that is equally bad everywhere has U = 0, so the mean acceptance
is always shown beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from scipy import stats

from fairspec_bench.metrics import spread
from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.measure import Definition, Joint
from fairspec_bench.metrics.spread import Spread
from fairspec_bench.schemas.report import Estimate

EXACT_TASKS = 7
SURE = 1e-12


# --------------------------------------------------------------------------- ranks


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
    """Each task's ranks that the data allow, 1 the highest value: [1 + significantly better, m − significantly worse].

    A task is significantly better where the simultaneous interval of the difference excludes 0; without intervals none
    is.
    """
    if shared is None or len(shared.tasks) < 2:
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
class AcrossInputs:
    """What the tasks of one suite give for a comparison between them.

    `own(measure)` and `shared(measure)` are joint distributions, on each task's clusters or on those that all have
    (None: nothing to compare); `replicates[task][measure]` `[R]` are drawn together. `count` and `seed` are for further
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
class Across(Definition):
    """A figure over the tasks of a suite; `of` are the measures it compares."""

    of: tuple[str, ...]
    figure: Callable[[AcrossInputs, str], Estimate]


def _spread(kind: Spread) -> Callable[[AcrossInputs, str], Estimate]:
    def figure(evidence: AcrossInputs, measure: str) -> Estimate:
        own = evidence.own(measure)
        return Estimate() if own is None else spread.estimate(kind, own, evidence.drawn(own, measure))

    return figure


def _floor(kind: Spread) -> Callable[[AcrossInputs, str], Estimate]:
    def figure(evidence: AcrossInputs, measure: str) -> Estimate:
        own = evidence.own(measure)
        return Estimate(value=None if own is None else spread.noise_floor(kind, own, evidence.drawn(own, measure)))

    return figure


def _over(figure: Callable[[Joint, int], Estimate], *, shared: bool) -> Callable[[AcrossInputs, str], Estimate]:
    def of(evidence: AcrossInputs, measure: str) -> Estimate:
        joint = evidence.shared(measure) if shared else evidence.own(measure)
        return Estimate() if joint is None else figure(joint, evidence.count)

    return of


def _correlation(evidence: AcrossInputs, _: str) -> Estimate:
    return Estimate(value=_fitness(evidence)[0])


def _correlation_p(evidence: AcrossInputs, _: str) -> Estimate:
    return Estimate(value=_fitness(evidence)[1])


def _fitness(evidence: AcrossInputs) -> tuple[float | None, float | None]:
    fitness, speedup = evidence.own("drafter_fitness"), evidence.own("speedup")
    if fitness is None or speedup is None:
        return None, None
    tasks = [task for task in fitness.tasks if task in speedup.tasks]
    first, second = (np.array([joint.value[joint.tasks.index(task)] for task in tasks]) for joint in (fitness, speedup))
    return spearman(first, second, evidence.count, evidence.seed)


ACROSS: tuple[Across, ...] = (
    Across(
        "mean_acceptance",
        "Mean acceptance",
        "1",
        "Mean acceptance over languages, each with the same weight.",
        ("acceptance",),
        _over(mean, shared=False),
        symbol="mean α",
        kind="ratio",
        better="higher",
        note="Read no unfairness without it.",
    ),
    Across(
        "mean_speedup",
        "Mean speed-up",
        "1",
        "Mean speed-up over languages, each with the same weight.",
        ("speedup",),
        _over(mean, shared=False),
        symbol="mean S",
        kind="times",
        better="higher",
        note="Read no unfairness without it.",
    ),
    Across(
        "unfairness",
        "Unfairness",
        "nats²",
        "(1/m) Σ (D − min D)² over the m languages, on misfit (KL), unbiased: below 0 where noise exceeds it.",
        ("misfit",),
        _spread(spread.unfairness),
        symbol="U",
        better="lower",
        note="0 for a perfect drafter, and also for one equally bad everywhere.",
    ),
    Across(
        "unfairness_ce",
        "Unfairness, cross-entropy",
        "nats²",
        "(1/m) Σ (D − min D)² over the m languages, on cross-entropy: probably the form of arXiv 2510.02128 "
        "(reconstructed), not 0 for a perfect drafter.",
        ("misfit_ce",),
        _spread(spread.unfairness),
        symbol="U(CE)",
        better="lower",
        note="Reconstructed from its abstract and reviews; the full text was not available.",
    ),
    Across(
        "unfairness_floor",
        "Noise floor of unfairness",
        "nats²",
        "What U exceeds in 5 % of cases by noise alone if every language has the same misfit.",
        ("misfit",),
        _floor(spread.unfairness),
        note="Nothing within it is ranked.",
    ),
    Across(
        "misfit_variance",
        "Variance of misfit",
        "nats²",
        "Population variance of misfit over languages, unbiased.",
        ("misfit",),
        _spread(spread.variance),
        better="lower",
    ),
    Across(
        "acceptance_variance",
        "Variance of acceptance",
        "1",
        "Population variance of acceptance over languages, unbiased.",
        ("acceptance",),
        _spread(spread.variance),
        better="lower",
    ),
    Across(
        "acceptance_variance_floor",
        "Noise floor of the variance of acceptance",
        "1",
        "What the variance exceeds in 5 % of cases by noise alone if every language has the same acceptance.",
        ("acceptance",),
        _floor(spread.variance),
    ),
    Across(
        "worst_acceptance",
        "Lowest acceptance",
        "1",
        "The lowest acceptance of any language.",
        ("acceptance",),
        _over(worst, shared=False),
        symbol="min α",
        kind="ratio",
        better="higher",
    ),
    Across(
        "acceptance_gap",
        "Acceptance gap",
        "1",
        "Highest − lowest acceptance over the languages.",
        ("acceptance",),
        _over(gap, shared=True),
        symbol="max α − min α",
        kind="ratio",
        better="lower",
    ),
    Across(
        "worst_speedup",
        "Lowest speed-up",
        "1",
        "The lowest speed-up of any language.",
        ("speedup",),
        _over(worst, shared=False),
        symbol="min S",
        kind="times",
        better="higher",
        note="Below 1 speculation makes that language slower.",
    ),
    Across(
        "speedup_gap",
        "Speed-up gap",
        "1",
        "Highest − lowest speed-up over the languages.",
        ("speedup",),
        _over(gap, shared=True),
        symbol="max S − min S",
        better="lower",
    ),
    Across(
        "speedup_ratio",
        "Speed-up ratio",
        "1",
        "Lowest ÷ highest speed-up over the languages; 1 is even.",
        ("speedup",),
        _over(min_over_max, shared=True),
        symbol="min S ÷ max S",
        kind="ratio",
        better="higher",
    ),
    Across(
        "latency_ratio",
        "Latency ratio",
        "1",
        "Longest ÷ shortest wait for one answer over the languages, with speculation.",
        ("seconds_per_answer",),
        _over(max_over_min, shared=True),
        kind="times",
        better="lower",
    ),
    Across(
        "latency_ratio_autoregressive",
        "Latency ratio, verifier alone",
        "1",
        "Longest ÷ shortest wait for one answer over the languages, without speculation.",
        ("seconds_per_answer_autoregressive",),
        _over(max_over_min, shared=True),
        kind="times",
        better="lower",
    ),
    Across(
        "fitness_correlation",
        "Fitness and speed-up",
        "1",
        "Spearman's rank correlation over languages of the drafter's accuracy and the speed-up.",
        ("drafter_fitness", "speedup"),
        _correlation,
        symbol="ρ",
        note="It shows no cause.",
    ),
    Across(
        "fitness_correlation_p",
        "Fitness and speed-up, p",
        "1",
        "Two-sided permutation p of that correlation.",
        ("drafter_fitness", "speedup"),
        _correlation_p,
        symbol="p",
        kind="ratio",
    ),
)
