"""How the work of a block is run: as it is, each of its steps compiled, or the whole block recorded and replayed.

A backend is one entry of `BACKENDS`. It may round up how many slots a step looks at, so that shapes recur; it never
changes what is computed. Knows torch's compiler and CUDA graphs; knows no decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from types import FunctionType
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairspec_bench.engine.batch import Batch, Clock
from fairspec_bench.engine.model import Rows
from fairspec_bench.records import Backend

T = TypeVar("T")


class Steps(Protocol):
    """What runs the steps of a block, and times each as a piece: draft_first, draft_next or verify."""

    def run(self, piece: str, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        """`step(batch, rows, slot, *tensors)`, where `slot` are the slots that it may look at."""

    def lap(self, piece: str) -> None:
        """What was done since the last step was a step too."""


Body = Callable[[Steps], Tensor]
"""The work of one block: → what the host is to know of it."""


@dataclass
class Plain:
    """Steps run as they are."""

    clock: Clock

    def run(self, piece: str, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        out = step(batch, rows, rows.cache.ruler[: batch.view], *tensors)
        self.lap(piece)
        return out

    def lap(self, piece: str) -> None:
        self.clock.lap(piece)


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


# --------------------------------------------------------------------------- compiled steps


class Compiled(Plain):
    """Steps compiled, each once for every shape of its tensors; any number of slots will do."""

    def run(self, piece: str, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        shapes = tuple(None if tensor is None else tensor.shape for tensor in tensors)
        key = (step, len(batch.pos), shapes, batch.rule, batch.seed, batch.script is None)
        made = rows.model.compiled
        if key not in made:
            made[key] = _compile(step)
        slot = rows.cache.ruler[: batch.view]
        _vary(slot, batch, rows)
        out = made[key](batch, rows, slot, *tensors)
        self.lap(piece)
        return out


def _compile(step: Callable[..., T]) -> Callable[..., T]:
    # A code object of its own: what is compiled for other shapes is neither searched through nor counted.
    assert isinstance(step, FunctionType)
    own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__, step.__defaults__)
    return torch.compile(own, fullgraph=True, dynamic=False, options=COMPILE_OPTIONS)


def _needed(guards: Sequence[Any]) -> list[bool]:
    """Which of what a compiled step takes for granted is to be looked at before each call: the sizes of buffers.

    All else is in the step's key, or of the model, which stays as it is: looking at every module of it took a fifth of
    the time of small ones.
    """
    return [
        guard.guard_type == "SHAPE_ENV"
        or (guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("rows.model"))
        for guard in guards
    ]


# The compiler's own vectors are off: in the last, partial vector of some kernels (64-bit integers, so the noise of
# sampling) torch 2.13 writes past the buffer. It costs 6 % of the embedded pair's block; matrix products are not its.
COMPILE_OPTIONS: dict[str, Any] = {"guard_filter_fn": _needed, "size_asserts": False, "cpp.simdlen": 1}


def _vary(slot: Tensor, batch: Batch, rows: Rows) -> None:
    """Tell the compiler that neither the number of slots nor how many of them are looked at is fixed."""
    from torch._dynamo import maybe_mark_dynamic

    maybe_mark_dynamic(slot, 0)
    if not rows.varied:
        maybe_mark_dynamic(batch.ids, 1)
        if batch.script is not None:
            maybe_mark_dynamic(batch.script, 1)
        for layer in rows.cache.layers:
            maybe_mark_dynamic(layer.keys, 1)
            maybe_mark_dynamic(layer.values, 1)
        rows.varied = True


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
            segments, result = recorder.record(body, exact, lambda: moved.copy_(before))
            self.kept[key] = partial(_replay, segments, result)
        return self.kept[key]


def _replay(segments: list[Segment], result: Tensor, steps: Steps) -> Tensor:
    for segment in segments:
        segment.replay()
        if segment.piece:
            steps.lap(segment.piece)
    return result


class _Cut(Plain):
    """Steps that are being recorded: each ends a segment."""

    def __init__(self, cut: Callable[[str], None]):
        self.cut = cut

    def lap(self, piece: str) -> None:
        self.cut(piece)


class CudaRecorder:
    """Records into CUDA graphs, which share the memory that `recordings` holds for all of them."""

    def __init__(self, recordings: Recordings):
        self.recordings = recordings

    def record(self, body: Body, exact: bool, undo: Callable[[], object]) -> tuple[list[Segment], Tensor]:
        pool = self.recordings.pool = self.recordings.pool or torch.cuda.graph_pool_handle()
        segments: list[Segment] = []
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries set themselves up on first use, which cannot be recorded
                body(_Cut(lambda piece: None))
                undo()
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

            result = body(_Cut(cut))
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


def _by_a_mask(func: Any, args: Any) -> str | None:
    if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
        masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
        return "has a shape that depends on data" if masks else None
    return None


class Tape(TorchDispatchMode):
    """A CUDA graph as rehearsed on a CPU: every operation on tensors, done again on the very same memory.

    Like one, it repeats nothing that Python did, and refuses (`RuntimeError`) what a device cannot do by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def record(self, body: Body, exact: bool, undo: Callable[[], object]) -> tuple[list[Segment], Tensor]:
        segments: list[Segment] = []

        def cut(piece: str) -> None:
            if exact or not piece:
                segments.append(Segment(partial(_again, self.operations), piece))
                self.operations = []

        with self:
            result = body(_Cut(cut))
        undo()
        cut("")
        return segments, result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if reason := _NOT_ON_A_GRAPH.get(func) or _by_a_mask(func, args):
            raise RuntimeError(f"{func} {reason}: it cannot be recorded")
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
    """What a backend does: rounds slots, runs steps, records blocks."""

    slots: Callable[[int], int]
    steps: Callable[[Clock], Steps] = Plain
    records: bool = False


BACKENDS: Mapping[Backend, How] = {
    "eager": How(exactly),
    "compile": How(sixteens, Compiled),
    "graph": How(buckets, records=True),
}
