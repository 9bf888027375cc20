"""Spreads over tasks: their unbiased estimate, its interval, its noise floor, and changes of it.

A spread is the mean square of the tasks' gaps to a reference: to the best task (U) or to their mean (the variance).
Noise adds to every square, so that the plain figure is biased up. Its noise is subtracted; and where the reference is
the best task, it is chosen on some problems and the gaps are taken on the others, since the task that looks best is
partly lucky.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from fairspec_bench.metrics import bootstrap
from fairspec_bench.metrics.bootstrap import LEVEL, TAIL, Array, Labels
from fairspec_bench.metrics.measure import Joint, Mask
from fairspec_bench.schemas.report import Estimate

SPLITS = 100
LEAST_TO_SPLIT = 4
"""Problems of a stratum of which two choose the best task and two give the gaps."""
STEPS = 30


@dataclass(frozen=True)
class Spread:
    """The mean square of the gaps to a reference."""

    reference: Literal["best", "mean"]

    def gaps(self, values: Array) -> Array:
        """`[m, ...] → [m, ...]`."""
        return np.asarray(values - (values.min(axis=0) if self.reference == "best" else values.mean(axis=0)))

    def __call__(self, values: Array) -> Array:
        """The plain figure, `[m, ...] → [...]`."""
        return np.asarray((self.gaps(values) ** 2).mean(axis=0))


unfairness = Spread("best")
"""U = (1/m) Σ_T (D_T − min D)² = Var D + (mean D − min D)², arXiv 2510.02128 (reconstructed)."""
variance = Spread("mean")
"""The population variance over tasks."""


# --------------------------------------------------------------------------- the estimate


def unbiased(spread: Spread, joint: Joint) -> float:
    """The spread with its noise subtracted, below 0 where noise happens to exceed it.

    For U the mean over halvings of the problems, each half choosing the best task for the other; to as many digits as
    that many halvings hold. Strata too small to be halved: the best task is that of all problems.
    """
    whole = _on_parts(joint, np.ones((1, len(joint.strata))))
    if spread.reference == "mean":
        return float(whole.to_mean[0])
    best = int(joint.value.argmin())
    plain = float(whole.to_each[0, best])
    counts = np.bincount(joint.strata)
    if counts[counts > 0].min() < LEAST_TO_SPLIT:
        return plain
    # What another choice of the best task changes: nothing, and with no noise of halving, where one is clearly best.
    halves = _halves(joint.strata)
    parts = _on_parts(joint, np.concatenate([halves, 1 - halves]))
    chosen, other = parts.value.argmin(axis=1), np.roll(parts.to_each, SPLITS, axis=0)
    differences = np.take_along_axis(other, chosen[:, None], axis=1)[:, 0] - other[:, best]
    error = float(differences.std()) / np.sqrt(len(differences))
    figure = plain + float(differences.mean())
    return round(figure, -int(np.floor(np.log10(error)))) if error > 0 else figure


def _halves(strata: Labels) -> Array:
    """`SPLITS` random halves of the clusters of each stratum, 1 and 0, float64 `[SPLITS, clusters]`."""
    generator, halves = np.random.default_rng(0), np.zeros((SPLITS, len(strata)))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        half = (np.arange(len(mine)) < len(mine) // 2).astype(np.float64)
        halves[:, mine] = generator.permuted(np.tile(half, (SPLITS, 1)), axis=1)
    return halves


class _Parts(NamedTuple):
    """On S parts of the clusters: the figures `[S, m]` and the unbiased mean square of their gaps.

    The gaps are to each task, `[S, m]`, and to the tasks' mean, `[S]`.
    """

    value: Array
    to_each: Array
    to_mean: Array


def _on_parts(joint: Joint, rows: Array) -> _Parts:
    """`rows` `[S, clusters]` is 1 for a part's clusters. Figures are linearised at those of all clusters."""
    tasks = len(joint.value)
    value = np.tile(joint.value, (len(rows), 1))
    own, common = np.zeros_like(value), np.zeros_like(value)
    for stratum in np.unique(joint.strata):
        mine = joint.strata == stratum
        part, influence = rows[:, mine], joint.influence[mine]
        count = part.sum(axis=1, keepdims=True)
        scale = mine.sum() / count
        sums, total = part @ influence, influence.sum(axis=1, keepdims=True)
        value += scale * sums
        # Variances of the figures and their covariances with the tasks' sum, from deviations within the part.
        factor = scale**2 * count / (count - 1)
        own += factor * (part @ influence**2 - sums**2 / count)
        common += factor * (part @ (total * influence) - sums.sum(axis=1, keepdims=True) * sums / count)
    square, mean = (value**2).mean(axis=1, keepdims=True), value.mean(axis=1, keepdims=True)
    noise, shared = own.mean(axis=1, keepdims=True), common.mean(axis=1, keepdims=True) / tasks
    to_each = square - 2 * value * mean + value**2 - (noise + own - 2 * common / tasks)
    return _Parts(value, to_each, (square - mean**2 - (noise - shared))[:, 0])


# --------------------------------------------------------------------------- interval and floor


def estimate(spread: Spread, joint: Joint, replicates: Array) -> Estimate:
    """The unbiased figure and its 95 % interval; `replicates` `[R, m]` are of the tasks of `joint`.

    The interval holds every spread of which the plain figure seen here would be no surprise (between the 2.5 and the
    97.5 % quantile), the gaps being as seen here but for their scale: 0 among them where noise alone may be all.
    """
    known = _known((joint,), (replicates,))
    if not known.any():
        return Estimate()
    noise = bootstrap.stretched(joint.value, replicates[known], joint.fewest).T
    gaps, seen = spread.gaps(joint.value), float(spread(joint.value))
    figure = unbiased(spread, joint)
    low, high = (float(spread(_scale(spread, gaps, noise, seen, level) * gaps)) for level in (1 - TAIL, TAIL))
    return Estimate(value=figure, low=min(low, figure), high=max(high, figure))


def _scale(spread: Spread, gaps: Array, noise: Array, seen: float, level: float) -> float:
    """The scale of the gaps `[m]` at which the plain figure's quantile at `level` is `seen`; 0 if it is above there."""

    def reached(scale: float) -> bool:
        return float(np.quantile(spread((scale * gaps)[:, None] + noise), level)) >= seen

    low, high = 0.0, 1.0
    if seen == 0 or reached(low):
        return 0.0
    while not reached(high):
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def noise_floor(spread: Spread, joint: Joint, replicates: Array) -> float | None:
    """What the unbiased figure exceeds in 5 % of cases where all tasks have the same figure: the 95 % quantile."""
    known = _known((joint,), (replicates,))
    if not known.any():
        return None
    plain = spread(bootstrap.stretched(joint.value, replicates[known], joint.fewest).T)
    return float(np.quantile(plain, LEVEL) - plain.mean())


def _known(joints: Sequence[Joint], replicates: Sequence[Array]) -> Mask:
    """The replicates in which every task has a figure, bool `[R]`; none where a task has a single problem."""
    several = all(joint.fewest > 1 and np.isfinite(joint.value).all() for joint in joints)
    return np.logical_and.reduce([np.isfinite(each).all(axis=1) & several for each in replicates])


# --------------------------------------------------------------------------- changes


def change(spread: Spread, joints: Sequence[Joint], replicates: Sequence[Array], *, relative: bool = False) -> Estimate:
    """Of two runs (before, after), the spread after − before; `relative` to before. Replicates are drawn jointly.

    A relative change is defined only where the spread before exceeds its noise floor.
    """
    known = _known(joints, replicates)
    if not known.any():
        return Estimate()
    before, after = (unbiased(spread, joint) for joint in joints)
    drawn = [
        spread(joint.value[:, None] + bootstrap.stretched(joint.value, each[known], joint.fewest).T)
        for joint, each in zip(joints, replicates, strict=True)
    ]
    figure, deviations = after - before, drawn[1] - drawn[0]
    if relative:
        floor = noise_floor(spread, joints[0], replicates[0])
        if floor is None or before <= floor:
            return Estimate()
        figure, deviations = after / before - 1, (drawn[1] - after / before * drawn[0]) / before
    reach = float(np.quantile(np.abs(deviations - deviations.mean()), LEVEL))
    return Estimate(value=figure, low=figure - reach, high=figure + reach)
