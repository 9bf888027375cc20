"""Whole blocks recorded once for each number of slots and replayed: as CUDA graphs, on a CPU as a rehearsal of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fairspec_bench.engine.backends.base import BlockFn, D, StepRunner, round_up
from fairspec_bench.engine.backends.eager import EagerSteps
from fairspec_bench.engine.backends.rehearsal import Rehearsal
from fairspec_bench.engine.batch import Batch
from fairspec_bench.engine.clock import Clock


class Graph(Protocol):
    """A recording of work on tensors: between `begin` and `end` it is recorded, `replay` does it again."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def replay(self) -> object: ...


class CudaGraph:
    """A CUDA graph; those of one `pool` share memory."""

    def __init__(self, pool: Any):
        self.pool, self.graph = pool, torch.cuda.CUDAGraph()

    def begin(self) -> None:
        self.graph.capture_begin(pool=self.pool)

    def end(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the graph is empty: nothing lies between two laps
            self.graph.capture_end()

    def replay(self) -> None:
        self.graph.replay()


class Segment(NamedTuple):
    """A part of a block: what to call to do it again, and its name on the clock (empty: not one step)."""

    replay: Callable[[StepRunner], object]
    piece: str = ""


class RecordedSteps(EagerSteps):
    """See `StepRunner`. A block is recorded the first time, step by step if the clock is `exact`, else as a whole."""

    def __init__(self, clock: Clock):
        super().__init__(clock)
        self.recordings: dict[tuple[int, bool], tuple[list[Segment], Tensor]] = {}
        self.pool: Any = None

    @staticmethod
    def slots(needed: int) -> int:
        """Few lengths, each a recording: multiples of 256, later of about an eighth of the length."""
        return round_up(needed, max(256, 2 ** (needed.bit_length() - 3)))

    def block(self, body: BlockFn, batch: Batch) -> Tensor:
        key = (batch.view, self.clock.exact)
        if key not in self.recordings:
            self.recordings[key] = self._record(body, batch)
        segments, result = self.recordings[key]
        for segment in segments:
            segment.replay(self)
            if segment.piece:
                self.lap(segment.piece)
        return result

    def _record(self, body: BlockFn, batch: Batch) -> tuple[list[Segment], Tensor]:
        """Run `body` to record it, and put back the positions that it moved."""
        pos = batch.pos.clone()
        record = self._record_cuda if batch.pos.device.type == "cuda" else self._rehearse
        return record(body, lambda: batch.pos.copy_(pos))

    def _rehearse(self, body: BlockFn, undo: Callable[[], object]) -> tuple[list[Segment], Tensor]:
        recorded = Recorder(self.clock, Rehearsal).record(body)
        undo()
        return recorded

    def _record_cuda(self, body: BlockFn, undo: Callable[[], object]) -> tuple[list[Segment], Tensor]:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries set themselves up on first use, which cannot be recorded
                body(_untimed())
                undo()
            side.synchronize()
            recorded = Recorder(self.clock, lambda: CudaGraph(self.pool)).record(body)
        torch.cuda.current_stream().wait_stream(side)
        return recorded


class Recorder(EagerSteps):
    """Records a block as a row of segments: a graph for the whole or, if the clock is `exact`, for each step."""

    def __init__(self, clock: Clock, new_graph: Callable[[], Graph]):
        super().__init__(clock)
        self.new_graph, self.segments = new_graph, list[Segment]()

    def record(self, body: BlockFn) -> tuple[list[Segment], Tensor]:
        """The segments of a block, and where its result will lie."""
        self._begin()
        try:
            result = body(self)
        finally:
            self._end("")
        return self.segments, result

    def lap(self, piece: str) -> None:
        if self.clock.exact:
            self._end(piece)
            self._begin()

    def unrecorded(self, work: Callable[[StepRunner], D]) -> D:
        """Run `work` between two graphs; at each replay it is done again, into the memory that the next graph reads."""
        self._end("")
        kept = work(_untimed())

        def again(steps: StepRunner) -> None:
            for old, new in zip(kept, work(steps), strict=True):
                if old is not None and new is not None:
                    old.copy_(new)

        self.segments.append(Segment(again))
        self._begin()
        return kept

    def _begin(self) -> None:
        self.graph = self.new_graph()
        self.graph.begin()

    def _end(self, piece: str) -> None:
        self.graph.end()
        graph = self.graph
        self.segments.append(Segment(lambda steps: graph.replay(), piece))


def _untimed() -> EagerSteps:
    return EagerSteps(Clock(torch.device("cpu")))
