"""A run: every unit of it made by an executor and kept, then the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairspec_bench.schemas.lines import Reference, Timing
from fairspec_bench.schemas.report import Report
from fairspec_bench.schemas.stages import STAGES, Unit
from fairspec_bench.scoring.executors.base import Dependencies, Executor
from fairspec_bench.scoring.executors.local import LocalExecutor
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.reference import NONE_GIVEN, Given
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run_folder import RunWriter, writing


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` in rough units of time, and what was just made."""

    unit: Unit
    done: float
    total: float


ProgressCallback = Callable[[Progress], None]


def run(
    prepared: RunContext,
    out: Path,
    *,
    cache: Path | None = None,
    given: Mapping[str, Given] = NONE_GIVEN,
    watch: ProgressCallback | None = None,
) -> Report:
    """`execute` in this process.

    `cache` keeps references for other runs, `given` are references of a track, taken as they are.
    """
    return execute(LocalExecutor(prepared, cache=cache, given=given), out, watch=watch)


def execute(executor: Executor, out: Path, *, watch: ProgressCallback | None = None) -> Report:
    """Do what is left of a run in `out`; → its report, which is written beside the lines if the run is whole.

    This process alone writes. Raises `FairspecError`; what was finished before stays, and the same call resumes there.
    """
    with writing(out, executor.config, executor.environments[0], executor.dropped) as writer:
        left, known = writer.left(), Dependencies()
        known.add(writer.folder.lines("reference", Reference))
        known.add(writer.folder.lines("race", Timing))
        for environment in executor.environments if left else ():
            writer.refuse_other_machine(environment)
        meter = _ProgressMeter(writer, watch or (lambda progress: None))
        for made in executor.make(left, known, meter.begun):
            writer.add(made.unit, made.lines, writer.session(made.environment))
            meter.written(made.unit)
        return make_report(writer.folder)


class _ProgressMeter:
    """How far a run is, whoever makes its lines and however many units at once."""

    def __init__(self, writer: RunWriter, watch: ProgressCallback):
        self.watch, folder = watch, writer.folder
        self.costs = {
            unit: STAGES[unit.stage].cost * STAGES[unit.stage].most(folder.config, keys)
            for unit, keys in folder.keys.items()
        }
        self.place = {unit: place for place, unit in enumerate(self.costs)}
        self.total = sum(self.costs.values())
        self.before = sum(self.costs[unit] for unit in folder.done)
        self.counts: dict[Unit, int] = {}

    def begun(self, unit: Unit, lines: int) -> None:
        """A unit has so many lines. Shown is the first one that is not yet kept."""
        self.counts[unit] = lines
        begun = sum(count * STAGES[each.stage].cost for each, count in self.counts.items())
        self.watch(Progress(min(self.counts, key=self.place.__getitem__), self.before + begun, self.total))

    def written(self, unit: Unit) -> None:
        self.counts.pop(unit, None)
        self.before += self.costs[unit]
