"""A run's lines, checked against each other and laid out as sheets of sums.

Knows the records and which prompt they belong to; takes no ratio and draws no conclusion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np

from fairspec_bench.measure import acceptance, bootstrap, speed, validity
from fairspec_bench.measure.bootstrap import Array, Partition
from fairspec_bench.measure.table import Mask, Measure, Sheet
from fairspec_bench.records import (
    Answer,
    Departure,
    Dropped,
    FairspecError,
    Replay,
    RunConfig,
    SuiteConfig,
    Throughput,
    Timing,
    Trace,
)


@dataclass(frozen=True)
class Lines:
    """Everything a run recorded, in any order. A list that the run has none of is empty."""

    traces: Sequence[Trace] = ()
    answers: Sequence[Answer] = ()
    drafter_answers: Sequence[Answer] = ()
    replays: Sequence[Replay] = ()
    timings: Sequence[Timing] = ()
    dropped: Sequence[Dropped] = ()
    departures: Sequence[Departure] = ()
    throughputs: Sequence[Throughput] = ()


K = TypeVar("K", Trace, Answer, Replay, Dropped, Departure)


@dataclass(frozen=True)
class Book:
    """A run's lines by key, checked against each other."""

    config: RunConfig
    traces: dict[str, Trace]
    answers: dict[str, Answer]
    drafter_answers: dict[str, Answer]
    replays: dict[str, Replay]
    dropped: dict[str, Dropped]
    departures: dict[str, Departure]
    timings: tuple[Timing, ...]
    throughputs: tuple[Throughput, ...]

    def cluster(self, key: str) -> str:
        """The problem a prompt shares with other languages of its suite, else itself."""
        return f"{suite_of(key)}/{self.config.clusters.get(key, key)}"

    @cached_property
    def planned(self) -> Mapping[str, int]:
        """How many prompts the run set out to ask, by task."""
        return Counter(map(task_of, self.config.clusters))

    def keys(self, suite: str) -> list[str]:
        """The prompts of a suite that ran or were dropped, sorted."""
        return sorted(key for key in {*self.traces, *self.dropped} if suite_of(key) == suite)


def task_of(key: str) -> str:
    """`suite/language` of `suite/language/number`."""
    return key.rpartition("/")[0]


def suite_of(key: str) -> str:
    """`suite` of `suite/language/number`."""
    return key.partition("/")[0]


def language_of(task: str) -> str:
    """`language` of `suite/language`."""
    return task.rpartition("/")[2]


def open_book(config: RunConfig, lines: Lines) -> Book:
    """The lines by key. Raises `FairspecError` where two lines claim one prompt or a line belongs to another text."""
    book = Book(
        config,
        traces=_by_key("traces", lines.traces),
        answers=_by_key("answers", lines.answers),
        drafter_answers=_by_key("drafter answers", lines.drafter_answers),
        replays=_by_key("replays", lines.replays),
        dropped=_by_key("dropped", lines.dropped),
        departures=_by_key("departures", lines.departures),
        timings=tuple(sorted(lines.timings, key=lambda t: (t.key, t.round, t.mode))),
        throughputs=tuple(sorted(lines.throughputs, key=sweep_place)),
    )
    tasks = {f"{suite.name}/{language}" for suite in config.suites for language in suite.languages}
    for key in (*book.traces, *book.dropped):
        _need(task_of(key) in tasks, "traces", key, "is of no task of this run")
    for key in (*book.answers, *book.drafter_answers):
        _need(key in book.traces, "answers", key, "has no trace")
    for replay in book.replays.values():
        trace = _trace_of("replays", replay, book)
        length = len(trace.ids) - 1
        lengths = {replay.contexts, len(replay.draft_ids), length if replay.beta is None else len(replay.beta)}
        _need(lengths == {length}, "replays", replay.key, f"does not have the trace's {length} contexts")
    for departure in book.departures.values():
        length = len(_trace_of("departures", departure, book).ids)
        _need((departure.first or 0) <= length, "departures", departure.key, f"is beyond the trace's {length} tokens")
    for timing in book.timings:
        length = len(_trace_of("timings", timing, book).ids)
        emitted = sum(block.emitted for block in timing.blocks)
        _need(timing.tokens == length, "timings", timing.key, f"does not have the trace's {length} tokens")
        unseen = timing.counters is not None and not timing.blocks
        whole = timing.mode != "speculative" or unseen or emitted == length - 1
        _need(whole, "timings", timing.key, f"has blocks of {emitted} tokens, not {length - 1}")
    for before, line in pairwise(book.throughputs):
        _need(sweep_place(before) != sweep_place(line), "sweep", line.shard, f"has round {line.round} twice")
    for line in book.throughputs:
        _need(task_of(line.shard) in tasks, "sweep", line.shard, "is of no task of this run")
    return book


def sweep_place(line: Throughput) -> tuple[str, int, int, int, int]:
    """What a line of a sweep is of: its task's shard, half, batch size, γ and round."""
    return line.shard, line.half, line.batch_size, line.gamma, line.round


def _by_key(what: str, records: Iterable[K]) -> dict[str, K]:
    found: dict[str, K] = {}
    for record in records:
        _need(record.key not in found, what, record.key, "comes twice")
        found[record.key] = record
    return found


def _trace_of(what: str, line: Replay | Timing | Departure, book: Book) -> Trace:
    trace = book.traces.get(line.key)
    if trace is None or trace.prompt_sha != line.prompt_sha:
        raise FairspecError(
            f"{what}: {line.key} has no trace of the same prompt. Delete its shard's lines and run again."
        )
    return trace


def _need(true: bool, what: str, key: str, fault: str) -> None:
    if not true:
        raise FairspecError(f"{what}: {key} {fault}. Delete its shard's lines and run again.")


# --------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Sheets:
    """The sheets of one suite's tasks, off the race and in it, over one partition of their prompts."""

    parts: Partition
    prompts: dict[str, Sheet]
    races: dict[str, Sheet]

    def of(self, measure: Measure) -> dict[str, Sheet]:
        """The sheets that the measure lives on."""
        return self.races if measure.crossed else self.prompts


def suite_sheets(book: Book, suite: SuiteConfig) -> Sheets:
    """Every sum of every prompt of the suite, by task."""
    keys = book.keys(suite.name)
    tasks = [task_of(key) for key in keys]
    names = [f"{suite.name}/{language}" for language in suite.languages]
    parts = bootstrap.partition(
        {name: [book.cluster(key) for key, task in zip(keys, tasks, strict=True) if task == name] for name in names}
    )
    columns = _columns(book, keys, tasks)
    places = parts.rows(map(book.cluster, keys))
    raced = speed.race(timing for timing in book.timings if suite_of(timing.key) == suite.name)
    raced_tasks = [task_of(key) for key in raced.keys]
    prompts, races = {}, {}
    for name in names:
        size = parts.sizes[parts.stratum[name]]
        prompts[name] = Sheet(places, size, columns).only(_where(tasks, name))
        races[name] = race_sheet(raced, list(map(book.cluster, raced.keys)), parts, name).only(
            _where(raced_tasks, name)
        )
    return Sheets(parts, prompts, races)


def _columns(book: Book, keys: list[str], tasks: list[str]) -> dict[str, Array]:
    gamma = book.config.gamma
    columns = acceptance.columns(keys, book.traces, book.replays, book.answers, book.timings, gamma, book.config.gammas)
    columns |= speed.predicted_columns(tasks, task_of, book.timings, columns, gamma)
    languages = [task.rpartition("/")[2] for task in tasks]
    return columns | validity.columns(
        keys, languages, book.traces, book.answers, book.drafter_answers, book.dropped, book.departures
    )


def _where(names: Sequence[str], name: str) -> Mask:
    return np.array([each == name for each in names], dtype=np.bool_)


def race_sheet(raced: speed.Race, clusters: Sequence[str], parts: Partition, task: str) -> Sheet:
    """The race, its rows in the named clusters, as the sheet of a task of `parts`."""
    rounds = sorted(set(raced.rounds))
    turns = np.searchsorted(rounds, raced.rounds) if rounds else np.zeros(0, dtype=np.int64)
    size = parts.sizes[parts.stratum[task]]
    return Sheet(parts.rows(clusters), size, raced.columns, max(1, len(rounds)), turns)
