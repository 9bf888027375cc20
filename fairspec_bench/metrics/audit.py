"""What an audit finds: whether the drafter named made the lines, and whether its acceptance falls on unseen prompts.

No model is run: the verdicts follow from an audit's record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy import stats

from fairspec_bench.metrics import bootstrap
from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.catalogue import measures
from fairspec_bench.metrics.measure import Joint, StatTable, assemble, column, estimate, linear, published
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.schemas.submission import Audit, AuditedRace, AuditedTask, FreshTask


@dataclass(frozen=True)
class Allowance:
    """How far an honest drafter may lie from its own lines: the share of contexts with another draft, the mean
    difference of the chance of acceptance, the difference of misfit (nats) and of overlap, and how much more acceptance
    than was found may be claimed, once that is no chance. One task: `TASK` times.
    """

    drafts: float
    chances: float
    sums: float
    gain: float


TASK = 4
ALLOWED: Mapping[str, Allowance] = {
    "float32": Allowance(drafts=0.001, chances=0.001, sums=0.0005, gain=0.0005),
    "float16": Allowance(drafts=0.004, chances=0.002, sums=0.0005, gain=0.001),
    "bfloat16": Allowance(drafts=0.025, chances=0.01, sums=0.005, gain=0.003),
}
"""From the built-in drafter beside itself, 5 prompts of each of 22 tasks at a time (the worst task in brackets).

In float32 other batches and threads changed none of 151,983 drafts and no sum by 5e-6. Its logits are off by 2e-5 at
most; a draft in a thousand turns where they are off by 1e-3. On the same weights float16 lay .0018 (.007) of drafts,
.0005 (.004) in chances and .0001 (.0007) nats from float32, bfloat16 .011 (.040), .004 (.013) and .001 (.010). Either
of two honest runs may lie that far from the exact figures, hence about twice that.

Ten steps of training at the default rate of 2e-5 lay .0013–.0033, .0004–.0013 and .0012–.0015 nats away, which float32
shows and bfloat16 does not; at 2e-4 it was .08, .03 and .04.
"""
FALSE_ALARM = 0.01
"""The chance that rounding alone, as often up as down, looks like a gain in any task or over all."""
SAMPLE = 45
"""Prompts of each task that are scored again: so many, drawn at random, miss a language that was lifted by .05 less
than one time in twenty, by simulation (`tests/submissions/test_audit.py`)."""
MARGIN = 0.02
"""How much more a drafter may accept on public prompts.

With 10 to 40 fresh prompts a task the mean of 22 tasks was −.003 to +.011 for the built-in drafter, two fine-tuned
ones and a balanced one, and no lower end was above +.0002; for tables
of the public references' 5- and 8-grams it was +.038
to +.092, in single tasks up to +.19.
"""
TELLING = 0.025
"""Half the width of the widest interval of the mean that tells; the built-in drafter's was .01 with 10 prompts."""
TIMES = 0.1
"""By what share of itself a speed-up may be claimed higher than found, in the mean over tasks; in one, `TASK` times."""
REPLICATES = 10_000
ACCEPTANCE = measures(1)["acceptance"]


def rule_in_words(dtype: str) -> str:
    """What passing means, for a track of that dtype."""
    allowed = ALLOWED[dtype]
    return (
        f"Reproduced, in {dtype} on any kernels: over all sampled contexts at most {allowed.drafts:.1%} of drafts "
        f"differ, the chance of acceptance differs by at most {allowed.chances:g} on average, misfit (nats) and "
        f"overlap of the tasks by at most {allowed.sums:g}; in no single task by more than {TASK} times that; one "
        f"context more is always allowed. Acceptance is not claimed higher than "
        f"found beyond chance ({FALSE_ALARM:.0%} of honest audits) and by more than {allowed.gain:g} over all, "
        f"{TASK} times that in a task. Generalises: the 95 % interval of acceptance on public − on fresh prompts "
        f"does not lie above {MARGIN:g}, neither that of the mean over tasks nor, at once, that of any task; not told "
        f"where the interval of the mean is wider than ± {TELLING:g}. Times: the speed-ups of the raced prompts are "
        f"claimed at most {TIMES:.0%} above those found, by the 95 % interval of the mean over tasks, and in no task "
        f"more than {TASK * TIMES:.0%} above."
    )


# --------------------------------------------------------------------------- the same prompts again


def reproduced(tasks: Sequence[AuditedTask], dtype: str) -> bool:
    """Whether the lines are the drafter's own: within what is allowed over all contexts, and in each task.

    False where there is nothing to go by.
    """
    allowed = ALLOWED[dtype]
    groups = [(tasks, 1), *(([task], TASK) for task in tasks)]
    limit = NormalDist().inv_cdf(1 - FALSE_ALARM / len(groups))
    return bool(tasks) and all(
        _within(mine, allowed, times) and not _gains(mine, limit, times * allowed.gain) for mine, times in groups
    )


def _gains(tasks: Sequence[AuditedTask], limit: float, most: float) -> bool:
    """Whether acceptance is claimed higher than found: by more than `most`, and beyond chance.

    Rounding turns contexts one way as often as the other: Σ d / √Σ d² over contexts is then about normal (in greedy
    decoding McNemar's test). False for audits of 0.1, which kept no signs.
    """
    contexts = sum(task.contexts for task in tasks)
    gain = sum((task.chance_gain or 0.0) * task.contexts for task in tasks)
    squares = sum((task.chance_squares or 0.0) * task.contexts for task in tasks)
    return gain > most * contexts and gain > limit * math.sqrt(squares)


def enough(audit: Audit, prompts: Mapping[str, int]) -> bool:
    """Whether an audit scored as many prompts again as its power rests on, in every task (of so many `prompts`)."""
    sampled = {task.task: task.prompts for task in audit.sample}
    return all(sampled.get(task, 0) >= min(SAMPLE, count) for task, count in prompts.items())


def _within(tasks: Sequence[AuditedTask], allowed: Allowance, times: float) -> bool:
    contexts = sum(task.contexts for task in tasks)

    def mean(value: Callable[[AuditedTask], float]) -> float:
        return sum(value(task) * task.contexts for task in tasks) / contexts

    def chance(task: AuditedTask) -> float:
        return max(task.chance_difference, _apart(task.acceptance_claimed, task.acceptance_found))

    return (
        mean(lambda task: 1 - task.same_drafts) <= times * allowed.drafts + 1 / contexts
        and mean(chance) <= times * allowed.chances + 1 / contexts
        and mean(lambda task: _apart(task.misfit_claimed, task.misfit_found)) <= times * allowed.sums
        and mean(lambda task: _apart(task.overlap_claimed, task.overlap_found)) <= times * allowed.sums
    )


def _apart(claimed: float | None, found: float | None) -> float:
    """How far two figures lie apart; one that only one side has is infinitely far."""
    if claimed is None or found is None:
        return 0.0 if claimed is found else np.inf
    return abs(found - claimed)


# --------------------------------------------------------------------------- the same races again


def times_reproduced(races: Sequence[AuditedRace]) -> bool | None:
    """Whether the speed-ups claimed were found again: the mean over tasks of ln(claimed / found) and its 95 % interval.

    `None` where the interval holds the limit, or there are fewer than three tasks.
    """
    apart = np.log([race.claimed / race.found for race in races])
    if len(apart) < 3:
        return None
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    most = np.log1p(TIMES)
    if apart.mean() - half > most or apart.max() > np.log1p(TASK * TIMES):
        return False
    return True if apart.mean() + half <= most else None


# --------------------------------------------------------------------------- unseen prompts


class AuditLine(NamedTuple):
    """What is known of one prompt: its task, its cluster, Σ alpha and the number of contexts."""

    task: str
    cluster: str
    alpha: float
    contexts: float


def fall(public: Sequence[AuditLine], fresh: Sequence[AuditLine]) -> tuple[tuple[FreshTask, ...], Estimate]:
    """Acceptance on public − on fresh prompts, of every task that has both, and the mean over these tasks.

    The samples are independent, so the variances add up: t intervals with Welch and Satterthwaite's degrees of freedom,
    those of the tasks simultaneous.
    """
    tasks = {line.task for line in public if line.contexts} & {line.task for line in fresh if line.contexts}
    if not tasks:
        return (), Estimate()
    (here, first), (there, second) = (_laid_out(lines, tasks) for lines in (public, fresh))
    both = Joint(
        tasks=first.tasks,
        value=first.value - second.value,
        influence=np.concatenate([first.influence, -second.influence]),
        strata=np.concatenate([first.strata, second.strata + 1 + first.strata.max()]),
        fewest=min(first.fewest, second.fewest),
    )
    each, (mean,) = _estimates(both, np.eye(len(tasks))), _estimates(both, np.full((1, len(tasks)), 1 / len(tasks)))
    found = tuple(
        FreshTask(
            task=task,
            prompts=sum(line.task == task for line in fresh),
            public=published(estimate(ACCEPTANCE, here[task])),
            fresh=published(estimate(ACCEPTANCE, there[task])),
            difference=difference,
        )
        for task, difference in zip(both.tasks, each, strict=True)
    )
    return found, mean


def _laid_out(lines: Sequence[AuditLine], tasks: Iterable[str]) -> tuple[dict[str, StatTable], Joint]:
    """Each task's table and their joint distribution, tasks sorted."""
    mine = {task: [line for line in lines if line.task == task and line.contexts] for task in sorted(tasks)}
    parts = bootstrap.partition({task: [line.cluster for line in own] for task, own in mine.items()})
    sheets = {
        task: StatTable(
            parts.rows(line.cluster for line in own),
            parts.sizes[parts.stratum[task]],
            {"alpha": column(line.alpha for line in own), "contexts": column(line.contexts for line in own)},
        )
        for task, own in mine.items()
    }
    found = {task: one for task, sheet in sheets.items() if (one := linear(ACCEPTANCE, sheet))}
    return sheets, assemble(found, parts)


def _estimates(both: Joint, contrasts: Array) -> list[Estimate]:
    """`contrasts @ value`, `[K]`, with bounds that hold for all K at once."""
    values = (contrasts @ both.value).tolist()
    bounds = both.bounds(contrasts, REPLICATES)
    if bounds is None:
        return [published(Estimate(value=value)) for value in values]
    ends = zip(values, *(end.tolist() for end in bounds), strict=True)
    return [published(Estimate(value=value, low=low, high=high)) for value, low, high in ends]


def generalises(tasks: Sequence[FreshTask], over_all: Estimate) -> bool | None:
    """Whether no interval of public − fresh lies above `MARGIN`; `None` where that of the mean is too wide to tell."""
    lows = [figure.low for figure in (over_all, *(task.difference for task in tasks))]
    if any(low is not None and low > MARGIN for low in lows):
        return False
    if over_all.low is None or over_all.high is None or (over_all.high - over_all.low) / 2 > TELLING:
        return None
    return True
