"""The host's side of decoding: requests that wait, those in a row of the batch, and what comes of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fairspec_bench.engine.batch import Batch, Request
from fairspec_bench.engine.clock import Clock
from fairspec_bench.engine.ending import ending
from fairspec_bench.engine.finite import not_finite
from fairspec_bench.schemas.lines import Block, Finish, StepTimes

ReferenceIds = Mapping[str, Sequence[int]]
"""The ids to commit for each request, by key."""


@dataclass(frozen=True)
class Decoded:
    """A finished request: output ids run through EOS, the token that completes a stop string, or `max_new_tokens`.

    Times are nanoseconds; `decode_ns` and `step_times` leave out all prefills. Rows of one batch share the time of its
    steps: they mean one request only at batch size 1.
    """

    key: str
    ids: tuple[int, ...]
    finish: Finish
    blocks: tuple[Block, ...]
    prefill_ns: int
    drafter_prefill_ns: int
    decode_ns: int
    step_times: StepTimes


@dataclass
class RunningRequest:
    """A request in a row of the batch; `finish` is set once its output has ended. `models`: drafter and verifier."""

    request: Request
    max_new_tokens: int
    prefill_ns: int
    drafter_prefill_ns: int
    before: dict[str, int]
    models: tuple[str, str]
    ids: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def pos(self) -> int:
        """Slot of the last committed token."""
        return len(self.request.ids) + len(self.ids) - 1

    def extend(self, tokens: Sequence[int], finite: int, eos_ids: frozenset[int]) -> int:
        """Append tokens up to the end of the output; → how many.

        Raises `FairspecError` where one of them depends on scores past the `finite` first ones (`Batch.finite`).
        """
        before = len(self.ids)
        self.ids += tokens
        keep, self.finish = ending(self.ids, before, self.max_new_tokens, self.request.stop, eos_ids)
        del self.ids[keep:]
        place, whose = divmod(finite, len(self.models))
        if before + place < keep:
            raise not_finite(self.request.key, before + place + 1, self.models[whose])
        return keep - before

    def commit(self, tokens: Sequence[int], finite: int, eos_ids: frozenset[int]) -> None:
        """Append a block's accepted drafts and last token, and count it: only what lies inside the output."""
        accepted = len(tokens) - 1
        emitted = self.extend(tokens, finite, eos_ids)
        self.blocks.append(Block(accepted=min(accepted, emitted), emitted=emitted, raw_accepted=accepted))

    def decoded(self, clock: Clock) -> Decoded:
        """The finished request."""
        assert self.finish is not None
        spent = clock.since(self.before)
        return Decoded(
            key=self.request.key,
            ids=tuple(self.ids),
            finish=self.finish,
            blocks=tuple(self.blocks),
            prefill_ns=self.prefill_ns,
            drafter_prefill_ns=self.drafter_prefill_ns,
            decode_ns=spent.pop("decode_ns"),
            step_times=StepTimes(**spent),
        )


class RequestQueue:
    """Requests on their way through a batch: waiting, running (by row), finished."""

    def __init__(self, requests: Iterable[Request], batch: Batch, clock: Clock, eos_ids: frozenset[int]):
        self.waiting, self.running = deque(requests), dict[int, RunningRequest]()
        self.batch, self.clock, self.eos_ids = batch, clock, eos_ids
        batch.clear()

    def admit(self, prefill: Callable[[int, Request], RunningRequest]) -> Iterator[Decoded]:
        """Give every free row to a waiting request, `prefill(row, request)`; yields those that end at once."""
        for row in range(len(self.batch.pos)):
            while self.waiting and row not in self.running:
                self.running[row] = prefill(row, self.waiting.popleft())
                yield from self.finished()

    @property
    def last_slot(self) -> int:
        """The slot of the last token of the row that is furthest."""
        return max(running.pos for running in self.running.values())

    def commit(self, block: Sequence[Sequence[int]]) -> None:
        """Give each running request its part of a block, as `commit` returns it: the first n + 1 tokens."""
        for row, running in self.running.items():
            n, finite, *tokens = block[row]
            running.commit(tokens[: n + 1], finite, self.eos_ids)

    def finished(self) -> Iterator[Decoded]:
        """Those whose output has ended; their rows are free again."""
        for row, running in list(self.running.items()):
            if running.finish is not None:
                self.batch.free(row)
                yield self.running.pop(row).decoded(self.clock)
