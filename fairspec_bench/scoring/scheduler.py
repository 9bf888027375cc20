"""Which units of a run several workers may make at once, and in which order what they made may be written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.stages import STAGES, Unit

Say = Callable[[str], None]


class Scheduler:
    """What of a run may be made now by whichever worker is free, and what of it that is made may be written.

    References come before what is made from them. Timings wait until nothing else runs, the sweeps for the timings, and
    the races of one task come one after the other, for whether one goes on depends on the timings before. A file, which
    has the units of one stage, is written in the order of the run's units: a unit that is made early is held meanwhile.
    """

    def __init__(self, left: Sequence[Unit]):
        self.unfinished = dict.fromkeys(left)
        self.running: set[Unit] = set()
        self.held: set[Unit] = set()
        self.files: dict[str, deque[Unit]] = {}
        self.before: dict[Unit, Unit] = {}
        raced: dict[Task, Unit] = {}
        for unit in left:
            self.files.setdefault(unit.file, deque()).append(unit)
            if unit.stage == "race":
                if unit.task in raced:
                    self.before[unit] = raced[unit.task]
                raced[unit.task] = unit

    @property
    def timing(self) -> bool:
        """Whether what is to be made next is timed."""
        return _phase(next(iter(self.unfinished))) > 0

    def next(self) -> Unit | None:
        """The first unit that may be made now, which is then under way; `None` if all must wait."""
        for unit in self.unfinished:
            if _phase(unit) > _phase(next(iter(self.unfinished))):
                return None
            if unit not in self.running and not self._awaits(unit):
                self.running.add(unit)
                return unit
        return None

    def again(self, unit: Unit) -> None:
        """A unit that was under way is to be made anew."""
        self.running.discard(unit)

    def finish(self, unit: Unit) -> Iterator[Unit]:
        """A unit is made; → those that may be written now."""
        self.running.discard(unit)
        del self.unfinished[unit]
        self.held.add(unit)
        file = self.files[unit.file]
        while file and file[0] in self.held:
            self.held.discard(file[0])
            yield file.popleft()

    def _awaits(self, unit: Unit) -> bool:
        """Whether something that its lines are made from is still to be made."""
        needed = [Unit(unit.chunk, stage) for stage in STAGES[unit.stage].needs]
        return any(each in self.unfinished for each in (*needed, self.before.get(unit)))


def _phase(unit: Unit) -> int:
    """Only what is timed waits for the phases before it."""
    stage = STAGES[unit.stage]
    return stage.phase if stage.timed else 0
