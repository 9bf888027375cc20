"""What a person waits for, from the race's clock readings.

Knows times, modes and rounds; knows no acceptance beyond the blocks it multiplies. In a race both modes commit the
same ids on the same path, so a ratio of times compares like with like; `control` is the baseline run again (A/A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.measure.bootstrap import Array
from fairspec_bench.measure.table import Measure, column, ratio
from fairspec_bench.records import Estimate, FairspecError, Mode, Pieces, Timing

NANOSECOND = 1e-9
ENOUGH_ROUNDS = 5
QUIET = "quiet"


def seconds(above: Array, below: Array) -> Array:
    """Σ nanoseconds / Σ below, in seconds."""
    return ratio(above, below) * NANOSECOND


def ratio_of_means(above: Array, above_count: Array, below: Array, below_count: Array) -> Array:
    """(Σ above / its count) / (Σ below / its count)."""
    return (above / above_count) / (below / below_count)


def iid_speedup(acceptance: Array, gamma: int, cost: Array) -> Array:
    """(1 − α^{γ+1}) / ((1 − α)(γc + 1)), arXiv 2211.17192: assumes i.i.d. acceptance and verify(γ+1) = verify(1)."""
    powers = sum(acceptance**power for power in range(gamma + 1))
    return np.asarray(powers / (gamma * cost + 1))


def measures(gamma: int) -> tuple[Measure, ...]:
    """The measures of this room, by their METRICS names."""

    def iid(alpha: Array, contexts: Array, cost: Array) -> Array:
        return iid_speedup(alpha / contexts, gamma, cost / contexts)

    def raced(name: str, unit: str, definition: str, *columns: str, value: Callable[..., Array] = ratio) -> Measure:
        return Measure(name, unit, definition, columns, value, crossed=True)

    return (
        raced(
            "speedup",
            "1",
            "autoregressive / speculative decode time, same prompts and ids",
            "plain_ns",
            "speculative_ns",
        ),
        raced(
            "speedup_end_to_end", "1", "the same with both models' prefills", "plain_total_ns", "speculative_total_ns"
        ),
        raced("control_ratio", "1", "A/A: the baseline / itself; must cover 1", "plain_ns", "control_ns"),
        raced("ttft", "s", "time to first token, both models' prefills", "speculative_first_ns", "runs", value=seconds),
        raced("ttft_autoregressive", "s", "the verifier's prefill alone", "plain_first_ns", "runs", value=seconds),
        raced(
            "seconds_per_answer", "s", "prefills and decode, speculative", "speculative_total_ns", "runs", value=seconds
        ),
        raced(
            "seconds_per_answer_autoregressive",
            "s",
            "prefill and decode, no drafter",
            "plain_total_ns",
            "runs",
            value=seconds,
        ),
        raced(
            "cost_ratio",
            "1",
            "c: mean in-loop drafter step / verifier step on 1 token",
            "draft_ns",
            "drafts",
            "verify_one_ns",
            "verify_ones",
            value=ratio_of_means,
        ),
        raced(
            "verify_ratio",
            "1",
            "v: mean in-loop verifier step on γ + 1 tokens / on 1",
            "verify_ns",
            "verifies",
            "verify_one_ns",
            "verify_ones",
            value=ratio_of_means,
        ),
        Measure(
            "speedup_predicted",
            "1",
            "block_efficiency · t_ar / (t_d2 + (γ−1)·t_d1 + t_verify + t_rest), "
            "times pooled over languages by prompt length and taken as given",
            ("predicted_plain_ns", "predicted_speculative_ns"),
        ),
        Measure(
            "speedup_iid",
            "1",
            "an assumption: acceptances i.i.d., verify(γ+1) = verify(1)",
            ("alpha", "contexts", "cost_contexts"),
            iid,
        ),
    )


# --------------------------------------------------------------------------- sums of each prompt and round


@dataclass(frozen=True)
class Race:
    """The race's sheet over all tasks, a row per prompt and round: `keys` and `rounds` `[rows]`."""

    keys: tuple[str, ...]
    rounds: tuple[int, ...]
    columns: dict[str, Array]


def race(timings: Iterable[Timing]) -> Race:
    """The timings side by side by prompt and round. Raises `FairspecError` for a mode timed twice in one of them."""
    cells: dict[tuple[str, int], dict[Mode, Timing]] = {}
    for timing in timings:
        cell = cells.setdefault((timing.key, timing.round), {})
        if timing.mode in cell:
            raise FairspecError(
                f"timings: {timing.key} has two {timing.mode} lines in round {timing.round}. Remove one of the two."
            )
        cell[timing.mode] = timing
    rows = sorted(cells)
    plain = [cells[row].get("autoregressive") for row in rows]
    pair = [cells[row].get("speculative") for row in rows]
    again = [cells[row].get("control") for row in rows]

    def each(found: Sequence[Timing | None], value: Callable[[Timing], float]) -> Array:
        return column(None if timing is None else value(timing) for timing in found)

    def pieces(found: Sequence[Timing | None], value: Callable[[Pieces], float]) -> Array:
        return each(found, lambda timing: value(timing.pieces))

    return Race(
        keys=tuple(key for key, _ in rows),
        rounds=tuple(turn for _, turn in rows),
        columns={
            "runs": np.ones(len(rows)),
            "plain_ns": each(plain, lambda t: t.decode_ns),
            "plain_total_ns": each(plain, lambda t: t.prefill_ns + t.decode_ns),
            "plain_first_ns": each(plain, lambda t: t.prefill_ns),
            "control_ns": each(again, lambda t: t.decode_ns),
            "speculative_ns": each(pair, lambda t: t.decode_ns),
            "speculative_total_ns": each(pair, lambda t: t.prefill_ns + t.drafter_prefill_ns + t.decode_ns),
            "speculative_first_ns": each(pair, lambda t: t.prefill_ns + t.drafter_prefill_ns),
            "draft_ns": pieces(pair, lambda p: p.draft_first_ns + p.draft_next_ns),
            "drafts": pieces(pair, lambda p: p.draft_first + p.draft_next),
            "verify_ns": pieces(pair, lambda p: p.verify_ns),
            "verifies": pieces(pair, lambda p: p.verify),
            "verify_one_ns": pieces(plain, lambda p: p.verify_ns),
            "verify_ones": pieces(plain, lambda p: p.verify),
        },
    )


# --------------------------------------------------------------------------- predicted


def predicted_columns(
    tasks: Sequence[str],
    task_of: Callable[[str], str],
    timings: Sequence[Timing],
    prompts: Mapping[str, Array],
    gamma: int,
) -> dict[str, Array]:
    """Predicted times of each prompt, float64 `[prompts]`, NaN where its task was not raced.

    `tasks` names each row's task; `prompts` holds `contexts` and `blocks`. A task's times are those of its raced
    prompts' lengths, pooled over all languages, so that languages of equal lengths differ through acceptance only.
    """
    token, block = _times_by_task(task_of, timings, gamma)
    cost = _mean_cost(timings)
    return {
        "predicted_plain_ns": prompts["contexts"] * column(token.get(task) for task in tasks),
        "predicted_speculative_ns": prompts["blocks"] * column(block.get(task) for task in tasks),
        "cost_contexts": prompts["contexts"] * cost,
    }


def length_bucket(context: int) -> int:
    """Prompts whose lengths share a power of two are timed together."""
    return context.bit_length()


def loop_times(timings: Iterable[Timing], gamma: int) -> dict[int, tuple[float, float]]:
    """By length bucket: mean nanoseconds of an autoregressive token and of a speculative block, inside the loop."""
    buckets: dict[int, list[Timing]] = {}
    for timing in timings:
        buckets.setdefault(length_bucket(timing.context), []).append(timing)
    return {bucket: (_token_ns(found), _block_ns(found, gamma)) for bucket, found in buckets.items()}


def _token_ns(timings: Sequence[Timing]) -> float:
    plain = [timing for timing in timings if timing.mode == "autoregressive"]
    return _mean(sum(t.decode_ns for t in plain), sum(t.tokens - 1 for t in plain))


def _block_ns(timings: Sequence[Timing], gamma: int) -> float:
    pieces = [timing.pieces for timing in timings if timing.mode == "speculative"]
    blocks = sum(p.verify for p in pieces)
    first = _mean(sum(p.draft_first_ns for p in pieces), sum(p.draft_first for p in pieces), none=0.0)
    following = _mean(sum(p.draft_next_ns for p in pieces), sum(p.draft_next for p in pieces), none=0.0)
    rest = _mean(sum(p.verify_ns + p.rest_ns for p in pieces), blocks)
    return first + (gamma - 1) * following + rest


def _times_by_task(
    task_of: Callable[[str], str], timings: Sequence[Timing], gamma: int
) -> tuple[dict[str, float], dict[str, float]]:
    times = loop_times(timings, gamma)
    lengths: dict[str, dict[str, int]] = {}
    for timing in timings:
        lengths.setdefault(task_of(timing.key), {})[timing.key] = length_bucket(timing.context)
    token, block = {}, {}
    for task, buckets in lengths.items():
        token[task] = float(np.mean([times[bucket][0] for bucket in buckets.values()]))
        block[task] = float(np.mean([times[bucket][1] for bucket in buckets.values()]))
    return token, block


def _mean_cost(timings: Iterable[Timing]) -> float:
    columns = race(timings).columns
    names = ("draft_ns", "drafts", "verify_one_ns", "verify_ones")
    draft, drafts, verify, verifies = (float(np.nansum(columns[name])) for name in names)
    return (draft / drafts) / (verify / verifies) if drafts and verify else np.nan


def _mean(total: float, count: int, none: float = np.nan) -> float:
    return total / count if count else none


# --------------------------------------------------------------------------- verdicts


def covers_one(control: Estimate) -> bool:
    """Whether the A/A interval exists and holds 1: only then may a speed-up be called one."""
    return control.low is not None and control.high is not None and control.low <= 1 <= control.high


def race_verdict(control: Estimate, rounds: int) -> str:
    """One line on whether this machine's clock can be trusted; `control` is the A/A ratio over the whole race."""
    if not rounds:
        return "no race: no verdict on speed"
    if control.value is None:
        return "no A/A control: no verdict on speed"
    if control.low is None or control.high is None:
        return "A/A without an interval (too few prompts or rounds): no verdict on speed"
    seen = f"A/A {control.value:.3f} [{control.low:.3f}, {control.high:.3f}]"
    if not covers_one(control):
        return f"too noisy: no verdict on speed ({seen} does not cover 1)"
    few = f", but only {rounds} rounds of at least {ENOUGH_ROUNDS}" if rounds < ENOUGH_ROUNDS else ""
    return f"{QUIET}: {seen} covers 1{few}"


def speed_verdict(speedup: Estimate, quiet: bool) -> str:
    """`faster`, `slower` or `undecided` by the interval; `no verdict` on a noisy machine or without an interval."""
    if not quiet or speedup.low is None or speedup.high is None:
        return "no verdict"
    if speedup.low > 1:
        return "faster"
    return "slower" if speedup.high < 1 else "undecided"
