"""What a serving engine is to us: it continues prompts, some at once, and counts its own speculation.

Knows ids and times. Knows no suite, no file and no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fairspec_bench.records import Block, Counters

StopCheck = Callable[[Sequence[int]], int | None]
"""Output ids so far → how many of them to keep once the output has ended, else `None`."""


class Wanted(NamedTuple):
    """A prompt to continue greedily by `tokens` tokens, whatever they are; or until `stop` says that it ended."""

    key: str
    ids: tuple[int, ...]
    tokens: int
    stop: StopCheck | None = None


@dataclass
class Served:
    """A continuation as it arrives. Times are of one monotonic clock, nanoseconds.

    `steps` are how many tokens each arrival brought; the first is that of the prefill.
    """

    wanted: Wanted
    asked_ns: int
    ids: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0

    def arrive(self, ids: Sequence[int], now_ns: int) -> bool:
        """Take what came; → whether the output has ended. What goes beyond its end is cut off."""
        if not ids:
            return False
        before = len(self.ids)
        self.ids += ids
        self.first_ns, self.last_ns = self.first_ns or now_ns, now_ns
        keep = self.wanted.stop(self.ids) if self.wanted.stop else None
        del self.ids[self.wanted.tokens if keep is None else keep :]
        self.steps.append(len(self.ids) - before)
        return keep is not None or len(self.ids) >= self.wanted.tokens

    @property
    def latency_ns(self) -> int:
        """From asking to the last token."""
        return self.last_ns - self.asked_ns


@dataclass(frozen=True)
class Batch:
    """What was served together: in the order wanted, and from when to when."""

    served: tuple[Served, ...]

    @property
    def wall_ns(self) -> int:
        """From the first request to the last token."""
        return max(one.last_ns for one in self.served) - min(one.asked_ns for one in self.served)


class Engine(Protocol):
    """A model being served, with a drafter or without."""

    def serve(self, wanted: Sequence[Wanted], at_once: int) -> Batch:
        """Continue all of them, `at_once` under way at any time while there are so many. Raises `FairspecError`."""

    def counters(self) -> Counters | None:
        """What it counted since it started, all requests together; `None` without a drafter."""

    def close(self) -> None:
        """Let go of everything."""


def difference(before: Counters | None, after: Counters | None) -> Counters | None:
    """What was counted in between."""
    if before is None or after is None:
        return None
    positions = zip(before.accepted_by_position, after.accepted_by_position, strict=True)
    return Counters(
        rounds=after.rounds - before.rounds,
        drafts=after.drafts - before.drafts,
        accepted=after.accepted - before.accepted,
        accepted_by_position=tuple(late - early for early, late in positions),
    )


def blocks_of(served: Served, counters: Counters) -> tuple[Block, ...]:
    """The blocks of one continuation that was alone, where its arrivals show them; else none.

    Arrivals are blocks if there were as many as rounds of drafting. What the last one accepted beyond the end of the
    text follows from the counters: it holds what the others do not.
    """
    steps = served.steps[1:]
    if len(steps) != counters.rounds or not steps:
        return ()
    *before, last = steps
    raw = counters.accepted - sum(step - 1 for step in before)
    if not last - 1 <= raw <= len(counters.accepted_by_position):
        return ()
    whole = [Block(accepted=step - 1, emitted=step, raw_accepted=step - 1) for step in before]
    return (*whole, Block(accepted=min(raw, last), emitted=last, raw_accepted=raw))


def left_at(ids: Sequence[int], reference: Sequence[int]) -> int | None:
    """The output position, from 1, at which `ids` first differ from the reference; `None` if nowhere."""
    return next((place for place, (one, other) in enumerate(zip(ids, reference, strict=True), 1) if one != other), None)
