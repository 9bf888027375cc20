"""A run: every unit of it made by an executor and kept, then the report.

Knows what each stage of a shard is made of, and from what of other units. The folder knows how it is kept, `measure`
what it means, an executor who makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fairspec_bench.engine.model import Model
from fairspec_bench.measure.enough import heats, knows_enough
from fairspec_bench.measure.lines import Lines
from fairspec_bench.measure.report import build_report
from fairspec_bench.records import (
    Answer,
    Departure,
    Dropped,
    Encoded,
    Environment,
    FairspecError,
    Record,
    Replay,
    Report,
    RunConfig,
    Throughput,
    Timing,
    Trace,
    write_atomic,
)
from fairspec_bench.score.departure import departures
from fairspec_bench.score.environment import describe
from fairspec_bench.score.folder import REPORT, RunFolder, RunWriter, Unit, race_keys, sweep_keys, sweep_places, writing
from fairspec_bench.score.likelihood import target_nats
from fairspec_bench.score.prepare import Prepared
from fairspec_bench.score.race import MODES, race
from fairspec_bench.score.reference import NONE_GIVEN, Given, continuations
from fairspec_bench.score.replay import replay
from fairspec_bench.score.sweep import sweep

COSTS: Mapping[str, float] = {
    "trace": 1.0,
    "answer": 0.02,
    "replay": 0.1,
    "drafter_answer": 0.2,
    "departure": 0.1,
    "timing": 1.5,
    "sweep": 20.0,
}
"""Rough time of a line of each stage, for the share that is done: measured on small models, exact on none."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` in rough units of time, and what was just made."""

    unit: Unit
    done: float
    total: float


Watch = Callable[[Progress], None]
Seen = Callable[[Unit, int], None]
"""Is told of a unit when it is begun (0) and after each of its lines: how many there are."""


@dataclass
class Known:
    """What is there already and other units are made from: texts by key, timings by task."""

    traces: dict[str, Trace] = field(default_factory=dict)
    timed: dict[str, list[Timing]] = field(default_factory=dict)

    def add(self, lines: Iterable[Record]) -> None:
        for line in lines:
            if isinstance(line, Trace):
                self.traces[line.key] = line
            elif isinstance(line, Timing):
                self.timed.setdefault(Unit(line.shard, "timing").task, []).append(line)

    def needed(self, unit: Unit, config: RunConfig) -> Known:
        """As much of it as the lines of this unit depend on."""
        keys = sweep_keys(config)[unit.shard] if unit.stage == "sweep" else config.shards[unit.shard]
        traces = {key: self.traces[key] for key in keys if key in self.traces}
        timed = self.timed.get(unit.task, []) if unit.stage == "timing" else []
        return Known(traces, {unit.task: list(timed)})


@dataclass(frozen=True)
class Made:
    """A unit's lines, all there or made as they are taken, and the environment that makes them."""

    unit: Unit
    lines: Iterable[Record]
    environment: Environment


class Executor(Protocol):
    """Who makes the lines of a run. It is no part of the configuration, and no figure may depend on it."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def dropped(self) -> tuple[Dropped, ...]: ...

    @property
    def environments(self) -> Sequence[Environment]:
        """Where it works, at least one."""

    @property
    def note(self) -> str | None:
        """What a user should know of how blocks are run."""

    def make(self, left: Sequence[Unit], known: Known, seen: Seen) -> Iterator[Made]:
        """Each of these units once, those of one file in their order. Adds what it makes to `known`."""


class Local:
    """This process makes every unit, one after the other."""

    def __init__(self, prepared: Prepared, *, cache: Path | None = None, given: Mapping[str, Given] = NONE_GIVEN):
        self.config, self.dropped, self.note = prepared.config, prepared.dropped, prepared.note
        self.environments = (describe(prepared.config.device),)
        self.work = Work(prepared, cache, given)

    def make(self, left: Sequence[Unit], known: Known, seen: Seen) -> Iterator[Made]:
        self.work.know(known)
        for unit in left:
            yield Made(unit, told(unit, self.work.lines(unit), seen), self.environments[0])


def told(unit: Unit, lines: Iterable[Record], seen: Seen) -> Iterator[Record]:
    """A unit's lines as they are made, each of them `seen`."""
    seen(unit, 0)
    for number, line in enumerate(lines, 1):
        yield line
        seen(unit, number)


def run(
    prepared: Prepared,
    out: Path,
    *,
    cache: Path | None = None,
    given: Mapping[str, Given] = NONE_GIVEN,
    watch: Watch | None = None,
) -> Report:
    """Do what is left of a run in `out`, here; → its report, which is written beside the lines if the run is whole.

    `cache` keeps references for other runs, `given` are texts of a reference pack, taken as they are. Raises
    `FairspecError`; what was finished before stays, and the same call goes on from there.
    """
    return conduct(Local(prepared, cache=cache, given=given), out, watch=watch)


def conduct(executor: Executor, out: Path, *, watch: Watch | None = None) -> Report:
    """`run` by any executor: this process alone writes. Raises `FairspecError` likewise."""
    with writing(out, executor.config, executor.environments[0], executor.dropped) as writer:
        left, known = writer.left(), Known()
        known.add(writer.folder.lines("trace", Trace))
        known.add(writer.folder.lines("timing", Timing))
        for environment in executor.environments if left else ():
            writer.refuse_other_machine(environment)
        meter = _Meter(writer, watch or (lambda progress: None))
        for made in executor.make(left, known, meter.seen):
            writer.add(made.unit, made.lines, writer.session(made.environment))
            meter.written(made.unit)
        return make_report(RunFolder(out))


def lines_of(folder: RunFolder) -> Lines:
    """The lines of the finished units of a run. Raises `RecordError` for damaged ones."""
    folder.check()
    return Lines(
        traces=folder.lines("trace", Trace),
        answers=folder.lines("answer", Answer),
        drafter_answers=folder.lines("drafter_answer", Answer),
        replays=folder.lines("replay", Replay),
        timings=folder.lines("timing", Timing),
        dropped=folder.dropped(),
        departures=folder.lines("departure", Departure),
        throughputs=folder.lines("sweep", Throughput),
    )


def make_report(folder: RunFolder) -> Report:
    """The report of the finished units, from their lines alone. Of a whole run it is kept as `report.json`.

    Of an unfinished run, or a part of one, it is flagged as such and not kept.
    """
    report = build_report(folder.config, folder.environments, lines_of(folder))
    path, text = folder.path / REPORT, report.model_dump_json(indent=1) + "\n"
    if folder.whole and not (path.exists() and path.read_bytes() == text.encode()):
        write_atomic(path, text)
    return report


class Work:
    """Makes the lines of any unit from what is known, to which it adds them."""

    def __init__(self, prepared: Prepared, cache: Path | None, given: Mapping[str, Given] = NONE_GIVEN):
        self.prepared, self.config = prepared, prepared.config
        self.cache, self.given, self.known = cache, given, Known()
        self.raced, self.swept = race_keys(prepared.config), sweep_keys(prepared.config)
        self.float32: Model | None = None
        small = prepared.drafter.model if prepared.drafter else None
        self.small = replace(small, backend=prepared.verifier.backend) if small else None

    def know(self, known: Known) -> None:
        """From what lines are made from now on. Raises `FairspecError` for a text of another prompt."""
        for key, trace in known.traces.items():
            if trace.prompt_sha != self.prepared.questions.encoded[key].sha:
                raise FairspecError(f"{key}: its text is of another prompt. Delete its task's folder and run again.")
        self.known = known

    def lines(self, unit: Unit) -> Iterator[Record]:
        """The lines of a unit, in their order."""
        makers: Mapping[str, Callable[[Unit], Iterator[Record]]] = {
            "trace": self._traces,
            "answer": self._answers,
            "replay": self._replays,
            "drafter_answer": self._drafter_answers,
            "departure": self._departures,
            "timing": self._timings,
            "sweep": self._throughputs,
        }
        if unit.stage != "departure":
            self.float32 = None
        for line in makers[unit.stage](unit):
            self.known.add([line])
            yield line

    def _traces(self, unit: Unit) -> Iterator[Trace]:
        return self._decoded(self.prepared.verifier, unit.shard, self.given)

    def _answers(self, unit: Unit) -> Iterator[Answer]:
        keys = self.config.shards[unit.shard]
        return self._graded(keys, (self.known.traces[key] for key in keys), self.prepared.verifier)

    def _replays(self, unit: Unit) -> Iterator[Replay]:
        assert self.prepared.drafter is not None
        encoded = self._encoded(self.config.shards[unit.shard])
        return replay(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.traces[prompt.key] for prompt in encoded],
            rule=self.config.rule,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            shard=unit.shard,
        )

    def _drafter_answers(self, unit: Unit) -> Iterator[Answer]:
        """What the drafter answers by itself, where it can be right or has a reference; nothing elsewhere."""
        assert self.small is not None
        keys, model = self.config.shards[unit.shard], self.small
        suite = self.prepared.questions.suites[unit.task.partition("/")[0]]
        if not suite.has_answers and not self._references(keys):
            return iter(())
        return self._graded(keys, self._decoded(model, unit.shard), model)

    def _departures(self, unit: Unit) -> Iterator[Departure]:
        """The float32 verifier is loaded once for all shards and let go before anything is timed."""
        self.float32 = self.float32 or self.prepared.float32_verifier()
        encoded = self._encoded(self.config.shards[unit.shard])
        return departures(
            self.float32,
            encoded,
            [self.known.traces[prompt.key] for prompt in encoded],
            batch_size=self.config.batch_size,
            shard=unit.shard,
        )

    def _timings(self, unit: Unit) -> Iterator[Timing]:
        """The race of this shard, unless the task's is over; what was timed of it before counts."""
        assert self.prepared.drafter is not None
        encoded = self._encoded(self.raced[unit.shard])
        before = list(self.known.timed.get(unit.task, []))
        return race(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.traces[prompt.key] for prompt in encoded],
            rule=self.config.rule,
            gamma=self.config.gamma,
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            shard=unit.shard,
            heats=heats(self.config, self.raced[unit.shard]),
            enough=lambda timed: knows_enough(self.config, [*before, *timed]),
        )

    def _throughputs(self, unit: Unit) -> Iterator[Throughput]:
        assert self.prepared.drafter is not None
        encoded = self._encoded(self.swept[unit.shard])
        return sweep(
            self.prepared.verifier,
            self.prepared.drafter,
            encoded,
            [self.known.traces[prompt.key] for prompt in encoded],
            rule=self.config.rule,
            gammas=self.config.gammas,
            batch_sizes=self.config.batch_sizes,
            seed=self.config.seed,
            rounds=self.config.race_rounds,
            shard=unit.shard,
        )

    def _encoded(self, keys: Iterable[str]) -> list[Encoded]:
        return [self.prepared.questions.encoded[key] for key in keys]

    def _decoded(self, model: Model, shard: str, given: Mapping[str, Given] = NONE_GIVEN) -> Iterator[Trace]:
        """The model's own texts; what stops them is part of their address in the cache."""
        keys = self.config.shards[shard]
        return continuations(
            model,
            self.prepared.codec,
            [self.prepared.questions.prompts[key] for key in keys],
            self._encoded(keys),
            rule=self.config.rule,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            shard=shard,
            cache=self.cache,
            given=given,
        )

    def _graded(self, keys: Sequence[str], traces: Iterable[Trace], model: Model) -> Iterator[Answer]:
        """The answers of `model` to these keys, with what it makes of their reference texts."""
        foreseen = self._foreseen(keys, model)
        for trace in traces:
            prompt = self.prepared.questions.prompts[trace.key]
            text = self.prepared.codec.decode(trace.ids, prompt.stops)
            answer = self.prepared.questions.suites[prompt.suite].grade(prompt, text)
            yield answer.model_copy(update=foreseen.get(trace.key, {}))

    def _foreseen(self, keys: Sequence[str], model: Model) -> dict[str, dict[str, float | int]]:
        """The fields of an answer that tell of its reference text, by key; only where the model has room for it."""
        questions, texts = self.prepared.questions, self._references(keys)
        pairs = [
            (questions.encoded[key].ids, self.prepared.codec.continuation(questions.prompts[key], text))
            for key, text in texts.items()
        ]
        found = target_nats(model, pairs, batch_size=self.config.batch_size)
        return {
            key: {"target_nats": nats, "target_bytes": len(text.encode())}
            for (key, text), nats in zip(texts.items(), found, strict=True)
            if nats is not None
        }

    def _references(self, keys: Sequence[str]) -> dict[str, str]:
        prompts = [self.prepared.questions.prompts[key] for key in keys]
        suites = self.prepared.questions.suites
        return {prompt.key: text for prompt in prompts if (text := suites[prompt.suite].reference(prompt))}


class _Meter:
    """How far a run is, whoever makes its lines and however many units at once."""

    def __init__(self, writer: RunWriter, watch: Watch):
        self.watch, self.config = watch, writer.folder.config
        self.raced, self.swept = race_keys(self.config), sweep_keys(self.config)
        self.costs = {unit: COSTS[unit.stage] * self._most(unit) for unit in writer.folder.units}
        self.place = {unit: place for place, unit in enumerate(self.costs)}
        self.total = sum(self.costs.values())
        self.before = sum(self.costs[unit] for unit in writer.done)
        self.begun: dict[Unit, int] = {}

    def seen(self, unit: Unit, lines: int) -> None:
        """A unit has so many lines. Shown is the first one that is not yet kept."""
        self.begun[unit] = lines
        begun = sum(count * COSTS[each.stage] for each, count in self.begun.items())
        self.watch(Progress(min(self.begun, key=self.place.__getitem__), self.before + begun, self.total))

    def written(self, unit: Unit) -> None:
        self.begun.pop(unit, None)
        self.before += self.costs[unit]

    def _most(self, unit: Unit) -> int:
        """How many lines a unit has at most."""
        if unit.stage == "timing":
            return len(self.raced[unit.shard]) * self.config.race_rounds * len(MODES)
        if unit.stage == "sweep":
            return len(sweep_places(self.config, self.swept[unit.shard]))
        return len(self.config.shards[unit.shard])
