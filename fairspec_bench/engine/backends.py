"""How the work of a block is run: as it is, each model's passes compiled, or the whole block recorded and replayed.

A backend is one entry of `BACKENDS`. It may round up how many slots a pass looks at, so that shapes recur; it never
changes what is computed. Knows torch's compiler and CUDA graphs; knows no model and no decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairspec_bench.engine.batch import Clock
from fairspec_bench.records import Backend

Body = Callable[[Clock], Tensor]
"""The work of one block, which marks its steps on a clock: → what the host is to know of it."""


# --------------------------------------------------------------------------- slots


def exactly(slots: int) -> int:
    return slots


def sixteens(slots: int) -> int:
    """To whole vectors: compiled code for any number of slots need not handle a remainder."""
    return _up(slots, 16)


def buckets(slots: int) -> int:
    """To few lengths, each a recording: multiples of 256, later of about an eighth of the length."""
    return _up(slots, max(256, 2 ** (slots.bit_length() - 3)))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


# --------------------------------------------------------------------------- compiled passes


class Compiled:
    """A function of tensors compiled once for each of the shapes that its caller names, dynamic where it says so."""

    def __init__(self, function: Callable[..., Tensor]):
        assert isinstance(function, FunctionType)
        self.function = function
        self.made: dict[Hashable, Callable[..., Tensor]] = {}

    def shaped(self, shape: Hashable) -> Callable[..., Tensor]:
        """The function for one shape of its arguments."""
        if shape not in self.made:
            # A code object of its own: what is compiled for the others is neither searched through nor counted.
            own = FunctionType(self.function.__code__.replace(), self.function.__globals__, self.function.__name__)
            self.made[shape] = torch.compile(own, fullgraph=True)
        return self.made[shape]


@cache
def compiler_works() -> str | None:
    """Why nothing can be compiled here, `None` if it can."""
    try:
        one = torch.ones(3)
        if bool((torch.compile(lambda x: x.sin() + 1, fullgraph=True)(one) - one.sin() - 1).abs().max() < 1e-5):
            return None
        return "it computes something else"
    except Exception as error:  # whatever the tool chain raises, there is a way on without it
        return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --------------------------------------------------------------------------- recorded blocks


class Segment(NamedTuple):
    """A recorded step: what to call to do it again, and its name on the clock (empty: not one step)."""

    replay: Callable[[], object]
    piece: str


@dataclass
class Recordings:
    """Work recorded on one set of buffers, once for each view."""

    device: torch.device
    pool: Any = None
    kept: dict[Hashable, Body] = field(default_factory=dict)

    def ready(self, body: Body, view: int, exact: bool, moved: Tensor) -> Body:
        """The work as recorded; the first time by running `body`, after which what it `moved` is put back.

        `exact`: recorded step by step, so that each can be timed; else as a whole.
        """
        key = (view, exact)
        if key not in self.kept:
            before = moved.clone()
            recorder = CudaRecorder(self) if self.device.type == "cuda" else Tape()
            segments, result = recorder.record(body, exact)
            moved.copy_(before)
            self.kept[key] = partial(_replay, segments, result)
        return self.kept[key]


def _replay(segments: list[Segment], result: Tensor, clock: Clock) -> Tensor:
    for segment in segments:
        segment.replay()
        if segment.piece:
            clock.lap(segment.piece)
    return result


class _Cuts(Clock):
    """The clock of a block that is being recorded: a lap ends a segment."""

    def __init__(self, cut: Callable[[str], None]):
        super().__init__(torch.device("cpu"), exact=False)
        self.cut = cut

    def lap(self, piece: str) -> None:
        self.cut(piece)


class CudaRecorder:
    """Records into CUDA graphs, which share the memory that `recordings` holds for all of them."""

    def __init__(self, recordings: Recordings):
        self.recordings = recordings

    def record(self, body: Body, exact: bool) -> tuple[list[Segment], Tensor]:
        pool = self.recordings.pool = self.recordings.pool or torch.cuda.graph_pool_handle()
        segments: list[Segment] = []
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries set themselves up on first use, which cannot be recorded
                body(_Cuts(lambda piece: None))
            side.synchronize()
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(pool=pool)

            def cut(piece: str) -> None:
                nonlocal graph
                if exact or not piece:
                    graph.capture_end()
                    segments.append(Segment(graph.replay, piece))
                    graph = torch.cuda.CUDAGraph()
                    graph.capture_begin(pool=pool)

            result = body(_Cuts(cut))
            graph.capture_end()
            segments.append(Segment(graph.replay, ""))
        torch.cuda.current_stream().wait_stream(side)
        return segments, result


_NOT_ON_A_GRAPH = {
    torch.ops.aten._local_scalar_dense.default: "waits for the device",
    torch.ops.aten.nonzero.default: "has a shape that depends on data",
    torch.ops.aten.repeat_interleave.Tensor: "has a shape that depends on data",
    torch.ops.aten.lift_fresh.default: "copies from the host's memory",
    torch.ops.aten.lift_fresh_copy.default: "copies from the host's memory",
}


class Tape(TorchDispatchMode):
    """A CUDA graph as rehearsed on a CPU: every operation on tensors, done again on the very same memory.

    Like one, it repeats nothing that Python did, and refuses (`RuntimeError`) what a device cannot do by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def record(self, body: Body, exact: bool) -> tuple[list[Segment], Tensor]:
        segments: list[Segment] = []

        def cut(piece: str) -> None:
            if exact or not piece:
                segments.append(Segment(partial(_again, self.operations), piece))
                self.operations = []

        with self:
            result = body(_Cuts(cut))
        cut("")
        return segments, result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _NOT_ON_A_GRAPH:
            raise RuntimeError(f"{func} {_NOT_ON_A_GRAPH[func]}: it cannot be recorded")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out


@torch.no_grad()
def _again(operations: list[tuple[Callable[..., Any], Any, Any, Any]]) -> None:
    for function, args, kwargs, out in operations:
        for kept, made in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
            # A view of the same memory, or what was done in place, is there already.
            if isinstance(kept, Tensor) and kept.data_ptr() != made.data_ptr():
                kept.copy_(made)


# --------------------------------------------------------------------------- the table


class How(NamedTuple):
    """What a backend does: rounds slots, compiles passes, records blocks."""

    slots: Callable[[int], int]
    compiles: bool = False
    records: bool = False


BACKENDS: Mapping[Backend, How] = {
    "eager": How(exactly),
    "compile": How(sixteens, compiles=True),
    "graph": How(buckets, records=True),
}
