"""When the race of a language knows enough: its speed-up's interval is narrow, or its time is spent.

Knows timings and the model of the report's own interval, so that what ends a race is the width that is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fairspec_bench.measure import bootstrap, speed
from fairspec_bench.measure.lines import race_sheet
from fairspec_bench.measure.table import estimate
from fairspec_bench.records import Estimate, RunConfig, Timing

HEAT = 8
SECOND = 1_000_000_000
TASK = "raced"


def heats(config: RunConfig, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The raced prompts of a shard as they are raced: a few in all rounds, then the next; all at once if none can end.

    The race may end after each.
    """
    size = HEAT if ends_early(config) else max(1, len(keys))
    for start in range(0, len(keys), size):
        yield tuple(keys[start : start + size])


def ends_early(config: RunConfig) -> bool:
    """Whether a race may end before every prompt was raced."""
    return config.race_width is not None or config.race_budget is not None


def knows_enough(config: RunConfig, timings: Sequence[Timing]) -> bool:
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
    config: RunConfig, shards: Sequence[Sequence[str]], timings_of: Callable[[str], Sequence[Timing]]
) -> list[str]:
    """The prompts of a task that a race by this configuration has, given what was timed.

    `shards` are its raced prompts by shard, in order. A race that went on after it knew enough, or ended before, has
    others: so whoever reads one can tell that it ended by the rule and not by its figures.
    """
    raced: list[str] = []
    timed: list[Timing] = []
    for heat in (heat for keys in shards for heat in heats(config, keys)):
        if timed and ends_early(config) and knows_enough(config, timed):
            break
        raced += heat
        timed += [timing for key in heat for timing in timings_of(key)]
    return raced
