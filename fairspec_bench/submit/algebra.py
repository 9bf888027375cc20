"""What must hold between a prompt's lines: trace, answer, replay and race.

Knows one prompt's records, its reference and the track's rules. Knows no files; where a line lies is passed in.
Symbols are those of METRICS: N output tokens, N − 1 contexts, blocks of γ drafts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairspec_bench.measure.acceptance import blocks_from_matches
from fairspec_bench.records import Answer, Block, Departure, Replay, Rule, Throughput, Timing, Trace
from fairspec_bench.submit.findings import Findings
from fairspec_bench.suite.tracks import Divergence, Reference, Track

SUM_TOLERANCE = 1e-3
"""Of sums of float32 figures, per context."""
ENTROPY_SHARE, ENTROPY_NATS = 0.02, 0.05
"""How far the verifier's summed entropy may lie from the reference's: other kernels round otherwise."""
FASTEST_STEP_NS = 1_000
SLOWEST_PROMPT_NS = 3_600 * 10**9
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
MODES = ("autoregressive", "control", "speculative")


@dataclass(frozen=True)
class Place:
    """Where a line lies."""

    findings: Findings
    file: str
    line: int

    def add(self, code: str, field: str, got: object, expected: object) -> None:
        self.findings.add(code, self.file, field, got, expected, line=self.line)


def check_trace(trace: Trace, reference: Reference, track: Track, cap: int, stops: bool, at: Place) -> None:
    """Ids in the vocabulary, an end that is one, and the reference's text."""
    vocabulary, eos = track.vocabulary or 0, set(track.eos_ids or ())
    for wrong in [each for each in trace.ids if not 0 <= each < vocabulary][:1]:
        at.add("T001", "ids", wrong, f"0 to {vocabulary - 1}")
    if end := _wrong_end(trace, eos, cap, stops):
        at.add("T002", "finish", *end)
    if trace.prompt_sha != reference.prompt_sha:
        at.add("L004", "prompt_sha", trace.prompt_sha, reference.prompt_sha)
    if trace.ids != reference.ids:
        pairs = zip(trace.ids, reference.ids, strict=False)
        place = next((n for n, (here, there) in enumerate(pairs) if here != there), None)
        if place is None:
            at.add("T003", "ids", f"{len(trace.ids)} ids", f"{len(reference.ids)} ids")
        else:
            at.add("T003", f"ids.{place}", trace.ids[place], reference.ids[place])
    elif trace.finish != reference.finish:
        at.add("T003", "finish", trace.finish, reference.finish)


def _wrong_end(trace: Trace, eos: set[int], cap: int, stops: bool) -> tuple[str, str] | None:
    if eos.intersection(trace.ids[:-1]):
        return "an end-of-text id inside", "one only as the last id"
    ended = trace.ids[-1] in eos
    if (trace.finish == "eos") != ended:
        return f"{trace.finish}, last id {trace.ids[-1]}", "eos" if ended else "cap or stop"
    if len(trace.ids) > cap or (trace.finish == "cap" and len(trace.ids) != cap):
        return f"{trace.finish} after {len(trace.ids)} ids", f"cap at {cap}"
    if trace.finish == "stop" and not stops:
        return "stop", "eos or cap: the suite has no stop strings"
    return None


def check_answer(answer: Answer, reference: Reference, at: Place) -> None:
    """The verifier's answer is graded as in the reference: its text is the same. Texts themselves are not submitted."""
    for field, there in reference.answer.model_dump().items():
        here = getattr(answer, field)
        close = isinstance(here, float) and isinstance(there, float) and math.isclose(here, there, rel_tol=0.01)
        if here != there and not close:
            at.add("T004", field, here, there)


def check_drafter_answer(answer: Answer, at: Place) -> None:
    """A drafter's own answer is its submitter's word; only what cannot be is found."""
    if answer.text is not None:
        at.add("T004", "text", answer.text, None)
    if answer.language is not None and not LANGUAGE.fullmatch(answer.language):
        at.add("R004", "language", answer.language, "a language code")
    if answer.bytes < answer.chars or answer.bytes > 4 * answer.chars:
        at.add("R004", "bytes", answer.bytes, f"{answer.chars} to {4 * answer.chars}")


def check_replay(replay: Replay, trace: Trace, reference: Reference, track: Track, at: Place) -> None:
    """Contexts, drafts, alpha and the sums of one replay against its trace."""
    contexts = len(trace.ids) - 1
    if replay.prompt_sha != trace.prompt_sha:
        at.add("L004", "prompt_sha", replay.prompt_sha, trace.prompt_sha)
    for field, count in {"contexts": replay.contexts, "draft_ids": len(replay.draft_ids)}.items():
        if count != contexts:
            at.add("R001", field, count, contexts)
    vocabulary = track.vocabulary or 0
    for wrong in [each for each in replay.draft_ids if not 0 <= each < vocabulary][:1]:
        at.add("R002", "draft_ids", wrong, f"0 to {vocabulary - 1}")
    _check_alpha(replay, trace, track, at)
    _check_sums(replay, contexts, at)
    there, here = reference.verifier_entropy, replay.verifier_entropy
    if there is not None and (here is None or abs(here - there) > ENTROPY_NATS + ENTROPY_SHARE * there):
        at.add("R006", "verifier_entropy", here, there)


def check_departures(replays: Iterable[tuple[Replay, Place]], allowed: Divergence | None, rule: Rule) -> None:
    """The verifier that was run here makes the texts of one task, but for near-ties: by no more nats than allowed, and
    in no more of the prompts. A track that says nothing of it asks nothing.
    """
    if allowed is None or not rule.greedy:
        return
    departed, count, last = 0, 0, None
    for replay, at in replays:
        if replay.departures is None or replay.largest_gap is None:
            at.add("T005", "departures", None, "where the verifier departs from the text")
            continue
        count, last = count + 1, at
        departed += replay.departures > 0
        if replay.largest_gap > allowed.gap:
            at.add("T005", "largest_gap", replay.largest_gap, f"at most {allowed.gap:g} nats")
    if last is not None and departed > allowed.share * count:
        last.add("T005", "departures", f"{departed} of {count} prompts", f"at most {allowed.share:.1%} of the prompts")


def check_departure(departure: Departure, trace: Trace, at: Place) -> None:
    """Where a text leaves float32's: in the text, and of the same prompt. How far is its submitter's word."""
    if departure.prompt_sha != trace.prompt_sha:
        at.add("L004", "prompt_sha", departure.prompt_sha, trace.prompt_sha)
    if (departure.first or 0) > len(trace.ids):
        at.add("T006", "first", departure.first, f"at most {len(trace.ids)}")


def matches(replay: Replay, trace: Trace) -> list[bool]:
    """Where the greedy draft is the text's token, output positions 2 to N."""
    return [draft == token for draft, token in zip(replay.draft_ids, trace.ids[1:], strict=False)]


def _check_alpha(replay: Replay, trace: Trace, track: Track, at: Place) -> None:
    contexts = len(trace.ids) - 1
    if track.rule.greedy:
        hits = sum(matches(replay, trace))
        if replay.alpha != hits:
            at.add("R003", "alpha", replay.alpha, hits)
        if replay.beta is not None:
            at.add("R008", "beta", "numbers", "null under the greedy rule")
        return
    if replay.alpha > contexts * (1 + SUM_TOLERANCE):
        at.add("R003", "alpha", replay.alpha, f"at most {contexts}")
    if replay.beta is None or len(replay.beta) != contexts or not all(0 <= each <= 1 for each in replay.beta):
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


def most_distance(kl: float, contexts: int) -> float:
    """The most that Σ TV can be where KL sums to `kl`: the smaller of Pinsker's and Bretagnolle and Huber's bounds."""
    mean = max(kl, 0.0) / contexts
    return contexts * min(math.sqrt(mean / 2), math.sqrt(1 - math.exp(-mean)))


# --------------------------------------------------------------------------- races


def check_timing(timing: Timing, trace: Trace, replay: Replay | None, track: Track, kind: str, at: Place) -> None:
    """One timing against the text it committed and the drafts of the replay."""
    if timing.prompt_sha != trace.prompt_sha:
        at.add("L004", "prompt_sha", timing.prompt_sha, trace.prompt_sha)
    if timing.tokens != len(trace.ids):
        at.add("B002", "tokens", timing.tokens, len(trace.ids))
    if timing.mode == "speculative":
        _check_blocks(timing.blocks, len(trace.ids) - 1, track.gamma, at)
        if replay is not None and track.rule.greedy:
            _check_replayed(timing.blocks, blocks_from_matches(matches(replay, trace), track.gamma), at)
    elif timing.blocks:
        at.add("B003", "blocks", f"{len(timing.blocks)} blocks", "none without a drafter")
    _check_times(timing, len(trace.ids) - 1, track.gamma, kind, at)


def _check_blocks(blocks: Sequence[Block], contexts: int, gamma: int, at: Place) -> None:
    """accepted ≤ γ; a block emits one more than it accepts, the last one perhaps less; Σ emitted = N − 1."""
    if (emitted := sum(block.emitted for block in blocks)) != contexts:
        at.add("B002", "blocks.emitted", emitted, contexts)
    for place, block in enumerate(blocks):
        last = place == len(blocks) - 1
        whole = block.accepted == block.raw_accepted and block.emitted == block.accepted + 1
        cut = last and block.accepted == min(block.raw_accepted, block.emitted) and block.emitted <= block.raw_accepted
        if block.raw_accepted > gamma or not (whole or cut):
            at.add("B003", f"blocks.{place}", block.model_dump(), f"at most {gamma} accepted, emitted = accepted + 1")
            return


def _check_replayed(live: Sequence[Block], expected: Sequence[Block], at: Place) -> None:
    for place, (here, there) in enumerate(zip(live, expected, strict=False)):
        if (here.accepted, here.emitted) != (there.accepted, there.emitted):
            at.add("B004", f"blocks.{place}", (here.accepted, here.emitted), (there.accepted, there.emitted))
            return
    if len(live) != len(expected):
        at.add("B004", "blocks", len(live), len(expected))


def _check_times(timing: Timing, contexts: int, gamma: int, kind: str, at: Place) -> None:
    pieces, calls = timing.pieces, len(timing.blocks) if timing.mode == "speculative" else contexts
    total = pieces.draft_first_ns + pieces.draft_next_ns + pieces.verify_ns + pieces.rest_ns
    if timing.decode_ns != total:
        at.add("B005", "decode_ns", timing.decode_ns, f"the sum of its pieces, {total}")
    if pieces.verify != calls:
        at.add("B005", "pieces.verify", pieces.verify, calls)
    if pieces.verify_ns < FASTEST_STEP_NS * calls or timing.prefill_ns < FASTEST_STEP_NS:
        at.add("B005", "pieces.verify_ns", pieces.verify_ns, f"at least {FASTEST_STEP_NS} ns a step and a prefill")
    if timing.decode_ns + timing.prefill_ns + timing.drafter_prefill_ns > SLOWEST_PROMPT_NS:
        at.add("B005", "decode_ns", timing.decode_ns, "less than an hour for a prompt")
    negative = [name for name, value in pieces.model_dump().items() if value < 0]
    if negative:
        at.add("B005", f"pieces.{negative[0]}", "a negative number", "0 or more")
    drafted = (pieces.draft_first, pieces.draft_next)
    if timing.mode != "speculative":
        expected: tuple[int, int] | None = (0, 0)
    else:
        expected = (calls, calls * (gamma - 1)) if kind == "model" else None
    if expected is not None and drafted != expected:
        at.add("B005", "pieces.draft", drafted, expected)


def check_throughput(line: Throughput, texts: Sequence[Trace], at: Place) -> None:
    """One line of a sweep against the texts of its half, and what no machine can do: a step takes time."""
    tokens = sum(len(trace.ids) for trace in texts)
    if (line.prompts, line.tokens) != (len(texts), tokens):
        at.add("B002", "tokens", (line.prompts, line.tokens), (len(texts), tokens))
    steps = max((math.ceil((len(trace.ids) - 1) / (line.gamma + 1)) for trace in texts), default=0)
    if line.decode_ns < FASTEST_STEP_NS * steps or line.prefill_ns < FASTEST_STEP_NS * len(texts):
        at.add("B005", "decode_ns", (line.prefill_ns, line.decode_ns), f"at least {FASTEST_STEP_NS} ns a step")
    if line.prefill_ns + line.decode_ns > SLOWEST_PROMPT_NS * max(1, len(texts)):
        at.add("B005", "decode_ns", line.decode_ns, "less than an hour for a prompt")


def check_race(timings: Iterable[Timing], rounds: int, key: str, at: Place) -> None:
    """Every round of a prompt has each mode once, in some order; no two readings are the same to the nanosecond."""
    seen: dict[int, list[Timing]] = {number: [] for number in range(rounds)}
    readings: set[tuple[int, int, str]] = set()
    contexts = set()
    for timing in timings:
        seen.setdefault(timing.round, []).append(timing)
        contexts.add(timing.context)
        reading = (timing.decode_ns, timing.prefill_ns, timing.pieces.model_dump_json())
        if reading in readings and timing.decode_ns:
            at.add("B005", "decode_ns", f"{key}: the same reading twice", "a reading of its own for each run")
        readings.add(reading)
    for number, ran in seen.items():
        modes, orders = sorted(t.mode for t in ran), sorted(t.order for t in ran)
        if number >= rounds or tuple(modes) != MODES or orders != [0, 1, 2]:
            at.add("B001", "mode", f"{key} round {number}: {', '.join(modes) or 'nothing'}", ", ".join(MODES))
    if len(contexts) > 1:
        at.add("B002", "context", f"{key}: {sorted(contexts)[:3]}", "one length of the prompt")
