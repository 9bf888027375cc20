"""What the loop and a drafter share: a request, the rows being decoded, and the clock.

Knows slots, positions and streams of randomness. Knows no model and no acceptance rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairspec_bench.engine.noise import Purpose, keys
from fairspec_bench.records import Encoded, Pieces, Rule

StopCheck = Callable[[Sequence[int]], int | None]
"""Output ids so far → how many of them to keep if a stop string is complete, else `None`."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue by at most `cap` tokens; `stream` names its own stream of randomness.

    `group` is opaque: a drafter may hold something of its own for each.
    """

    key: str
    ids: tuple[int, ...]
    cap: int
    stream: int
    stop: StopCheck | None = None
    group: str = ""


def as_request(encoded: Encoded, stop: StopCheck | None = None, *, cap: int | None = None) -> Request:
    """The request for an encoded prompt. Its stream follows from the prompt's ids alone, whatever run they are in."""
    stream = int(encoded.sha[:15], 16)
    return Request(encoded.key, encoded.ids, encoded.cap if cap is None else cap, stream, stop, encoded.group)


def padded(lists: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Lists of at most `width` ids as int64 [B, width], zeros after the end of each."""
    rows = [list(ids) + [0] * (width - len(ids)) for ids in lists]
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), width)


@dataclass
class Batch:
    """The rows being decoded, on the device. Slot = logical position; the output starts at slot `start`.

    `ids` [B, S] tokens so far, `pos` [B] slot of the last committed one, `stream` [B] each row's stream of randomness,
    `script` [B, S] the reference id to commit at a slot (−1: none). `top` is the largest `pos`, on the host.
    """

    ids: Tensor
    pos: Tensor
    start: Tensor
    stream: Tensor
    script: Tensor | None
    top: int
    rule: Rule
    seed: int
    vocab_size: int

    def after(self, count: int) -> Tensor:
        """The next `count` slots of every row: [B, count]."""
        return self.pos[:, None] + torch.arange(1, count + 1, device=self.pos.device)

    def keys(self, slots: Tensor, purpose: Purpose) -> Tensor:
        """Random bits for slots [B, n], by output position (the first output token is position 1)."""
        position = slots - self.start[:, None] + 1
        return keys(self.seed, self.stream[:, None].expand_as(position), position, purpose)

    def scripted(self, slots: Tensor, tokens: Tensor) -> Tensor:
        """`tokens` [B, n], overridden where the script knows the slot."""
        if self.script is None:
            return tokens
        known = self.script.gather(1, slots)
        return torch.where(known >= 0, known, tokens)

    def row(self, row: int) -> Batch:
        """This batch narrowed to one row; its tensors are views."""
        one = slice(row, row + 1)
        script = None if self.script is None else self.script[one]
        return Batch(
            self.ids[one], self.pos[one], self.start[one], self.stream[one], script, self.top, self.rule, self.seed,
            self.vocab_size,
        )  # fmt: skip


class Clock:
    """Adds up the time of each kind of step. `lap` closes a step; `skip` leaves out what passed since the last one.

    With `exact` on a CUDA device each reading waits for the device; otherwise it sees when work was launched.
    """

    def __init__(self, device: torch.device, exact: bool):
        self.wait = exact and device.type == "cuda"
        self.totals = Pieces().model_dump()
        self.mark = self.now()

    def now(self) -> int:
        """Nanoseconds on a steady clock."""
        if self.wait:
            torch.cuda.synchronize()
        return time.perf_counter_ns()

    def skip(self) -> None:
        self.mark = self.now()

    def lap(self, piece: str) -> None:
        """Count the time since the last reading as one `piece`: draft_first, draft_next, verify or rest."""
        now = self.now()
        self.totals[f"{piece}_ns"] += now - self.mark
        if piece in self.totals:
            self.totals[piece] += 1
        self.mark = now

    def since(self, then: dict[str, int]) -> Pieces:
        """What was added to `totals` since they were `then`."""
        return Pieces(**{piece: total - then[piece] for piece, total in self.totals.items()})
