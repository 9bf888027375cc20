"""Times of blocks and of the steps within them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from fairspec_bench.schemas.lines import StepTimes

NS_PER_MS = 1e6


class Clock:
    """Adds up the time of blocks (`decode_ns`) and of each kind of step in them; what is left of a block is `rest_ns`.

    Steps on a CUDA device are timed by events if `exact`, else not at all: then only reading the tokens waits for it.
    """

    def __init__(self, device: torch.device, exact: bool = False):
        self.cuda, self.exact = device.type == "cuda", exact
        self.totals = {"decode_ns": 0, **StepTimes().model_dump()}
        self.events: list[tuple[str, torch.cuda.Event]] = []
        self.mark = self.in_steps = 0

    def now(self) -> int:
        """Nanoseconds on a steady clock, after all work on the device is done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter_ns()

    @contextmanager
    def block(self) -> Iterator[None]:
        """Time a block. Its tokens must be on the host at the end, so that the device has done its work."""
        begun = self.mark = time.perf_counter_ns()
        self.in_steps = 0
        if self.cuda and self.exact:
            self.events = []
            self._record("")
        yield
        now = time.perf_counter_ns()
        for (_, before), (piece, after) in pairwise(self.events):
            self._add(piece, round(before.elapsed_time(after) * NS_PER_MS))
        self.totals["decode_ns"] += now - begun
        self.totals["rest_ns"] += max(0, now - begun - self.in_steps)

    def lap(self, piece: str) -> None:
        """Count the time since the last lap of the block as one `piece`: draft_first, draft_next or verify."""
        if self.cuda:
            if self.exact:
                self._record(piece)
            return
        now = time.perf_counter_ns()
        self._add(piece, now - self.mark)
        self.mark = now

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """What was added to `totals` since they were `before`."""
        return {name: total - before[name] for name, total in self.totals.items()}

    def _record(self, piece: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.events.append((piece, event))

    def _add(self, piece: str, spent: int) -> None:
        self.totals[f"{piece}_ns"] += spent
        self.totals[piece] += 1
        self.in_steps += spent
