"""Paired differences of many submissions at once: what `measure.compare` gives, without the change of U.

Knows sheets of sums. Each submission is linearised once; a difference is then one subtraction and one interval, so a
board of a thousand can afford it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from fairspec_bench.measure import bootstrap, unfairness
from fairspec_bench.measure.catalogue import measures
from fairspec_bench.measure.compare import COMPARED, SuiteComparison
from fairspec_bench.measure.lines import Sheets
from fairspec_bench.measure.table import Joint, Measure, assemble, linear, published
from fairspec_bench.records import Estimate

REPLICATES = 1_000
SHOWN = ("acceptance", "block_efficiency_uncut", "misfit")


@cache
def _measure(gamma: int, name: str) -> Measure:
    return measures(gamma)[name]


@dataclass(frozen=True)
class Paired:
    """One submission in one suite, linearised when asked."""

    suite: str
    sheets: Sheets
    gamma: int
    laws: dict[str, Joint | None] = field(default_factory=dict)

    @cached_property
    def clusters(self) -> dict[str, int]:
        return {task: len(np.unique(sheet.clusters)) for task, sheet in self.sheets.prompts.items()}

    def law(self, name: str) -> Joint | None:
        """A measure over the tasks that have data; None where none has."""
        if name not in self.laws:
            measure = _measure(self.gamma, name)
            found = {task: one for task, sheet in self.sheets.prompts.items() if (one := linear(measure, sheet))}
            self.laws[name] = assemble(found, self.sheets.parts) if found else None
        return self.laws[name]

    def change(self, second: Paired, names: tuple[str, ...] = ("acceptance",)) -> SuiteComparison:
        """Second − this of the measures named, with intervals that hold for all tasks of a measure at once."""
        differences = {name: self._change(second, name) if name in names else {} for name in COMPARED}
        return SuiteComparison(
            suite=self.suite,
            clusters=second.clusters,
            differences=differences,
            unfairness=Estimate(),
            relative={},
            levelled_down=unfairness.levelled_down(differences["acceptance"]),
        )

    def _change(self, second: Paired, name: str) -> dict[str, Estimate]:
        """No data for any task unless both know the measure on the same tasks and problems."""
        differences = dict.fromkeys(second.sheets.prompts, Estimate())
        before, after = self.law(name), second.law(name)
        if before is None or after is None or before.tasks != after.tasks:
            return differences
        if before.influence.shape != after.influence.shape:
            return differences
        moved = after.value - before.value
        low, high = bootstrap.simultaneous(
            moved, after.influence - before.influence, strata=after.strata, replicates=REPLICATES
        )
        for place, task in enumerate(after.tasks):
            ends = (float(low[place]), float(high[place])) if after.fewest > 1 else (np.nan, np.nan)
            whole = np.isfinite(ends).all()
            value = float(moved[place])
            differences[task] = published(
                Estimate(value=value, low=ends[0], high=ends[1]) if whole else Estimate(value=value)
            )
        return differences
