"""Steps compiled by torch, each once for every shape of its tensors; any number of slots will do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from fairspec_bench.engine.backends.base import T, round_up
from fairspec_bench.engine.backends.eager import EagerSteps
from fairspec_bench.engine.batch import Batch
from fairspec_bench.models.model import Rows

_COMPILED: WeakKeyDictionary[PreTrainedModel, dict[Hashable, Callable[..., Any]]] = WeakKeyDictionary()
"""The steps compiled so far, for each model in memory, whatever `Model` it is wrapped in."""


class CompiledSteps(EagerSteps):
    """See `StepRunner`."""

    @staticmethod
    def slots(needed: int) -> int:
        """Whole vectors: code compiled for any number of slots need not handle a remainder."""
        return round_up(needed, 16)

    def run(self, step: Callable[..., T], batch: Batch, rows: Rows, *tensors: Tensor | None) -> T:
        hf, shapes = rows.model.hf, tuple(None if tensor is None else tensor.shape for tensor in tensors)
        where = (len(batch.pos), batch.sampling, batch.seed, batch.reference is None, hf.config._attn_implementation)
        key = (step.__code__, shapes, where)
        made = _COMPILED.setdefault(hf, {})
        if key not in made:
            made[key] = _compile(step)
        slot = rows.cache.ruler[: batch.view]
        _mark_dynamic(slot, batch, rows)
        out: T = made[key](batch, rows, slot, *tensors)
        return out


def _compile(step: Callable[..., T]) -> Callable[..., T]:
    # A code object of its own: what is compiled for other shapes is not searched, nor counted against torch's limit.
    assert isinstance(step, FunctionType)
    own = FunctionType(step.__code__.replace(), step.__globals__, step.__name__, step.__defaults__)
    return torch.compile(own, fullgraph=True, dynamic=False, options=COMPILE_OPTIONS)


def _needed(guards: Sequence[Any]) -> list[bool]:
    """Which compile guards to keep: the sizes of buffers.

    All else is in the step's key, or belongs to the model (`rows.model`, by the name of a step's argument), which stays
    as it is: guarding its modules took a fifth of the time of small ones.
    """
    return [
        guard.guard_type == "SHAPE_ENV"
        or (guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("rows.model"))
        for guard in guards
    ]


# The compiler's own vectors are off: in the last, partial vector of some kernels (64-bit integers, so the random
# numbers of sampling) torch 2.13 writes past the buffer. It costs 6 % of the embedded pair's block.
COMPILE_OPTIONS: dict[str, Any] = {"guard_filter_fn": _needed, "size_asserts": False, "cpp.simdlen": 1}


def _mark_dynamic(slot: Tensor, batch: Batch, rows: Rows) -> None:
    """Mark as dynamic the number of slots, and how many of them are looked at."""
    from torch._dynamo import maybe_mark_dynamic

    maybe_mark_dynamic(slot, 0)
    if not rows.varied:
        maybe_mark_dynamic(batch.ids, 1)
        maybe_mark_dynamic(batch.peaks, 1)
        if batch.reference is not None:
            maybe_mark_dynamic(batch.reference, 1)
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
    except Exception as error:  # whatever the compiler raises, runs work without it
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
