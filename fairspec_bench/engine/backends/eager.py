"""Steps run as they are."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fairspec_bench.engine.backends.base import BlockFn, D, StepRunner, T
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock
from fairspec_bench.models.model import Rows


class EagerSteps:
    """See `StepRunner`."""

    def __init__(self, clock: Clock):
        self.clock = clock

    @staticmethod
    def slots(needed: int) -> int:
        return needed

    def block(self, body: BlockFn, batch: Batch) -> Tensor:
        return body(self)

    def run(self, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        return step(batch, rows, rows.cache.ruler[: batch.view], *tensors)

    def unrecorded(self, work: Callable[[StepRunner], D]) -> D:
        return work(self)

    def lap(self, piece: str) -> None:
        self.clock.lap(piece)
