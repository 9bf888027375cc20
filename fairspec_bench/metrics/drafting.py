"""What was drafted where another engine drafts: whether it did, always by the γ of the run, at any length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Counters, Throughput, Timing

CHANCE = 1e-6
"""Rejections in a row that are less likely than this are no chance."""


def off_gamma(counted: Counters | None, gamma: int) -> bool:
    """Whether rounds had other than `gamma` drafts, so that the drafts tested do not follow from the counts."""
    return counted is not None and counted.drafts != gamma * counted.rounds


def drafting_notes(timings: Iterable[Timing], throughputs: Iterable[Throughput], gamma: int) -> Iterator[str]:
    """What must be said of an engine that did not draft, or not always `gamma` tokens."""
    timings = tuple(timings)
    timed, idle, other = Counter[str](), Counter[str](), Counter[str]()
    rounds, drafts = 0, 0
    for task, counted in _counted(timings, throughputs):
        timed[task] += 1
        idle[task] += counted.rounds == 0
        if off_gamma(counted, gamma):
            other[task] += 1
            rounds, drafts = rounds + counted.rounds, drafts + counted.drafts
    if idle.total():
        yield (
            f"this server drafted nothing for these prompts, by its own counts (decodes): {_shares(idle, timed)}. "
            "Their times are those of decoding without a drafter; is its draft length 0?"
        )
    if other.total():
        yield (
            f"this server's draft length changed: {drafts / max(1, rounds):.2f} drafts a round, not gamma = {gamma} "
            f"(decodes: {_shares(other, timed)}). acceptance_observed needs one length and is not given there."
        )
    yield from _past_length(timings)


def _past_length(timings: Iterable[Timing]) -> Iterator[str]:
    """Whether every draft was rejected for prompts past some length, as where the drafter's context is shorter."""
    known = [
        (timing.context, timing.counters.rounds, timing.counters.accepted_by_position[0])
        for timing in timings
        if timing.counters is not None and timing.counters.rounds and timing.counters.accepted_by_position
    ]
    longest = max((context for context, _, accepted in known if accepted), default=0)
    within = [each for each in known if each[0] <= longest]
    beyond = sum(rounds for context, rounds, _ in known if context > longest)
    if not within or not beyond:
        return
    share = sum(accepted for _, _, accepted in within) / sum(rounds for _, rounds, _ in within)
    if (1 - share) ** beyond < CHANCE:
        prompts = sum(context > longest for context, _, _ in known)
        yield (
            f"no draft was accepted for prompts of more than {longest} tokens ({beyond} rounds in {prompts} decodes; "
            f"up to there {100 * share:.0f} % of first drafts were). Is its context shorter than the verifier's?"
        )


def _counted(timings: Iterable[Timing], throughputs: Iterable[Throughput]) -> Iterator[tuple[str, Counters]]:
    """The task and counts of whatever could be drafted for: a text of one token comes from prefill."""
    for timing in timings:
        if timing.counters is not None and timing.tokens > 1:
            yield PromptKey(timing.key).task, timing.counters
    for swept in throughputs:
        if swept.counters is not None and swept.tokens > swept.prompts:
            yield PromptKey(swept.chunk).task, swept.counters


def _shares(some: Counter[str], of: Counter[str]) -> str:
    return ", ".join(f"{task} {count} of {of[task]}" for task, count in sorted(some.items()) if count)
