"""What a submitted line must be: the invariants of `schemas.invariants`, and what its track demands.

Symbols are those of METRICS: N output tokens, N − 1 contexts, blocks of γ drafts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.schemas.invariants import (
    FASTEST_STEP_NS,
    Derived,
    block_faults,
    line_faults,
    sweep_faults,
    time_faults,
)
from fairspec_bench.schemas.lines import Answer, Block, DtypeDivergence, Reference, Replay, Throughput, Timing
from fairspec_bench.schemas.stages import MODES, mode_order
from fairspec_bench.submissions.findings import Findings
from fairspec_bench.suites.tracks import Divergence, Track, TrackReference

SUM_TOLERANCE = 1e-3
"""Of sums of float32 figures, per context."""
ENTROPY_SHARE, ENTROPY_NATS = 0.02, 0.05
"""How far the verifier's summed entropy may lie from the reference's: other kernels round otherwise."""
SLOWEST_PROMPT_NS = 3_600 * 10**9
CLOCK_SLACK = 0.1
"""How far the clock may move a ratio of one task. Over the 66 raced tasks of this repository the largest speed-up ÷
block efficiency is .54 and the smallest verify ratio .96."""
FASTER_MACHINE = 10
"""How much faster than the track's own machine another one of its class may be."""
MOST_BYTES_PER_NS = 20_000
"""Twice and more what the fastest memory of an accelerator gives (8 TB/s in 2026)."""
LEAST_READ = 1 / 32
"""The least share of its weights that a step of a mixture of experts reads."""
LEAST_BYTES = 0.5
"""Of a weight that is quantized to 4 bits."""
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
CODES = {
    "prompt_sha": "L004",
    "contexts": "R001",
    "draft_ids": "R001",
    "beta": "R008",
    "first": "T006",
    "tokens": "B002",
    "blocks.emitted": "B002",
    "blocks": "B003",
}
"""The finding of a line that does not fit its reference, by field."""


@dataclass(frozen=True)
class Place:
    """Where a line lies."""

    findings: Findings
    file: str
    line: int

    def add(self, code: str, field: str, got: object, expected: object) -> None:
        self.findings.add(code, self.file, field, got, expected, line=self.line)


def _check_line(line: Derived, reference: Reference, at: Place) -> None:
    for fault in line_faults(line, reference):
        at.add(CODES[fault.field], *fault)


def check_reference(
    reference: Reference, track_reference: TrackReference, track: Track, max_new_tokens: int, stops: bool, at: Place
) -> None:
    """Ids in the vocabulary, an end that is one, and the track's reference."""
    vocabulary, eos = track.vocabulary or 0, set(track.eos_ids or ())
    for wrong in [each for each in reference.ids if not 0 <= each < vocabulary][:1]:
        at.add("T001", "ids", wrong, f"0 to {vocabulary - 1}")
    if end := _wrong_end(reference, eos, max_new_tokens, stops):
        at.add("T002", "finish", *end)
    if reference.prompt_sha != track_reference.prompt_sha:
        at.add("L004", "prompt_sha", reference.prompt_sha, track_reference.prompt_sha)
    if reference.ids != track_reference.ids:
        pairs = zip(reference.ids, track_reference.ids, strict=False)
        place = next((n for n, (here, there) in enumerate(pairs) if here != there), None)
        if place is None:
            at.add("T003", "ids", f"{len(reference.ids)} ids", f"{len(reference.ids)} ids")
        else:
            at.add("T003", f"ids.{place}", reference.ids[place], track_reference.ids[place])
    elif reference.finish != track_reference.finish:
        at.add("T003", "finish", reference.finish, track_reference.finish)


def _wrong_end(reference: Reference, eos: set[int], max_new_tokens: int, stops: bool) -> tuple[str, str] | None:
    if eos.intersection(reference.ids[:-1]):
        return "an end-of-text id inside", "one only as the last id"
    ended = reference.ids[-1] in eos
    if (reference.finish == "eos") != ended:
        return f"{reference.finish}, last id {reference.ids[-1]}", "eos" if ended else "length or stop"
    if len(reference.ids) > max_new_tokens or (reference.finish == "length" and len(reference.ids) != max_new_tokens):
        return f"{reference.finish} after {len(reference.ids)} ids", f"at most {max_new_tokens}"
    if reference.finish == "stop" and not stops:
        return "stop", "eos or length: the suite has no stop strings"
    return None


def check_answer(answer: Answer, track_reference: TrackReference, at: Place) -> None:
    """The verifier's answer is graded as in the reference: its text is the same. Texts themselves are not submitted."""
    for field, there in track_reference.answer.model_dump().items():
        here = getattr(answer, field)
        close = isinstance(here, float) and isinstance(there, float) and math.isclose(here, there, rel_tol=0.01)
        if here != there and not close:
            at.add("T004", field, here, there)


def check_drafter_answer(answer: Answer, at: Place) -> None:
    """A drafter's own answer is self-reported; only what is impossible is found."""
    if answer.text is not None:
        at.add("T004", "text", answer.text, None)
    if answer.language is not None and not LANGUAGE.fullmatch(answer.language):
        at.add("R004", "language", answer.language, "a language code")
    if answer.bytes < answer.chars or answer.bytes > 4 * answer.chars:
        at.add("R004", "bytes", answer.bytes, f"{answer.chars} to {4 * answer.chars}")


def check_replay(
    replay: Replay, reference: Reference, track_reference: TrackReference, track: Track, at: Place
) -> None:
    """Contexts, drafts, alpha and the sums of one replay against its reference."""
    contexts = len(reference.ids) - 1
    _check_line(replay, reference, at)
    vocabulary = track.vocabulary or 0
    for wrong in [each for each in replay.draft_ids if not 0 <= each < vocabulary][:1]:
        at.add("R002", "draft_ids", wrong, f"0 to {vocabulary - 1}")
    _check_alpha(replay, reference, track, at)
    if track.sampling.greedy:
        _check_misses(replay, reference, track_reference.verifier_entropy, at)
    _check_sums(replay, contexts, at)
    there, here = track_reference.verifier_entropy, replay.verifier_entropy
    if there is not None and (here is None or abs(here - there) > ENTROPY_NATS + ENTROPY_SHARE * there):
        at.add("R006", "verifier_entropy", here, there)


def check_divergences(
    replays: Iterable[tuple[Replay, Place]], allowed: Divergence | None, sampling: SamplingParams
) -> None:
    """The verifier that was run here makes the texts of one task, but for near-ties: by no more nats than allowed, and
    in no more of the prompts. A track without an allowed divergence has no such check.
    """
    if allowed is None or not sampling.greedy:
        return
    diverged, count, last = 0, 0, None
    for replay, at in replays:
        if replay.divergences is None or replay.largest_gap is None:
            at.add("T005", "divergences", None, "where the verifier diverges from the reference")
            continue
        count, last = count + 1, at
        diverged += replay.divergences > 0
        if replay.largest_gap > allowed.gap:
            at.add("T005", "largest_gap", replay.largest_gap, f"at most {allowed.gap:g} nats")
    if last is not None and diverged > allowed.share * count:
        last.add("T005", "divergences", f"{diverged} of {count} prompts", f"at most {allowed.share:.1%} of the prompts")


def check_dtype_divergence(divergence: DtypeDivergence, reference: Reference, at: Place) -> None:
    """Where an output leaves float32's: inside it, and of the same prompt. The gap is self-reported."""
    _check_line(divergence, reference, at)


def matches(replay: Replay, reference: Reference) -> list[bool]:
    """Where the greedy draft is the text's token, output positions 2 to N."""
    return [draft == token for draft, token in zip(replay.draft_ids, reference.ids[1:], strict=False)]


def _check_alpha(replay: Replay, reference: Reference, track: Track, at: Place) -> None:
    contexts = len(reference.ids) - 1
    if track.sampling.greedy:
        hits = sum(matches(replay, reference))
        if replay.alpha != hits:
            at.add("R003", "alpha", replay.alpha, hits)
        if replay.beta is not None:
            at.add("R008", "beta", "numbers", "null in greedy decoding")
        return
    if replay.alpha > contexts * (1 + SUM_TOLERANCE):
        at.add("R003", "alpha", replay.alpha, f"at most {contexts}")
    if replay.beta is None or not all(0 <= each <= 1 for each in replay.beta):
        at.add("R008", "beta", replay.beta, f"{contexts} numbers from 0 to 1")


def _check_sums(replay: Replay, contexts: int, at: Place) -> None:
    kl, overlap, entropy, crossed = replay.kl, replay.overlap, replay.verifier_entropy, replay.cross_entropy
    slack = SUM_TOLERANCE * contexts
    if overlap is not None and overlap > contexts + slack:
        at.add("R004", "overlap", overlap, f"at most {contexts}")
    for field, value in {"kl": kl, "verifier_entropy": entropy, "cross_entropy": crossed}.items():
        if value is not None and not -slack <= value < 1e6 * (contexts + 1):
            at.add("R004", field, value, "from 0, and finite for a proper q")
    if kl is None or overlap is None or crossed is None or entropy is None:
        return
    if abs(crossed - kl - entropy) > slack + SUM_TOLERANCE * abs(crossed):
        at.add("R004", "cross_entropy", crossed, kl + entropy)
    if contexts and overlap < contexts - most_distance(kl, contexts) - slack:
        at.add("R005", "overlap", overlap, f"at least {contexts - most_distance(kl, contexts):.6g} at this kl")


def _check_misses(replay: Replay, reference: Reference, entropy: float | None, at: Place) -> None:
    """A draft that is not the text's token is a distance between p and q.

    There q prefers another token than p does, so TV is at least half of p's lead, p₁ − p₂. At entropy h that lead is at
    least 1 − h / ln 2 (it is concave in h, 1 at 0, and 0 where two tokens share all): Σ TV is at least
    (misses − H / ln 2) / 2.
    """
    if replay.overlap is None:
        return
    misses = replay.contexts - sum(matches(replay, reference)) - (replay.divergences or 0)
    distance = replay.contexts - replay.overlap
    least = max(0.0, (misses - (entropy or math.inf) / math.log(2)) / 2) if entropy != 0 else misses / 2
    if misses > 0 and (distance <= 0 or replay.kl == 0 or distance < least - SUM_TOLERANCE * replay.contexts):
        at.add("R009", "overlap", replay.overlap, f"below {replay.contexts - least:.6g}: {misses} drafts miss the text")


def most_distance(kl: float, contexts: int) -> float:
    """The most that Σ TV can be where KL sums to `kl`: the smaller of Pinsker's and Bretagnolle and Huber's bounds."""
    mean = max(kl, 0.0) / contexts
    return contexts * min(math.sqrt(mean / 2), math.sqrt(1 - math.exp(-mean)))


# --------------------------------------------------------------------------- races


def check_timing(
    timing: Timing, reference: Reference, replay: Replay | None, track: Track, *, drafts_each: bool, at: Place
) -> None:
    """One timing against the output it committed and the drafts of the replay.

    `drafts_each`: the drafter makes one forward pass per draft.
    """
    _check_line(timing, reference, at)
    if timing.counters is not None:
        at.add("B003", "counters", "a serving engine's", "null: blocks are counted here")
    if timing.mode == "speculative":
        for fault in block_faults(timing.blocks, track.gamma):
            at.add("B003", *fault)
        if replay is not None and track.sampling.greedy:
            _check_replayed(timing.blocks, blocks_from_matches(matches(replay, reference), track.gamma), at)
    for fault in time_faults(timing, track.gamma, drafts_each=drafts_each):
        at.add("B005", *fault)
    if timing.decode_ns + timing.prefill_ns + timing.drafter_prefill_ns > SLOWEST_PROMPT_NS:
        at.add("B005", "decode_ns", timing.decode_ns, "less than an hour for a prompt")


def _check_replayed(live: Sequence[Block], expected: Sequence[Block], at: Place) -> None:
    for place, (here, there) in enumerate(zip(live, expected, strict=False)):
        if (here.accepted, here.emitted) != (there.accepted, there.emitted):
            at.add("B004", f"blocks.{place}", (here.accepted, here.emitted), (there.accepted, there.emitted))
            return
    if len(live) != len(expected):
        at.add("B004", "blocks", len(live), len(expected))


def check_throughput(line: Throughput, texts: Sequence[Reference], at: Place) -> None:
    """One line of a sweep against the texts of its half, and what no machine can do: a step takes time."""
    for fault in sweep_faults(line, texts):
        at.add("B002", *fault)
    steps = max((math.ceil((len(reference.ids) - 1) / (line.gamma + 1)) for reference in texts), default=0)
    if line.decode_ns < FASTEST_STEP_NS * steps or line.prefill_ns < FASTEST_STEP_NS * len(texts):
        at.add("B005", "decode_ns", (line.prefill_ns, line.decode_ns), f"at least {FASTEST_STEP_NS} ns a step")
    if line.prefill_ns + line.decode_ns > SLOWEST_PROMPT_NS * max(1, len(texts)):
        at.add("B005", "decode_ns", line.decode_ns, "less than an hour for a prompt")


def check_race(timings: Iterable[Timing], rounds: int, seed: int, key: str, at: Place) -> None:
    """Every round of a prompt has each mode once, in the order that the seed gives; no two readings are the same to the
    nanosecond."""
    seen: dict[int, list[Timing]] = {number: [] for number in range(rounds)}
    readings: set[tuple[int, int, str]] = set()
    contexts = set()
    for timing in timings:
        seen.setdefault(timing.round, []).append(timing)
        contexts.add(timing.context)
        reading = (timing.decode_ns, timing.prefill_ns, timing.step_times.model_dump_json())
        if reading in readings and timing.decode_ns:
            at.add("B005", "decode_ns", f"{key}: the same reading twice", "a reading of its own for each run")
        readings.add(reading)
    for number, ran in seen.items():
        modes, orders = sorted(t.mode for t in ran), sorted(t.order for t in ran)
        if number >= rounds or modes != sorted(MODES) or orders != [0, 1, 2]:
            at.add("B001", "mode", f"{key} round {number}: {', '.join(modes) or 'nothing'}", ", ".join(MODES))
        elif (drawn := mode_order(seed, key, number)) != (found := _in_order(ran)):
            at.add("B001", "order", f"{key} round {number}: {', '.join(found)}", ", ".join(drawn))
    if len(contexts) > 1:
        at.add("B002", "context", f"{key}: {sorted(contexts)[:3]}", "one length of the prompt")


def _in_order(timings: Iterable[Timing]) -> tuple[str, ...]:
    return tuple(timing.mode for timing in sorted(timings, key=lambda timing: timing.order))


def check_speed(timings: Sequence[Timing], track: Track, parameters: int | None, task: str, at: Place) -> None:
    """The race of one task against what no honest machine gives.

    A block costs at least one verifier pass, over more tokens than a pass without a drafter has: so a speed-up lies
    below the block efficiency, and `verify_ratio` is not below 1, or below what the track's own run shows. Both are
    taken against the faster of the two runs without a drafter, and the clock is allowed `CLOCK_SLACK`.
    """
    spans = {mode: _span([timing for timing in timings if timing.mode == mode]) for mode in MODES}
    if not all(span.steps and span.decode_ns for span in spans.values()):
        return
    alone = min((spans["autoregressive"], spans["control"]), key=lambda span: span.decode_ns)
    drafted, race = spans["speculative"], track.race
    least = min(1.0, race.verify_ratio if race else 1.0) * (1 - CLOCK_SLACK)
    speedup, most = alone.decode_ns / drafted.decode_ns, drafted.contexts / drafted.steps / least
    if speedup > most:
        at.add("B007", "decode_ns", f"{task}: a speed-up of {speedup:.3f}", f"at most {most:.3f}, by its blocks")
    one, many = (min(spans[m].step_ns for m in ("autoregressive", "control")), drafted.step_ns)
    if many < least * one:
        at.add("B007", "step_times.verify_ns", f"{task}: a verify ratio of {many / one:.3f}", f"at least {least:.3f}")
    fastest = max(read_ns(parameters or 0), race.step_ns / FASTER_MACHINE if race else 0)
    if one < fastest:
        at.add("B007", "step_times.verify_ns", f"{task}: {one:.0f} ns a step", f"at least {fastest:.0f} ns")


def read_ns(parameters: int) -> float:
    """The shortest time, ns, in which the weights that a step needs can be read from any memory."""
    return parameters * LEAST_BYTES * LEAST_READ / MOST_BYTES_PER_NS


class _Span(NamedTuple):
    """Σ over timings of one mode."""

    decode_ns: int
    contexts: int
    verify_ns: int
    steps: int

    @property
    def step_ns(self) -> float:
        return self.verify_ns / self.steps


def _span(timings: Sequence[Timing]) -> _Span:
    return _Span(
        sum(timing.decode_ns for timing in timings),
        sum(timing.tokens - 1 for timing in timings),
        sum(timing.step_times.verify_ns for timing in timings),
        sum(timing.step_times.verify for timing in timings),
    )
