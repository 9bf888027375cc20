"""Speed, from the timings of a race.

In a race both modes commit the same ids on the same path, so that their times compare; `control` is the baseline run
again (A/A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.measure import Measure, column, ratio
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Mode, StepTimes, Timing
from fairspec_bench.schemas.report import Estimate, RaceStatus, RaceVerdict

NANOSECOND = 1e-9
ENOUGH_ROUNDS = 5
CONTROL_MARGIN = 0.03
"""How far from 1 an A/A ratio may lie: the least difference between two languages that a usual race shows."""
NO_VERDICT: Mapping[str, str] = {
    "no race": "no race",
    "no control": "no A/A control",
    "shared": "timed on a server that others used meanwhile",
    "no interval": "A/A without an interval (too few prompts or rounds)",
}


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
    """The measures of time, by name."""

    def iid(alpha: Array, contexts: Array, cost: Array) -> Array:
        return iid_speedup(alpha / contexts, gamma, cost / contexts)

    return (
        Measure(
            "speedup",
            "Speed-up",
            "1",
            "Autoregressive ÷ speculative decode time, measured on the same prompts and ids, in the same loop, "
            "without prefill.",
            ("plain_ns", "speculative_ns"),
            symbol="S",
            kind="times",
            better="higher",
            crossed=True,
        ),
        Measure(
            "speedup_end_to_end",
            "Speed-up, end to end",
            "1",
            "Autoregressive ÷ speculative time with the prefills of both models.",
            ("plain_total_ns", "speculative_total_ns"),
            kind="times",
            better="higher",
            crossed=True,
        ),
        Measure(
            "control_ratio",
            "Control ratio",
            "1",
            "Decode time of the baseline ÷ decode time of the baseline run again (A/A).",
            ("plain_ns", "control_ns"),
            symbol="A/A",
            kind="ratio",
            note="Unless its interval lies within 1 ± .03, the machine is too noisy for a verdict.",
            crossed=True,
        ),
        Measure(
            "ttft",
            "Time to first token",
            "s",
            "Prefill of both models.",
            ("speculative_first_ns", "runs"),
            seconds,
            better="lower",
            crossed=True,
        ),
        Measure(
            "ttft_autoregressive",
            "Time to first token, verifier alone",
            "s",
            "Prefill of the verifier alone.",
            ("plain_first_ns", "runs"),
            seconds,
            better="lower",
            crossed=True,
        ),
        Measure(
            "seconds_per_answer",
            "Seconds per answer",
            "s",
            "Time of one answer with speculation on the machine named in the report.",
            ("speculative_total_ns", "runs"),
            seconds,
            better="lower",
            crossed=True,
        ),
        Measure(
            "seconds_per_answer_autoregressive",
            "Seconds per answer, verifier alone",
            "s",
            "Time of one answer without speculation on the same machine.",
            ("plain_total_ns", "runs"),
            seconds,
            better="lower",
            crossed=True,
        ),
        Measure(
            "cost_ratio",
            "Cost ratio",
            "1",
            "Mean time in the loop of a drafter step ÷ a verifier step.",
            ("draft_ns", "drafts", "verify_one_ns", "verify_ones"),
            ratio_of_means,
            symbol="c",
            kind="ratio",
            better="lower",
            crossed=True,
        ),
        Measure(
            "verify_ratio",
            "Verify ratio",
            "1",
            "Mean time of the verifier on γ + 1 tokens ÷ on one token.",
            ("verify_ns", "verifies", "verify_one_ns", "verify_ones"),
            ratio_of_means,
            symbol="v",
            kind="ratio",
            better="lower",
            crossed=True,
        ),
        Measure(
            "speedup_predicted",
            "Speed-up, predicted",
            "1",
            "Block efficiency × mean times of the steps inside the loop, pooled over languages, so that "
            "languages differ through acceptance alone.",
            ("predicted_plain_ns", "predicted_speculative_ns"),
            kind="times",
            better="higher",
            note="Shown beside the measured speed-up, never in its place.",
        ),
        Measure(
            "speedup_iid",
            "Speed-up, i.i.d. formula",
            "1",
            "(1 − α^(γ+1)) / ((1 − α)(γc + 1)): assumes independent acceptances and a verification that costs "
            "no more than one step.",
            ("alpha", "contexts", "cost_contexts"),
            iid,
            kind="times",
            better="higher",
            note="It was above the replayed figure in every case tried.",
        ),
    )


# --------------------------------------------------------------------------- sums of each prompt and round


@dataclass(frozen=True)
class Race:
    """The race's table over all tasks, a row per prompt and round: `keys` and `rounds` `[rows]`."""

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

    def step_times(found: Sequence[Timing | None], value: Callable[[StepTimes], float]) -> Array:
        return each(found, lambda timing: value(timing.step_times))

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
            "draft_ns": step_times(pair, lambda p: p.draft_first_ns + p.draft_next_ns),
            "drafts": step_times(pair, lambda p: p.draft_first + p.draft_next),
            "verify_ns": step_times(pair, lambda p: p.verify_ns),
            "verifies": step_times(pair, lambda p: p.verify),
            "verify_one_ns": step_times(plain, lambda p: p.verify_ns),
            "verify_ones": step_times(plain, lambda p: p.verify),
        },
    )


# --------------------------------------------------------------------------- predicted


def predicted_columns(
    tasks: Sequence[str],
    timings: Sequence[Timing],
    prompts: Mapping[str, Array],
    gamma: int,
) -> dict[str, Array]:
    """Predicted times of each prompt, float64 `[prompts]`, NaN where its task was not raced.

    `tasks` names each row's task; `prompts` holds `contexts` and `blocks`. A task's times are those of its raced
    prompts' lengths, pooled over all languages, so that languages of equal lengths differ through acceptance only.
    """
    token, block = _times_by_task(timings, gamma)
    cost = _mean_cost(timings)
    return {
        "predicted_plain_ns": prompts["contexts"]
        * np.array([token.get(task, np.nan) for task in tasks], dtype=np.float64),
        "predicted_speculative_ns": prompts["blocks"]
        * np.array([block.get(task, np.nan) for task in tasks], dtype=np.float64),
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
    step_times = [timing.step_times for timing in timings if timing.mode == "speculative"]
    blocks = sum(p.verify for p in step_times)
    first = _mean(sum(p.draft_first_ns for p in step_times), sum(p.draft_first for p in step_times), none=0.0)
    following = _mean(sum(p.draft_next_ns for p in step_times), sum(p.draft_next for p in step_times), none=0.0)
    rest = _mean(sum(p.verify_ns + p.rest_ns for p in step_times), blocks)
    return first + (gamma - 1) * following + rest


def _times_by_task(timings: Sequence[Timing], gamma: int) -> tuple[dict[str, float], dict[str, float]]:
    times = loop_times(timings, gamma)
    lengths: dict[str, dict[str, int]] = {}
    for timing in timings:
        lengths.setdefault(PromptKey(timing.key).task, {})[timing.key] = length_bucket(timing.context)
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


def race_verdict(
    control: Estimate, rounds: int, margin: float = CONTROL_MARGIN, *, shared: bool = False
) -> RaceVerdict:
    """Whether this machine's clock can be trusted; `control` is the A/A ratio over the whole race.

    Its whole interval must lie within 1 ± `margin`: one that merely covers 1 is as wide as the clock is noisy.
    A server that others use may have been busy in one mode alone, which A/A does not show.
    """
    status: RaceStatus
    if shared:
        return RaceVerdict(status="shared", rounds=rounds, margin=margin)
    if not rounds:
        status = "no race"
    elif control.value is None:
        status = "no control"
    elif control.low is None or control.high is None:
        status = "no interval"
    elif control.low < 1 - margin or control.high > 1 + margin:
        status = "noisy"
    else:
        status = "quiet" if rounds >= ENOUGH_ROUNDS else "few rounds"
    return RaceVerdict(status=status, ratio=control, rounds=rounds, margin=margin)


def race_sentence(verdict: RaceVerdict) -> str:
    """The verdict in one line."""
    ratio = verdict.ratio
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return f"{NO_VERDICT.get(verdict.status, verdict.status)}: no verdict on speed"
    seen = f"A/A {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    if verdict.status == "few rounds":
        return f"{verdict.rounds} rounds, {ENOUGH_ROUNDS} are needed: no verdict on speed ({seen})"
    within = f"within 1 ± {verdict.margin:g}"
    return f"quiet: {seen} is {within}" if verdict.quiet else f"too noisy: no verdict on speed ({seen} is not {within})"


def speed_verdict(speedup: Estimate, quiet: bool) -> str:
    """`faster`, `slower` or `undecided` by the interval; `no verdict` on a noisy machine or without an interval."""
    if not quiet or speedup.low is None or speedup.high is None:
        return "no verdict"
    if speedup.low > 1:
        return "faster"
    return "slower" if speedup.high < 1 else "undecided"
