"""This process makes every unit, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fairspec_bench.schemas.stages import Unit
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.executors.base import Dependencies, OnProgress, UnitResult, with_progress
from fairspec_bench.scoring.prepare import RunContext
from fairspec_bench.scoring.reference import NONE_GIVEN, Given
from fairspec_bench.scoring.stages import UnitRunner


class LocalExecutor:
    """See `executors.base.Executor`.

    `cache` keeps references for other runs, `given` are taken as they are. `states` keeps the verifier's pass.
    """

    def __init__(
        self,
        prepared: RunContext,
        *,
        cache: Path | None = None,
        given: Mapping[str, Given] = NONE_GIVEN,
        states: Path | None = None,
    ):
        self.config, self.dropped, self.notes = prepared.config, prepared.dropped, prepared.notes
        self.environments = (describe(prepared.config.device),)
        self.runner = UnitRunner(prepared, cache, given, states)

    def make(self, left: Sequence[Unit], known: Dependencies, on_progress: OnProgress) -> Iterator[UnitResult]:
        """See `Executor.make`."""
        self.runner.use(known)
        for unit in left:
            yield UnitResult(unit, with_progress(unit, self.runner.lines(unit), on_progress), self.environments[0])
