"""Throughput by batch size and γ: where speculation stops paying, and the best γ.

Each configuration is timed in every round on the same prompts. A figure is a mean over rounds of a logarithm, its
interval Student's t over rounds: it holds for these prompts on this machine. γ is chosen on one half of the prompts and
reported on the other, once for all languages: chosen per language on the prompts that it is reported on, it would look
better than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fairspec_bench.metrics.acceptance import counted_drafts
from fairspec_bench.metrics.acceptance import measures as acceptance_measures
from fairspec_bench.metrics.bootstrap import TAIL, Array, partition
from fairspec_bench.metrics.drafting import off_gamma
from fairspec_bench.metrics.measure import StatTable, estimate, published
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Counters, Throughput
from fairspec_bench.schemas.report import BestGamma, Estimate, Payment, Payoff, SweepCell, SweepReport

AUTOREGRESSIVE = 0
CHOOSES, REPORTS = 0, 1
FEWEST_ROUNDS = 3
SECOND = 1e9


@dataclass(frozen=True)
class Spent:
    """What one task took on some prompts with one batch size and γ: `ns` `[rounds]` of decoding, for `tokens`.

    `latency_ns` `[rounds, prompts]` is each request's, of an engine that serves; else it has no prompts.
    """

    ns: Array
    tokens: int
    latency_ns: Array


Cells = Mapping[tuple[str, int, int, int], Spent]
"""By task, half, batch size and γ."""


def sweep_report(
    throughputs: Iterable[Throughput],
    tasks: Sequence[str],
    clusters: Callable[[Throughput], Sequence[str]] = lambda line: (),
) -> SweepReport | None:
    """The figures of a sweep over these tasks of one suite; `None` where none of them was swept.

    Rounds that some configuration of a task lacks are left out for all of that task. `clusters` are the problems of a
    line's prompts, by which acceptance under load has its interval.
    """
    lines = [line for line in throughputs if _task(line) in tasks]
    cells = sweep_cells(lines)
    accepted = observed_under_load(lines, clusters)
    swept = [task for task in tasks if any(key[0] == task for key in cells)]
    if not swept:
        return None
    batches, gammas = sorted({key[2] for key in cells}), sorted({key[3] for key in cells} - {AUTOREGRESSIVE})
    table = {
        (task, batch, gamma): _cell(cells, task, batch, gamma, accepted.get((task, batch, gamma)))
        for task in swept
        for batch in batches
        for gamma in (AUTOREGRESSIVE, *gammas)
    }
    return SweepReport(
        rounds=min(len(spent.ns) for spent in cells.values()),
        cells=tuple(table.values()),
        payoffs=tuple(
            payoff(task, gamma, {batch: table[task, batch, gamma].speedup for batch in batches})
            for task in swept
            for gamma in gammas
        ),
        best=tuple(best for batch in batches if (best := best_gamma(cells, swept, batch, gammas)) is not None),
    )


def over_rounds(logarithms: Array) -> Estimate:
    """exp of the mean of logarithms `[rounds]` with its 95 % t interval; under 3 rounds the figure alone."""
    rounds = len(logarithms)
    if not rounds or not np.isfinite(logarithms).all():
        return Estimate()
    mean = float(logarithms.mean())
    if rounds < FEWEST_ROUNDS:
        return Estimate(value=float(np.exp(mean)))
    reach = float(stats.t.isf(TAIL, rounds - 1) * logarithms.std(ddof=1) / np.sqrt(rounds))
    return Estimate(value=float(np.exp(mean)), low=float(np.exp(mean - reach)), high=float(np.exp(mean + reach)))


def speedup(plain: Sequence[Spent], drafted: Sequence[Spent]) -> Estimate:
    """Autoregressive / speculative time per token, each summed over tasks and halves and paired by round."""
    return over_rounds(_log_per_token(plain) - _log_per_token(drafted))


def payoff(task: str, gamma: int, speedups: Mapping[int, Estimate]) -> Payoff:
    """Whether γ pays in a task, by its speed-ups by batch size.

    It stops at the smallest batch whose interval lies wholly below 1, and pays if all of them lie wholly above.
    """
    stops = [batch for batch, figure in sorted(speedups.items()) if figure.high is not None and figure.high < 1]
    pays = all(figure.low is not None and figure.low > 1 for figure in speedups.values())
    verdict: Payment = "stops" if stops else "pays" if pays else "undecided"
    return Payoff(task=task, gamma=gamma, verdict=verdict, stops_at=stops[0] if stops else None)


def payoff_words(payoff: Payoff, quiet: bool) -> str:
    """Where a γ stops paying; nothing is said on a noisy machine."""
    if not quiet:
        return "no verdict"
    return f"not from batch {payoff.stops_at}" if payoff.verdict == "stops" else payoff.verdict


def served_within(cells: Sequence[SweepCell]) -> dict[str, list[Estimate]]:
    """The latencies of these cells by the share of requests that stay within them; empty where none was served."""
    found = {"half": [each.latency_p50 for each in cells], "95 %": [each.latency_p95 for each in cells]}
    return {share: [each or Estimate() for each in latencies] for share, latencies in found.items() if any(latencies)}


def best_gamma(cells: Cells, tasks: Sequence[str], batch: int, gammas: Sequence[int]) -> BestGamma | None:
    """The one γ for all tasks at a batch size, chosen on half 0 and reported on half 1; `None` where either is missing.

    The smallest of equal ones is taken. Tasks that lack a half or a γ at this batch have no part in it.
    """
    wanted = [(half, gamma) for half in (CHOOSES, REPORTS) for gamma in (AUTOREGRESSIVE, *gammas)]
    whole = [task for task in tasks if all((task, half, batch, gamma) in cells for half, gamma in wanted)]
    if not whole:
        return None

    def worth(half: int, gamma: int, of: Sequence[str]) -> Estimate:
        plain = [cells[task, half, batch, AUTOREGRESSIVE] for task in of]
        return published(speedup(plain, [cells[task, half, batch, gamma] for task in of]))

    chances = {gamma: worth(CHOOSES, gamma, whole) for gamma in gammas}
    known = {gamma: figure.value for gamma, figure in chances.items() if figure.value is not None}
    if not known:
        return None
    gamma = max(known, key=lambda each: (known[each], -each))
    return BestGamma(
        batch_size=batch,
        gamma=gamma,
        chosen=chances[gamma],
        total=worth(REPORTS, gamma, whole),
        speedup={task: worth(REPORTS, gamma, [task]) for task in whole},
    )


def _cell(cells: Cells, task: str, batch: int, gamma: int, observed: Estimate | None) -> SweepCell:
    """Both halves of a task together."""
    here, plain = (_halves(cells, task, batch, each) for each in (gamma, AUTOREGRESSIVE))
    pace = over_rounds(np.log(SECOND) - _log_per_token(here)) if here else Estimate()
    worth = speedup(plain, here) if gamma != AUTOREGRESSIVE and here and len(here) == len(plain) else Estimate()
    return SweepCell(
        task=task,
        batch_size=batch,
        gamma=gamma,
        tokens_per_second=published(pace),
        speedup=published(worth),
        latency_p50=_latency(here, 50),
        latency_p95=_latency(here, 95),
        acceptance_observed=observed,
    )


def observed_under_load(
    lines: Iterable[Throughput], clusters: Callable[[Throughput], Sequence[str]]
) -> dict[tuple[str, int, int], Estimate]:
    """`acceptance_observed` by task, batch size and γ, its interval by problem, where each request was counted.

    None where a round had other than γ drafts, since the drafts tested do not follow then.
    """
    found: dict[tuple[str, int, int], list[tuple[str, Counters]]] = {}
    for line in lines:
        if line.request_counters:
            counted = zip(clusters(line), line.request_counters, strict=True)
            found.setdefault((_task(line), line.batch_size, line.gamma), []).extend(counted)
    return {key: _observed(each, key[2]) for key, each in found.items()}


def _observed(counted: Sequence[tuple[str, Counters]], gamma: int) -> Estimate:
    if any(off_gamma(each, gamma) for _, each in counted):
        return Estimate()
    parts = partition({"load": [cluster for cluster, _ in counted]})
    drafts = np.array([counted_drafts(each, gamma) for _, each in counted], dtype=np.float64)
    columns = {"live_tested": drafts[:, 0], "live_accepted": drafts[:, 1]}
    sheet = StatTable(parts.rows(cluster for cluster, _ in counted), parts.sizes[0], columns)
    measure = next(each for each in acceptance_measures(gamma) if each.name == "acceptance_observed")
    return published(estimate(measure, sheet))


def _latency(spent: Sequence[Spent], percent: float) -> Estimate | None:
    """What so many percent of the requests of all halves stay within, seconds; `None` where none was served."""
    rounds = min((len(each.ns) for each in spent), default=0)
    waited = [each.latency_ns[:rounds] for each in spent if each.latency_ns.size]
    if not rounds or not waited:
        return None
    return published(over_rounds(np.log(np.percentile(np.concatenate(waited, axis=1), percent, axis=1) / SECOND)))


def _halves(cells: Cells, task: str, batch: int, gamma: int) -> list[Spent]:
    return [cells[key] for half in (CHOOSES, REPORTS) if (key := (task, half, batch, gamma)) in cells]


def _log_per_token(spent: Sequence[Spent]) -> Array:
    """ln of nanoseconds per decoded token by round, float64 `[rounds]`, of as many rounds as all of them have."""
    rounds = min(len(each.ns) for each in spent)
    total = np.sum([each.ns[:rounds] for each in spent], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.float64(total) / np.float64(sum(each.tokens for each in spent))))


def sweep_cells(lines: Iterable[Throughput]) -> dict[tuple[str, int, int, int], Spent]:
    """The lines by what they are of, the rounds in order; only rounds in which everything of the task was timed."""
    found: dict[tuple[str, int, int, int], dict[int, Throughput]] = {}
    for line in lines:
        found.setdefault((_task(line), line.half, line.batch_size, line.gamma), {})[line.round] = line
    rounds: dict[str, set[int]] = {}
    for (task, *_), by_round in found.items():
        rounds[task] = rounds.get(task, set(by_round)) & set(by_round)
    return {
        key: _spent([by_round[turn] for turn in sorted(rounds[key[0]])])
        for key, by_round in found.items()
        if rounds[key[0]]
    }


def _spent(lines: Sequence[Throughput]) -> Spent:
    """One configuration's rounds. A prompt's first token comes of its prefill, which counts only where it is served."""
    first = lines[0]
    return Spent(
        ns=np.array([line.decode_ns for line in lines], dtype=np.float64),
        tokens=first.tokens - (0 if first.latency_ns else first.prompts),
        latency_ns=np.array([line.latency_ns for line in lines], dtype=np.float64),
    )


def _task(line: Throughput) -> str:
    return PromptKey(line.chunk).task
