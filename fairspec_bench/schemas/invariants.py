"""What must hold between the lines of one prompt, written once: for the writer of a run, its readers and the checker.

Symbols are those of METRICS: N output tokens, N − 1 contexts, blocks of at most γ drafts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fairspec_bench.schemas.lines import Block, DtypeDivergence, Reference, Replay, Throughput, Timing

FASTEST_STEP_NS = 1_000
"""No model takes a step in less."""
Derived = Replay | DtypeDivergence | Timing
"""A line that is made from one reference."""


class Fault(NamedTuple):
    """What of a line cannot be."""

    field: str
    got: object
    expected: object

    def __str__(self) -> str:
        return f"{self.field} is {self.got}, not {self.expected}"


def line_faults(line: Derived, reference: Reference | None) -> Iterator[Fault]:
    """What of a line does not fit the reference that it was made from, by field."""
    if reference is None or line.prompt_sha != reference.prompt_sha:
        yield Fault("prompt_sha", line.prompt_sha, reference and reference.prompt_sha)
    if reference is None:
        return
    tokens = len(reference.ids)
    if isinstance(line, DtypeDivergence):
        if (line.first or 0) > tokens:
            yield Fault("first", line.first, f"at most {tokens}")
    elif isinstance(line, Replay):
        counts = {"contexts": line.contexts, "draft_ids": len(line.draft_ids)}
        counts |= {} if line.beta is None else {"beta": len(line.beta)}
        yield from (Fault(field, count, tokens - 1) for field, count in counts.items() if count != tokens - 1)
    else:
        if line.tokens != tokens:
            yield Fault("tokens", line.tokens, tokens)
        if line.outside_vocabulary is not None and (line.mode != "speculative" or line.outside_vocabulary > tokens - 1):
            yield Fault("outside_vocabulary", line.outside_vocabulary, f"at most {tokens - 1}, of a decode with drafts")
        hidden = line.counters is not None and not line.blocks
        if line.mode != "speculative" and line.blocks:
            yield Fault("blocks", f"{len(line.blocks)} blocks", "none without a drafter")
        elif line.mode == "speculative" and not hidden:
            emitted = sum(block.emitted for block in line.blocks)
            if emitted != tokens - 1:
                yield Fault("blocks.emitted", emitted, tokens - 1)


def sweep_faults(line: Throughput, references: Sequence[Reference]) -> Iterator[Fault]:
    """What of a line of a sweep does not fit the references of its half."""
    expected = (len(references), sum(len(reference.ids) for reference in references))
    if (line.prompts, line.tokens) != expected:
        yield Fault("tokens", (line.prompts, line.tokens), expected)


def block_faults(blocks: Sequence[Block], gamma: int) -> Iterator[Fault]:
    """The first block that cannot be: one emits one token more than it accepts, the last one perhaps less."""
    for place, block in enumerate(blocks):
        last = place == len(blocks) - 1
        whole = block.accepted == block.raw_accepted and block.emitted == block.accepted + 1
        cut = last and block.accepted == min(block.raw_accepted, block.emitted) and block.emitted <= block.raw_accepted
        if block.raw_accepted > gamma or not (whole or cut):
            yield Fault(f"blocks.{place}", block.model_dump(), f"at most {gamma} accepted, emitted = accepted + 1")
            return


def time_faults(timing: Timing, gamma: int, *, drafts_each: bool) -> Iterator[Fault]:
    """What of the times of one of our own decodes cannot be.

    `drafts_each`: the drafter makes one forward pass per draft, so that its steps can be counted.
    """
    steps, contexts = timing.step_times, timing.tokens - 1
    calls = len(timing.blocks) if timing.mode == "speculative" else contexts
    if not timing.separate_steps and timing.decode_ns != steps.total_ns:
        yield Fault("decode_ns", timing.decode_ns, f"the sum of its step times, {steps.total_ns}")
    if steps.verify != calls:
        yield Fault("step_times.verify", steps.verify, calls)
    least = FASTEST_STEP_NS * calls
    if steps.verify_ns < least or timing.decode_ns < least or timing.prefill_ns < FASTEST_STEP_NS:
        yield Fault("step_times.verify_ns", steps.verify_ns, f"at least {FASTEST_STEP_NS} ns a step and a prefill")
    if negative := [name for name, value in steps.model_dump().items() if value < 0]:
        yield Fault(f"step_times.{negative[0]}", "a negative number", "0 or more")
    drafted = (steps.draft_first, steps.draft_next)
    if timing.mode != "speculative":
        expected: tuple[int, int] | None = (0, 0)
    else:
        expected = (calls, calls * (gamma - 1)) if drafts_each else None
    if expected is not None and drafted != expected:
        yield Fault("step_times.draft", drafted, expected)
