"""What the loop and a drafter share: a request, the rows being decoded, and the clock.

Knows slots, positions and streams of randomness. Knows no model and no acceptance rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fairspec_bench.engine.noise import Purpose, keys
from fairspec_bench.records import Encoded, Pieces, Rule

NS_PER_MS = 1e6

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

    `ids` [B, S] tokens so far, `pos` [B] slot of the last committed one, `start` [B], `stream` [B] each row's stream of
    randomness, `live` [B] 1 or, for a row without a request, 0; `script` [B, S] the reference id to commit at a slot
    (−1: none). Their memory stays where it is: a recorded block goes on using it. `view`, on the host, bounds the slots
    that the next block looks at.
    """

    ids: Tensor
    pos: Tensor
    start: Tensor
    stream: Tensor
    live: Tensor
    script: Tensor | None
    view: int
    rule: Rule
    seed: int
    vocab_size: int

    @classmethod
    def empty(
        cls, size: int, slots: int, device: torch.device, *, rule: Rule, seed: int, vocab_size: int, scripted: bool
    ) -> Batch:
        """`size` rows without a request, of `slots` slots each."""
        ids = torch.zeros(size, slots, dtype=torch.long, device=device)
        pos, start, stream = (torch.ones(size, dtype=torch.long, device=device) for _ in range(3))
        script = torch.full_like(ids, -1) if scripted else None
        return cls(ids, pos, start, stream, torch.zeros_like(pos), script, slots, rule, seed, vocab_size)

    def place(self, row: int, request: Request, text: Sequence[int] | None) -> None:
        """Give a row to a request, up to its prompt's last token; `text` is what it is to commit."""
        length = len(request.ids)
        self.ids[row, :length] = torch.tensor(request.ids)
        self.pos[row], self.start[row], self.stream[row], self.live[row] = length - 1, length, request.stream, 1
        if self.script is not None and text is not None:
            self.script[row] = -1
            self.script[row, length : length + len(text)] = torch.tensor(text)

    def clear(self) -> None:
        """Take all rows from their requests."""
        self.pos.fill_(1)
        self.live.zero_()

    def free(self, row: int) -> None:
        """Take a row from its request; it idles at a slot where it harms nobody."""
        self.pos[row], self.live[row] = 1, 0

    def last(self) -> Tensor:
        """The last committed token of every row: [B, 1]."""
        return self.ids.gather(1, self.pos[:, None])

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

    def commit(self, accepted: Tensor, tokens: Tensor) -> None:
        """Write tokens [B, γ+1] after `pos`, move on by those that count, `accepted` [B] drafts and one."""
        self.ids.scatter_(1, self.after(tokens.shape[1]), tokens)
        self.pos += (accepted + 1) * self.live

    def row(self, row: int) -> Batch:
        """This batch narrowed to one row; its tensors are views."""
        one = slice(row, row + 1)
        script = None if self.script is None else self.script[one]
        return Batch(
            self.ids[one], self.pos[one], self.start[one], self.stream[one], self.live[one], script, self.view,
            self.rule, self.seed, self.vocab_size,
        )  # fmt: skip


class Clock:
    """Adds up the time of blocks, and within them of each kind of step.

    A block lies between `begin` and `end`; `lap` closes a step in it, `end` counts what is left as `rest`. Steps on a
    CUDA device are timed by events if `exact`, else not at all: nothing ever waits for the device but the tokens.
    """

    def __init__(self, device: torch.device, exact: bool):
        self.cuda, self.exact = device.type == "cuda", exact
        self.totals = {"decode_ns": 0, **Pieces().model_dump()}
        self.events: list[tuple[str, torch.cuda.Event]] = []
        self.begin()

    def now(self) -> int:
        """Nanoseconds on a steady clock, all work done."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter_ns()

    def begin(self) -> None:
        self.begun = self.mark = time.perf_counter_ns()
        self.known = 0
        if self.cuda and self.exact:
            self.events = []
            self._record("")

    def lap(self, piece: str) -> None:
        """Count the time since the last reading as one `piece`: draft_first, draft_next or verify."""
        if self.cuda:
            if self.exact:
                self._record(piece)
            return
        now = time.perf_counter_ns()
        self._add(piece, now - self.mark)
        self.mark = now

    def end(self) -> None:
        """The block is over; its tokens have come to the host, so the device has done its work."""
        now = time.perf_counter_ns()
        for (_, before), (piece, after) in pairwise(self.events):
            self._add(piece, round(before.elapsed_time(after) * NS_PER_MS))
        self.totals["decode_ns"] += now - self.begun
        self.totals["rest_ns"] += max(0, now - self.begun - self.known)

    def since(self, then: dict[str, int]) -> dict[str, int]:
        """What was added to `totals` since they were `then`."""
        return {name: total - then[name] for name, total in self.totals.items()}

    def _record(self, piece: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.events.append((piece, event))

    def _add(self, piece: str, spent: int) -> None:
        self.totals[f"{piece}_ns"] += spent
        self.totals[piece] += 1
        self.known += spent
