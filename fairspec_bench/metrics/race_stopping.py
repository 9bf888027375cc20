"""When the race of a task may end: its speed-up's interval is narrow, or its time is spent.

The interval is the report's own, so that what ends a race is the width that is published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairspec_bench.metrics import bootstrap, speed
from fairspec_bench.metrics.measure import estimate
from fairspec_bench.metrics.run_data import race_sheet
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.lines import Timing
from fairspec_bench.schemas.report import Estimate
from fairspec_bench.schemas.stages import ends_early, race_batches

SECOND = 1_000_000_000
TASK = "raced"


def race_decided(config: RunConfig, timings: Sequence[Timing]) -> bool:
    """Whether the race of one task may end, by all its timings so far."""
    if config.race_budget is not None and spent_ns(timings) > config.race_budget * SECOND:
        return True
    return config.race_width is not None and narrow(task_speedup(config, timings), config.race_width)


def narrow(figure: Estimate, width: float) -> bool:
    """Whether half the interval is at most `width` of the figure; without an interval it is not."""
    if figure.value is None or figure.low is None or figure.high is None:
        return False
    return figure.high - figure.low <= 2 * width * figure.value


def task_speedup(config: RunConfig, timings: Sequence[Timing]) -> Estimate:
    """The speed-up of one task with the interval of the report: prompts by problem, crossed with rounds."""
    raced = speed.race(timings)
    clusters = [config.clusters.get(key, key) for key in raced.keys]
    parts = bootstrap.partition({TASK: clusters})
    speedup = next(each for each in speed.measures(config.gamma) if each.name == "speedup")
    return estimate(speedup, race_sheet(raced, clusters, parts, TASK))


def spent_ns(timings: Sequence[Timing]) -> int:
    """All that was timed, prefills included."""
    return sum(each.prefill_ns + each.drafter_prefill_ns + each.decode_ns for each in timings)


def raced_prefix(
    config: RunConfig, chunks: Sequence[Sequence[str]], timings_of: Callable[[str], Sequence[Timing]]
) -> list[str]:
    """The prompts of a task that a race by this configuration has, given what was timed.

    `chunks` are its raced prompts by chunk, in order. A race that went on after it was decided, or ended before, has
    others: so a reader can tell that it ended by the rule and not by its figures.
    """
    raced: list[str] = []
    timed: list[Timing] = []
    for batch in (batch for keys in chunks for batch in race_batches(config, keys)):
        if timed and ends_early(config) and race_decided(config, timed):
            break
        raced += batch
        timed += [timing for key in batch for timing in timings_of(key)]
    return raced
