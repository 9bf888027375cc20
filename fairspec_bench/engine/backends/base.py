"""What a backend is: the way in which the work of a block is executed. It never changes what is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.models.model import Rows

T = TypeVar("T")
D = TypeVar("D", bound=tuple[Tensor | None, ...])


class StepRunner(Protocol):
    """Runs blocks and the steps within them, for one set of buffers."""

    clock: Clock
    """Of the call in progress."""

    def __init__(self, clock: Clock): ...

    @staticmethod
    def slots(needed: int) -> int:
        """How many slots a step looks at: those needed, or more so that shapes recur; the surplus is masked."""

    def block(self, body: BlockFn, batch: Batch) -> Tensor:
        """Do the work of one block: `body(steps)`, or a recording of it; → what `body` returns."""

    def run(self, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        """`step(batch, rows, slot, *tensors)`, where `slot` are the slots that it looks at."""

    def unrecorded(self, work: Callable[[StepRunner], D]) -> D:
        """`work(steps)`, which no recording may contain: its shapes depend on data, or it waits for the device."""

    def lap(self, piece: str) -> None:
        """Time since the last lap counts as one `piece`: draft_first, draft_next or verify."""


BlockFn = Callable[[StepRunner], Tensor]
"""The work of one block."""


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
