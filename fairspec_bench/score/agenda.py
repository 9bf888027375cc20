"""Which units of a run several workers may make at once, and in which order what they made may be written.

Knows stages and files of units. Knows no worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from fairspec_bench.score.folder import Unit

Say = Callable[[str], None]
PHASES = {"timing": 1, "sweep": 2}
FROM_TEXTS = frozenset({"answer", "replay", "departure"})


class Agenda:
    """What of a run may be made now by whoever is free, and what of it that is made may be written.

    Texts come before what is made from them. Timings wait until nothing else runs, the sweeps for the timings, and the
    races of one task come one after the other, for each must know what was timed before. A file is written in the order
    of the run's units.
    """

    def __init__(self, left: Sequence[Unit]):
        self.unfinished = dict.fromkeys(left)
        self.running: set[Unit] = set()
        self.held: set[Unit] = set()
        self.files: dict[str, deque[Unit]] = {}
        self.before: dict[Unit, Unit] = {}
        for unit in left:
            file = self.files.setdefault(unit.file, deque())
            if file and unit.stage == "timing":
                self.before[unit] = file[-1]
            file.append(unit)

    @property
    def timing(self) -> bool:
        """Whether what is to be made next is timed."""
        return _phase(next(iter(self.unfinished))) > 0

    def next(self) -> Unit | None:
        """The first unit that may be made now, which is then under way; `None` if all must wait."""
        for unit in self.unfinished:
            if _phase(unit) > _phase(next(iter(self.unfinished))):
                return None
            if unit not in self.running and self._awaited(unit) not in self.unfinished:
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

    def _awaited(self, unit: Unit) -> Unit | None:
        return Unit(unit.shard, "trace") if unit.stage in FROM_TEXTS else self.before.get(unit)


def _phase(unit: Unit) -> int:
    return PHASES.get(unit.stage, 0)
