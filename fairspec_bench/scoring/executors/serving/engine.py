"""What a serving engine must do: continue prompts, some at once, and count its own speculation.

One more engine is a file of its own with a `ServingEngine`, and an entry in `schemas.backends.BACKENDS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Block, Counters
from fairspec_bench.schemas.prompts import StopCheck

if TYPE_CHECKING:
    from fairspec_bench.schemas.options import ModelSpec, RunOptions
    from fairspec_bench.scoring.executors.serving.model_files import Card

ADDRESS = "base_url"
"""The option of a model that names a server which has it."""
SHARED = "shared"
"""The option of a model whose server others use meanwhile: its times have no verdict."""


class EngineRequest(NamedTuple):
    """A prompt to continue greedily by `tokens` tokens, whatever they are; or until `stop` says that it ended."""

    key: str
    ids: tuple[int, ...]
    tokens: int
    stop: StopCheck | None = None


@dataclass
class ServedRequest:
    """A continuation as it arrives. Times are of one monotonic clock, nanoseconds.

    `steps` are how many tokens each arrival brought; the first is that of the prefill. `counters` are what the engine
    counted for this request, `None` where it does not say.
    """

    wanted: EngineRequest
    asked_ns: int
    ids: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0
    counters: Counters | None = None

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
class RequestBatch:
    """What was served together: in the order wanted, and from when to when."""

    served: tuple[ServedRequest, ...]

    @property
    def counters(self) -> tuple[Counters, ...] | None:
        """What the engine counted for each request; `None` unless it says so of every one."""
        found = tuple(one.counters for one in self.served if one.counters is not None)
        return found if len(found) == len(self.served) else None

    @property
    def wall_ns(self) -> int:
        """From the first request to the last token."""
        return max(one.last_ns for one in self.served) - min(one.asked_ns for one in self.served)


class Engine(Protocol):
    """A model being served, with a drafter or without."""

    def serve(self, wanted: Sequence[EngineRequest], at_once: int) -> RequestBatch:
        """Continue all of them, `at_once` under way at any time while there are so many. Raises `FairspecError`."""

    def counters(self) -> Counters | None:
        """What it counted since it started, all requests together; `None` without a drafter."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class Speculation:
    """A drafter in the words of an engine; `model` is its card where it has weights.

    `shares_vocabulary`: whether it must have the verifier's tokens, as a causal model of its own must. `noted` is what
    the run's configuration keeps beside the options that were given.
    """

    options: Mapping[str, Any]
    model: Card | None
    shares_vocabulary: bool = False
    noted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str | None:
        return self.model.identity if self.model else None


class ServingEngine(Protocol):
    """A kind of engine: `name` is the backend, `title` what messages call it."""

    name: str
    title: str

    def check(self, ask: RunOptions) -> None:
        """Refuse what this engine cannot do, and a machine that it is not on. Raises `FairspecError`."""

    def speculation(self, drafter: ModelSpec, gamma: int) -> Speculation:
        """The drafter in the engine's words. Raises `FairspecError` for one it has none for."""

    def start(self, ask: RunOptions, verifier: Card, drafter: Speculation | None, speculates: bool) -> Engine:
        """Start one engine, or connect to its server, that `speculates` or not. Raises `FairspecError`."""


def count(name: str, value: float) -> int:
    """A count that an engine reports. Raises `FairspecError` for one that is negative or not finite."""
    if not 0 <= value < math.inf:
        raise FairspecError(f"{name}: the engine reports {value}, which is not a count. Restart it, or update it.")
    return int(value)


def difference(before: Counters, after: Counters) -> Counters:
    """What was counted in between. Raises `FairspecError` where a counter fell, as by a restart."""
    early, late = ((each.rounds, each.drafts, each.accepted, *each.accepted_by_position) for each in (before, after))
    rounds, drafts, accepted, *positions = (new - old for old, new in zip_longest(early, late, fillvalue=0))
    if min(rounds, drafts, accepted, *positions) < 0:
        raise FairspecError(f"the engine's counters fell from {early} to {late}. Was it restarted? Run again.")
    return Counters(rounds=rounds, drafts=drafts, accepted=accepted, accepted_by_position=tuple(positions))


def total(counted: Sequence[Counters]) -> Counters:
    """The counts of several requests together."""
    positions = zip_longest(*(each.accepted_by_position for each in counted), fillvalue=0)
    return Counters(
        rounds=sum(each.rounds for each in counted),
        drafts=sum(each.drafts for each in counted),
        accepted=sum(each.accepted for each in counted),
        accepted_by_position=tuple(map(sum, positions)),
    )


def refuse_impossible(counted: Counters, tokens: int) -> None:
    """Raise `FairspecError` for counts that decoding so many tokens cannot give: a round emits at least one."""
    stood = max((counted.accepted, *counted.accepted_by_position))
    if (
        counted.rounds > tokens
        or stood > counted.drafts
        or max(counted.accepted_by_position, default=0) > counted.rounds
    ):
        raise FairspecError(
            f"the engine counted {counted.rounds} rounds, {counted.drafts} drafts and {counted.accepted} accepted for "
            f"{tokens} tokens: not of these requests alone. Make sure that nobody else uses it, and run again."
        )


def blocks_of(served: ServedRequest, counters: Counters) -> tuple[Block, ...]:
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


def diverged_at(ids: Sequence[int], reference: Sequence[int]) -> int | None:
    """The output position, from 1, at which `ids` first differ from the reference; `None` if nowhere."""
    return next((place for place, (one, other) in enumerate(zip(ids, reference, strict=True), 1) if one != other), None)
