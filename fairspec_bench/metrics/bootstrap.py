"""Resampling: which prompts belong to one cluster, and the interval of a figure.

Every interval of the package uses `partition`, so that all figures have the same clusters.

Influences: a figure f of totals X = Σ_c x_c has influence z_c = ∇f(X)·x_c, and Var f ≈ Var Σ_c z_c. All figures here
are ratios of totals (homogeneous of degree 0), hence Σ_c z_c = 0 and no centring is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
FEW_CLUSTERS = 50
CHUNK = 2**16
STEP = 1e-20
LEAST_FREEDOM = 2.0


# --------------------------------------------------------------------------- who moves together


@dataclass(frozen=True)
class Partition:
    """Clusters numbered within strata: tasks of one stratum share problems, strata share none.

    `sizes[s]` is the number of clusters of stratum `s`, `stratum[task]` a task's, `number[cluster]` a cluster's place
    in its.
    """

    sizes: tuple[int, ...]
    stratum: dict[str, int]
    number: dict[str, int]

    def rows(self, clusters: Iterable[str]) -> Labels:
        """The place of each cluster in its stratum, int64 `[rows]`."""
        return np.array([self.number[cluster] for cluster in clusters], dtype=np.int64)


def partition(members: Mapping[str, Iterable[str]]) -> Partition:
    """The one partition function: `members[task]` are the clusters of its prompts.

    Strata are the connected components of "shares a cluster with": within one, replicates are drawn together; between
    them, apart. Names are sorted, so the order of lines changes nothing.
    """
    clusters = {task: sorted(set(names)) for task, names in sorted(members.items())}
    parent = {task: task for task in clusters}

    def find(task: str) -> str:
        while parent[task] != task:
            task = parent[task]
        return task

    owner: dict[str, str] = {}
    for task, names in clusters.items():
        for name in names:
            parent[find(task)] = find(owner.setdefault(name, task))
    roots = sorted({find(task) for task in clusters})
    stratum = {task: roots.index(find(task)) for task in clusters}
    number: dict[str, int] = {}
    sizes = [0] * len(roots)
    for name in sorted(owner):
        home = stratum[owner[name]]
        number[name] = sizes[home]
        sizes[home] += 1
    return Partition(tuple(sizes), stratum, number)


# --------------------------------------------------------------------------- replicates


def resample(sums: Array, replicates: int, seed: int | tuple[int, ...]) -> Array:
    """Totals of multinomial replicates of the clusters.

    `sums` is float64 `[clusters, columns]`, the result `[replicates, columns]`. Equal seed and number of clusters
    give the same weights whatever the columns, so figures of one stratum stay paired. Memory is bounded by `CHUNK`
    weights.
    """
    size = len(sums)
    generator = np.random.default_rng(seed)
    totals = np.empty((replicates, sums.shape[1]))
    step = max(1, CHUNK // max(1, size))
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        drawn = generator.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        totals[start : start + count] = weights.astype(np.float64) @ sums
    return totals


def unanimous(clusters: int) -> float:
    """How large a share may be of which none of n clusters shows anything: the exact upper bound 1 − .025^(1/n).

    Clopper and Pearson 1934, the family of the rule of three. It holds for any values in [0, 1] that count alike: their
    mean is at most the share of clusters above 0. A share of 1 is that of its complement.
    """
    return float(stats.beta.isf(TAIL, 1, clusters))


def percentile(replicates: Array) -> tuple[float | None, float | None]:
    """The central 95 % of replicates `[R]`; those without data (NaN) are left out."""
    known = replicates[np.isfinite(replicates)]
    if not known.size:
        return None, None
    low, high = np.quantile(known, [TAIL, 1 - TAIL])
    return float(low), float(high)


def stretched(value: Array, replicates: Array, clusters: int) -> Array:
    """Deviations `[R, m]` of replicates from the figures, stretched by √(n/(n−1))·t/z for few clusters."""
    student = stats.t.isf(TAIL, clusters - 1) / stats.norm.isf(TAIL)
    return np.asarray(np.sqrt(clusters / (clusters - 1)) * student * (replicates - value))


# --------------------------------------------------------------------------- linearised intervals


def gradient(value: Callable[..., Array], totals: Array) -> Array:
    """∇value at `totals` `[K]` by the complex step: exact to rounding, no difference is taken."""
    size = STEP * np.maximum(1.0, np.abs(totals))
    bumped = totals[None, :] + 1j * np.diag(size)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(value(*bumped.T)).imag / size


def spread(influence: Array, strata: Labels | None = None) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom `[K]` of sums of influences.

    `influence` is `[clusters, K]`, or `[clusters, rounds, K]` for races, where prompts and rounds both vary: the
    two-way random-effects variance with Satterthwaite's degrees of freedom. `strata` `[clusters]` labels clusters drawn
    apart. A stratum or a race with a single member has no variance: NaN; so have fewer than `LEAST_FREEDOM` degrees of
    freedom, of the clusters alone or of the whole, where Student's t has no variance and an interval says nothing.
    """
    by_cluster = influence.sum(axis=1) if influence.ndim == 3 else influence
    labels = np.zeros(len(by_cluster), dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    sizes = np.bincount(labels)
    squares = np.zeros((len(sizes), by_cluster.shape[1]))
    np.add.at(squares, labels, by_cluster**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = squares * (sizes / (sizes - 1))[:, None]
        total, doubt = parts.sum(axis=0), (parts**2 / (sizes - 1)[:, None]).sum(axis=0)
        if influence.ndim == 3:
            total, doubt = _crossed(influence, by_cluster, total, doubt)
        freedom = np.where(total > 0, total**2 / doubt, np.inf)
        too_few = (freedom < LEAST_FREEDOM) | ((sizes - 1).sum() < LEAST_FREEDOM)
    return np.where(too_few, np.nan, np.sqrt(total)), freedom


def _crossed(influence: Array, by_cluster: Array, prompt_part: Array, doubt: Array) -> tuple[Array, Array]:
    """V_cells + (V_prompts − V_cells)₊ + (V_rounds − V_cells)₊ and its doubt, from V_prompts and its doubt.

    Either kind of variation may come out below that of the cells by chance. Unless both are cut there, a clock whose
    only noise is the cells' has, now and then, a variance near 0 with next to no degrees of freedom.
    """
    prompts, rounds = influence.shape[:2]
    by_round = influence.sum(axis=0)
    cells = influence - by_cluster[:, None] / rounds - by_round[None] / prompts
    freedom = (prompts - 1) * (rounds - 1)
    round_part = (by_round**2).sum(axis=0) * np.divide(rounds, rounds - 1)
    cell_part = (cells**2).sum(axis=(0, 1)) * np.divide(prompts * rounds, freedom)
    total = cell_part + np.maximum(prompt_part - cell_part, 0.0) + np.maximum(round_part - cell_part, 0.0)
    return total, doubt + np.divide(round_part**2, rounds - 1) + np.divide(cell_part**2, freedom)


def crossed(values: Array, replicates: Array, clusters: int) -> tuple[Array, Array]:
    """95 % bounds `[K]`, `[K]` of the means over units of `values` `[units, K]`, all K at once (Bonferroni).

    Units are what a conclusion is to reach beyond, as drafters; all see the same `clusters` problems, from which
    `replicates` `[R, units, K]` are drawn jointly. The variance has two components, units (with what problems do to
    each unit by itself) and problems; each is stretched by Student's t at its own degrees of freedom, and their
    half-widths add in quadrature (Graybill and Wang 1980). One t for the sum, at Satterthwaite's degrees of freedom,
    covers .82 of 11 figures at once from 3 units, whose variance comes out near 0 now and then. Fewer than two units or
    clusters: NaN.
    """
    units, center = len(values), values.mean(axis=0)
    if units < 2 or clusters < 2:
        return np.full_like(center, np.nan), np.full_like(center, np.nan)
    scale = np.sqrt(clusters / (clusters - 1) / (len(replicates) - 1))
    noise = scale * (replicates - replicates.mean(axis=0))
    common = noise.mean(axis=1)
    own = ((noise - common[:, None]) ** 2).sum(axis=(0, 1)) / (units * (units - 1))
    tail = TAIL / len(center)
    problems = stats.t.isf(tail, clusters - 1) * np.sqrt(np.maximum((common**2).sum(axis=0) - own, 0.0))
    between = stats.t.isf(tail, units - 1) * values.std(axis=0, ddof=1) / np.sqrt(units)
    width = np.hypot(problems, between)
    return center - width, center + width


def simultaneous(
    value: Array, influence: Array, *, strata: Labels | None = None, replicates: int = 10_000, seed: int = 0
) -> tuple[Array, Array]:
    """Bounds `[K]`, `[K]` that hold for all K figures at once with 95 % (single-step max-t).

    The joint distribution comes from Gaussian multipliers on the influences: the 95 % quantile of the largest |t| gives
    each figure's level, and Student's t at that level and the figure's degrees of freedom its width. One figure: its
    plain t interval.
    """
    error, freedom = spread(influence, strata)
    tail = TAIL
    if len(value) > 1:
        tail = stats.norm.sf(_largest(influence, replicates, seed))
    width = stats.t.isf(tail, freedom) * error
    return value - width, value + width


def _largest(influence: Array, replicates: int, seed: int) -> float:
    rows = influence
    if influence.ndim == 3:
        rows = np.concatenate([influence.sum(axis=1), influence.sum(axis=0)])
    scale = np.sqrt((rows**2).sum(axis=0))
    rows = rows[:, scale > 0] / scale[scale > 0]
    if not rows.shape[1]:
        return float(stats.norm.isf(TAIL))
    generator = np.random.default_rng(seed)
    largest = np.empty(replicates)
    step = max(1, CHUNK // max(rows.shape))
    for start in range(0, replicates, step):
        count = min(step, replicates - start)
        largest[start : start + count] = np.abs(generator.standard_normal((count, len(rows))) @ rows).max(axis=1)
    return float(np.quantile(largest, LEVEL))
