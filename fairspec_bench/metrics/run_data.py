"""A run's lines, checked against each other and laid out as tables of sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np

from fairspec_bench.metrics import acceptance, bootstrap, speed, validity
from fairspec_bench.metrics.bootstrap import Array, Partition
from fairspec_bench.metrics.measure import Mask, Measure, StatTable
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig, SuiteConfig
from fairspec_bench.schemas.invariants import Derived, line_faults
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import Answer, Dropped, DtypeDivergence, Reference, Replay, Throughput, Timing
from fairspec_bench.schemas.stages import halves, sweep_keys, sweep_place


@dataclass(frozen=True)
class Lines:
    """Everything a run recorded, in any order. A list that the run has none of is empty."""

    references: Sequence[Reference] = ()
    answers: Sequence[Answer] = ()
    drafter_answers: Sequence[Answer] = ()
    replays: Sequence[Replay] = ()
    timings: Sequence[Timing] = ()
    dropped: Sequence[Dropped] = ()
    divergences: Sequence[DtypeDivergence] = ()
    throughputs: Sequence[Throughput] = ()


REPLAYED, RACED = ("alpha", "contexts"), ("plain_ns", "speculative_ns")
"""The sums that are also shown without answers that repeat themselves or are cut."""
K = TypeVar("K", Reference, Answer, Replay, Dropped, DtypeDivergence)


@dataclass(frozen=True)
class RunData:
    """A run's lines by key, checked against each other."""

    config: RunConfig
    references: dict[str, Reference]
    answers: dict[str, Answer]
    drafter_answers: dict[str, Answer]
    replays: dict[str, Replay]
    dropped: dict[str, Dropped]
    divergences: dict[str, DtypeDivergence]
    timings: tuple[Timing, ...]
    throughputs: tuple[Throughput, ...]

    def cluster(self, key: str) -> str:
        """The problem a prompt shares with other languages of its suite, else itself."""
        return f"{PromptKey(key).suite}/{self.config.clusters.get(key, key)}"

    @cached_property
    def planned(self) -> Mapping[str, int]:
        """How many prompts the run set out to ask, by task."""
        return Counter(PromptKey(key).task for key in self.config.clusters)

    def swept_clusters(self, line: Throughput) -> list[str]:
        """The problems of the prompts of a line of a sweep, in the order in which it has them."""
        return [self.cluster(key) for key in halves(sweep_keys(self.config)[line.chunk])[line.half]]

    def keys(self, suite: str) -> list[str]:
        """The prompts of a suite that ran or were dropped, sorted."""
        return sorted(key for key in {*self.references, *self.dropped} if PromptKey(key).suite == suite)


def load_run_data(config: RunConfig, lines: Lines) -> RunData:
    """The lines by key. Raises `FairspecError` where two lines claim one prompt or a line belongs to another text."""
    data = RunData(
        config,
        references=_by_key("references", lines.references),
        answers=_by_key("answers", lines.answers),
        drafter_answers=_by_key("drafter answers", lines.drafter_answers),
        replays=_by_key("replays", lines.replays),
        dropped=_by_key("dropped", lines.dropped),
        divergences=_by_key("divergences", lines.divergences),
        timings=tuple(sorted(lines.timings, key=lambda t: (t.key, t.round, t.mode))),
        throughputs=tuple(sorted(lines.throughputs, key=sweep_place)),
    )
    tasks = {f"{suite.name}/{language}" for suite in config.suites for language in suite.languages}
    for key in (*data.references, *data.dropped):
        _need(PromptKey(key).task in tasks, "references", key, "is of no task of this run")
    for key in (*data.answers, *data.drafter_answers):
        _need(key in data.references, "answers", key, "has no reference")
    made: list[Derived] = [*data.replays.values(), *data.divergences.values(), *data.timings]
    for line in made:
        fault = next(line_faults(line, data.references.get(line.key)), None)
        _need(fault is None, type(line).__name__.lower(), line.key, f"has {fault} as its reference has it")
    for before, swept in pairwise(data.throughputs):
        _need(sweep_place(before) != sweep_place(swept), "sweep", swept.chunk, f"has round {swept.round} twice")
    for swept in data.throughputs:
        _need(PromptKey(swept.chunk).task in tasks, "sweep", swept.chunk, "is of no task of this run")
    return data


def _by_key(what: str, records: Iterable[K]) -> dict[str, K]:
    found: dict[str, K] = {}
    for record in records:
        _need(record.key not in found, what, record.key, "comes twice")
        found[record.key] = record
    return found


def _need(true: bool, what: str, key: str, fault: str) -> None:
    if not true:
        raise FairspecError(f"{what}: {key} {fault}. Restore its file, or delete it and run again.")


# --------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Sheets:
    """The sheets of one suite's tasks, off the race and in it, over one partition of their prompts."""

    parts: Partition
    prompts: dict[str, StatTable]
    races: dict[str, StatTable]

    def of(self, measure: Measure) -> dict[str, StatTable]:
        """The sheets that the measure lives on."""
        return self.races if measure.crossed else self.prompts


def suite_sheets(data: RunData, suite: SuiteConfig) -> Sheets:
    """Every sum of every prompt of the suite, by task."""
    keys = data.keys(suite.name)
    tasks = [PromptKey(key).task for key in keys]
    names = [f"{suite.name}/{language}" for language in suite.languages]
    parts = bootstrap.partition(
        {name: [data.cluster(key) for key, task in zip(keys, tasks, strict=True) if task == name] for name in names}
    )
    columns = _columns(data, keys, tasks)
    places = parts.rows(map(data.cluster, keys))
    raced = speed.race(timing for timing in data.timings if PromptKey(timing.key).suite == suite.name)
    raced = replace(raced, columns=raced.columns | _complete(data, raced.columns, raced.keys, RACED))
    raced_tasks = [PromptKey(key).task for key in raced.keys]
    prompts, races = {}, {}
    for name in names:
        size = parts.sizes[parts.stratum[name]]
        prompts[name] = StatTable(places, size, columns).only(_where(tasks, name))
        races[name] = race_sheet(raced, list(map(data.cluster, raced.keys)), parts, name).only(
            _where(raced_tasks, name)
        )
    return Sheets(parts, prompts, races)


def _columns(data: RunData, keys: Sequence[str], tasks: Sequence[Task]) -> dict[str, Array]:
    gamma = data.config.gamma
    columns = acceptance.columns(
        keys, data.references, data.replays, data.answers, data.timings, gamma, data.config.gammas
    )
    columns |= speed.predicted_columns(tasks, data.timings, columns, gamma)
    columns |= _complete(data, columns, keys, REPLAYED)
    languages = [task.language for task in tasks]
    return columns | validity.columns(
        keys, languages, data.references, data.answers, data.drafter_answers, data.dropped, data.divergences
    )


def _complete(
    data: RunData, columns: Mapping[str, Array], keys: Sequence[str], names: Sequence[str]
) -> dict[str, Array]:
    return validity.complete(columns, keys, data.references, data.answers, names)


def _where(names: Sequence[str], name: str) -> Mask:
    return np.array([each == name for each in names], dtype=np.bool_)


def race_sheet(raced: speed.Race, clusters: Sequence[str], parts: Partition, task: str) -> StatTable:
    """The race, its rows in the named clusters, as the sheet of a task of `parts`."""
    rounds = sorted(set(raced.rounds))
    turns = np.searchsorted(rounds, raced.rounds) if rounds else np.zeros(0, dtype=np.int64)
    size = parts.sizes[parts.stratum[task]]
    return StatTable(parts.rows(clusters), size, raced.columns, max(1, len(rounds)), turns)
