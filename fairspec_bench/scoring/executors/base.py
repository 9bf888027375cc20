"""What an executor is: who makes the lines of a run. No figure may depend on it.

One executor is a file of its own in this package and an entry in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.config import Environment, RunConfig
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import Dropped, Reference, Timing
from fairspec_bench.schemas.stages import Unit, unit_keys

OnProgress = Callable[[Unit, int], None]
"""Called with a unit when it begins (0) and after each of its lines, with how many there are."""


@dataclass
class Dependencies:
    """What other units are made from: references by key, timings by task."""

    references: dict[str, Reference] = field(default_factory=dict)
    timed: dict[Task, list[Timing]] = field(default_factory=dict)

    def add(self, lines: Iterable[Record]) -> None:
        for line in lines:
            if isinstance(line, Reference):
                self.references[line.key] = line
            elif isinstance(line, Timing):
                self.timed.setdefault(PromptKey(line.chunk).task, []).append(line)

    def needed(self, unit: Unit, config: RunConfig) -> Dependencies:
        """As much of it as the lines of this unit depend on."""
        keys = unit_keys(config)[unit]
        references = {key: self.references[key] for key in keys if key in self.references}
        timed = self.timed.get(unit.task, []) if unit.stage == "race" else []
        return Dependencies(references, {unit.task: list(timed)})


@dataclass(frozen=True)
class UnitResult:
    """A unit's lines, all there or made as they are taken, and the environment that makes them."""

    unit: Unit
    lines: Iterable[Record]
    environment: Environment


class Executor(Protocol):
    """Makes the lines of a run. It is no part of the configuration."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def dropped(self) -> tuple[Dropped, ...]: ...

    @property
    def environments(self) -> Sequence[Environment]:
        """Where it works, at least one."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how prompts are rendered and blocks are run."""

    def make(self, left: Sequence[Unit], known: Dependencies, on_progress: OnProgress) -> Iterator[UnitResult]:
        """Each of these units once, those of one file in their order. Adds what it makes to `known`."""


def with_progress(unit: Unit, lines: Iterable[Record], on_progress: OnProgress) -> Iterator[Record]:
    """A unit's lines as they are made, each reported."""
    on_progress(unit, 0)
    for number, line in enumerate(lines, 1):
        yield line
        on_progress(unit, number)
