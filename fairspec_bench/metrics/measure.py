"""What a measure is, and how its figure, interval and joint distribution follow from a table of sums.

`acceptance`, `speed` and `validity` list their measures and fill their columns. A new measure is one entry there;
nothing here changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fairspec_bench.metrics import bootstrap
from fairspec_bench.metrics.bootstrap import Array, Labels, Partition
from fairspec_bench.schemas.report import Estimate

Mask = NDArray[np.bool_]
DIGITS = 8
Kind = Literal["ratio", "share", "times", "number"]


def ratio(above: Array, below: Array) -> Array:
    """Σ above / Σ below: every plain share and mean."""
    return above / below


@dataclass(frozen=True)
class Definition:
    """What a figure is called, written and defined: reports, the site and the documents take it from here.

    Attributes:
        name: as in METRICS, reports and files.
        label: for people.
        unit: `1` for a ratio.
        definition: what it is, in one sentence.
        symbol: in formulas; empty for none.
        kind: how a value is written: 0.734, 1.2 %, 1.42×, or with three significant digits.
        better: which way is better; empty where neither is.
        note: what else to know when reading it.
    """

    name: str
    label: str
    unit: str
    definition: str
    symbol: str = field(default="", kw_only=True)
    kind: Kind = field(default="number", kw_only=True)
    better: Literal["higher", "lower", ""] = field(default="", kw_only=True)
    note: str = field(default="", kw_only=True)

    @property
    def heading(self) -> str:
        """The label with its unit, for the head of a column."""
        bare = self.unit == "1" or self.label.lower().startswith(self.unit)
        return self.label if bare else f"{self.label} ({self.unit})"


@dataclass(frozen=True)
class Measure(Definition):
    """A figure of one task: `value(*totals)` of the totals of `columns`, homogeneous of degree 0 in them.

    Attributes:
        columns: of the task's table of sums.
        value: of their totals.
        high: the largest possible value (the least is 0); a measure whose largest is 1 is a share, in every cluster.
        crossed: whether it is of the race's table, a row per prompt and round; its interval then crosses the two.
        asked_by: the field of the run's configuration without which a report does not have it.
    """

    columns: tuple[str, ...]
    value: Callable[..., Array] = ratio
    high: float = np.inf
    crossed: bool = False
    asked_by: str | None = None

    @property
    def share(self) -> bool:
        """Whether it lies in [0, 1] for every cluster."""
        return self.high == 1


@dataclass(frozen=True)
class StatTable:
    """The sums of one task, a row per prompt (or per prompt and round): float64 `[rows]`, NaN where a row has none.

    `clusters` `[rows]` are places in the task's stratum of `size` clusters. In a race `rounds` `[rows]` numbers the
    rounds from 0 to `turns` − 1; elsewhere it is None.
    """

    clusters: Labels
    size: int
    columns: Mapping[str, Array]
    turns: int = 0
    rounds: Labels | None = None

    def only(self, rows: Mask) -> StatTable:
        """The table without the other rows."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        rounds = None if self.rounds is None else self.rounds[rows]
        return replace(self, clusters=self.clusters[rows], columns=columns, rounds=rounds)


def column(values: Iterable[float | None]) -> Array:
    """Values as float64 `[rows]`, NaN for None. Raises `ValueError` for one that is not finite."""
    known = list(values)
    found = np.array([np.nan if value is None else value for value in known], dtype=np.float64)
    if np.isfinite(found).sum() != len(known) - known.count(None):
        raise ValueError("a value is NaN or infinite")
    return found


# --------------------------------------------------------------------------- one task


def known(measure: Measure, sheet: StatTable) -> Mask:
    """The rows of the table where every column of the measure is known, bool `[rows]`."""
    rows = np.ones(len(sheet.clusters), dtype=np.bool_)
    for name in measure.columns:
        rows &= np.isfinite(sheet.columns[name])
    return rows


def sums(measure: Measure, sheet: StatTable) -> Array:
    """The measure's columns by cluster, `[size, K]`, in a race by cluster and round, `[size, turns, K]`."""
    rows = known(measure, sheet)
    matrix = np.stack([sheet.columns[name][rows] for name in measure.columns], axis=1)
    if sheet.rounds is None:
        total = np.zeros((sheet.size, len(measure.columns)))
        np.add.at(total, sheet.clusters[rows], matrix)
    else:
        total = np.zeros((sheet.size, sheet.turns, len(measure.columns)))
        np.add.at(total, (sheet.clusters[rows], sheet.rounds[rows]), matrix)
    return total


def figure(measure: Measure, totals: Array) -> Array:
    """The measure at totals `[..., K]`, NaN where undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(measure.value(*np.moveaxis(totals, -1, 0)), dtype=np.float64)


def replicate(
    measures: Sequence[Measure], sheet: StatTable, replicates: int, seed: int | tuple[int, ...]
) -> dict[str, Array]:
    """Replicates `[R]` of each measure from one set of weights, so that figures and tasks of a stratum stay paired."""
    if not measures or not sheet.size:
        return {measure.name: np.full(replicates, np.nan) for measure in measures}
    totals = bootstrap.resample(np.hstack([sums(measure, sheet) for measure in measures]), replicates, seed)
    ends = np.cumsum([len(measure.columns) for measure in measures])
    parts = np.split(totals, ends[:-1], axis=1)
    return {measure.name: figure(measure, part) for measure, part in zip(measures, parts, strict=True)}


@dataclass(frozen=True)
class Linear:
    """A figure and each cluster's influence on it, `[size(, turns)]`; `have` `[size]` are its clusters with data."""

    value: float
    influence: Array
    have: Mask


def linear(measure: Measure, sheet: StatTable) -> Linear | None:
    """The measure linearised at its totals; None where it has no data."""
    have = np.zeros(sheet.size, dtype=np.bool_)
    have[sheet.clusters[known(measure, sheet)]] = True
    if not have.any():
        return None
    by_cluster = sums(measure, sheet)
    totals = by_cluster.reshape(-1, by_cluster.shape[-1]).sum(axis=0)
    value = float(figure(measure, totals))
    if not np.isfinite(value):
        return None
    return Linear(value, by_cluster @ bootstrap.gradient(measure.value, totals), have)


def estimate(measure: Measure, sheet: StatTable, replicates: Array | None = None) -> Estimate:
    """The figure and its 95 % interval: percentiles of `replicates`; below 50 clusters and in races the linearised t.

    No data: all None. One cluster, or a race of one round: the figure alone. A share of exactly 0 or 1 has no spread to
    go by: its interval is the exact bound for as many unanimous clusters.
    """
    found = linear(measure, sheet)
    if found is None:
        return Estimate()
    count = int(found.have.sum())
    low: float | None = None
    high: float | None = None
    if measure.share and count > 1 and found.value in (0, 1):
        reach = bootstrap.unanimous(count)
        low, high = (0.0, reach) if found.value == 0 else (1 - reach, 1.0)
    elif count >= bootstrap.FEW_CLUSTERS and replicates is not None:
        low, high = bootstrap.percentile(replicates)
    elif count > 1:
        lows, highs = bootstrap.simultaneous(np.array([found.value]), found.influence[found.have][..., None])
        low, high = float(lows[0]), float(highs[0])
    if low is None or high is None or not np.isfinite([low, high]).all():
        return Estimate(value=found.value)
    return Estimate(value=found.value, low=max(0.0, low), high=min(measure.high, high))


def published(figure: Estimate) -> Estimate:
    """The figure to 8 significant digits."""
    return Estimate(**{name: None if value is None else rounded(value) for name, value in figure})


def rounded(value: float) -> float:
    """To 8 significant digits: what does not depend on the order of a sum."""
    return float(f"{value:.{DIGITS}g}")


# --------------------------------------------------------------------------- several tasks


@dataclass(frozen=True)
class Joint:
    """One measure over tasks: values `[m]`, influences `[clusters(, turns), m]` on common rows, `strata` `[clusters]`.

    `fewest` is the least number of clusters that any of the tasks has.
    """

    tasks: tuple[str, ...]
    value: Array
    influence: Array
    strata: Labels
    fewest: int

    def without(self, tasks: Collection[str]) -> Joint:
        """The joint distribution of the other tasks, on the same clusters."""
        kept = [place for place, task in enumerate(self.tasks) if task not in tasks]
        names = tuple(self.tasks[place] for place in kept)
        return replace(self, tasks=names, value=self.value[kept], influence=self.influence[..., kept])

    def bounds(self, contrasts: Array, replicates: int, *, log: bool = False) -> tuple[Array, Array] | None:
        """Simultaneous 95 % bounds `[K]` of `contrasts @ value`, of the logarithms if `log`; contrasts are `[K, m]`.

        None where no interval can be given: a task of one cluster, a race of one round, the logarithm of 0.
        """
        if self.fewest < 2 or (log and (self.value <= 0).any()):
            return None
        value, influence = (np.log(self.value), self.influence / self.value) if log else (self.value, self.influence)
        low, high = bootstrap.simultaneous(
            contrasts @ value, influence @ contrasts.T, strata=self.strata, replicates=replicates
        )
        return (low, high) if np.isfinite([low, high]).all() else None


def joint(measure: Measure, sheets: Mapping[str, StatTable], parts: Partition, *, shared: bool = False) -> Joint | None:
    """The measure over the tasks with data: each on its own clusters or, `shared`, on those all of its stratum have.

    None for fewer than two such tasks, or where tasks of a stratum share no cluster: there is nothing to compare.
    """
    kept = {task: sheet for task, sheet in sheets.items() if linear(measure, sheet)}
    if shared:
        kept = _on_shared_clusters(measure, kept, parts)
    found = {task: one for task, sheet in kept.items() if (one := linear(measure, sheet))}
    return None if len(found) < max(2, len(kept)) else assemble(found, parts)


def assemble(found: Mapping[str, Linear], parts: Partition) -> Joint:
    """Linearised figures of at least one task on the rows of their strata, one under the other."""
    homes = sorted({parts.stratum[task] for task in found})
    first_row = dict(zip(homes, np.cumsum([0, *(parts.sizes[home] for home in homes[:-1])]).tolist(), strict=True))
    strata = np.concatenate([np.full(parts.sizes[home], home) for home in homes])
    one_shape = next(iter(found.values())).influence.shape
    influence = np.zeros((len(strata), *one_shape[1:], len(found)))
    have = np.zeros(len(strata), dtype=np.bool_)
    for place, (task, one) in enumerate(found.items()):
        start = first_row[parts.stratum[task]]
        influence[start : start + len(one.have), ..., place] = one.influence
        have[start : start + len(one.have)] |= one.have
    return Joint(
        tasks=tuple(found),
        value=np.array([one.value for one in found.values()]),
        influence=influence[have],
        strata=strata[have],
        fewest=min(int(one.have.sum()) for one in found.values()),
    )


def _on_shared_clusters(measure: Measure, sheets: Mapping[str, StatTable], parts: Partition) -> dict[str, StatTable]:
    common = [np.ones(size, dtype=np.bool_) for size in parts.sizes]
    for task, sheet in sheets.items():
        have = np.zeros(sheet.size, dtype=np.bool_)
        have[sheet.clusters[known(measure, sheet)]] = True
        common[parts.stratum[task]] &= have
    return {task: sheet.only(common[parts.stratum[task]][sheet.clusters]) for task, sheet in sheets.items()}
