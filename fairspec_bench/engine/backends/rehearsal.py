"""A recording for a CPU, which can do and refuses what a CUDA graph does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Rehearsal(TorchDispatchMode):
    """The rehearsal on a CPU of a CUDA graph: every operation on tensors, done again on the very same memory.

    Like a graph it repeats nothing that Python did, and refuses (`RuntimeError`) what a device cannot do by itself.
    Unlike one it does the work while it is recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def begin(self) -> None:
        """Record from here."""
        self.__enter__()

    def end(self) -> None:
        """Record up to here."""
        self.__exit__(None, None, None)

    @torch.no_grad()
    def replay(self) -> None:
        """Do it again."""
        for function, args, kwargs, out in self.operations:
            for old, new in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                # A view of the same memory, or what was done in place, is there already.
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if reason := _NOT_ON_A_GRAPH.get(func) or _by_a_mask(func, args):
            raise RuntimeError(f"{func} {reason}: it cannot be recorded")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out
