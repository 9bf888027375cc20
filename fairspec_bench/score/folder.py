"""A run on disk: who may write it, what of it is finished, how it goes on after any kill.

Knows the files of a run folder and the order in which a run fills them. Knows no models, texts or statistics.

    run.json                          the configuration, written first; another one in the same folder is refused
    environments.jsonl                a line per session that did work, and kind of machine in it
    <suite>/<language>/<stage>.jsonl  a line per record, in the order of the run's units
    <suite>/<language>/dropped.jsonl  prompts that are not run, and why
    shards.jsonl                      a line per finished unit, written after that unit's lines are on disk

A `Unit` (one stage of one shard) is what is redone after a kill: lines without their unit's line in `shards.jsonl` are
cut off. So the same command goes on from anywhere and ends with the same bytes, timings and environments apart.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from filelock import FileLock, Timeout

from fairspec_bench.measure.enough import ends_early, heats
from fairspec_bench.records import (
    SERVED,
    Answer,
    Departure,
    Dropped,
    Environment,
    Record,
    RecordError,
    Replay,
    RunConfig,
    ShardDone,
    Throughput,
    Timing,
    Trace,
    lines_text,
    read_lines,
    read_record,
    write_atomic,
    write_record,
)

R = TypeVar("R", bound=Record)
T = TypeVar("T")
SweepPlace = tuple[int, int, int, int]

STAGES: Mapping[str, type[Record]] = {
    "trace": Trace,
    "answer": Answer,
    "replay": Replay,
    "drafter_answer": Answer,
    "departure": Departure,
    "timing": Timing,
    "sweep": Throughput,
}
"""What a run does to a shard, in this order; departures of all shards come after the rest, then timings, then sweeps.

A sweep is of a whole task, and its first shard's.
"""
TIMED = frozenset({"timing", "sweep"})

RUN, ENVIRONMENTS, SHARDS, DROPPED, REPORT, LOCK = (
    "run.json",
    "environments.jsonl",
    "shards.jsonl",
    "dropped.jsonl",
    "report.json",
    ".lock",
)


class FolderError(RecordError):
    """A run folder that cannot be written or trusted: names the folder or file, what is wrong and what to do."""


# --------------------------------------------------------------------------- what a run consists of


@dataclass(frozen=True)
class Unit:
    """One stage of one shard."""

    shard: str
    stage: str

    @property
    def task(self) -> str:
        return self.shard.rpartition("/")[0]

    @property
    def file(self) -> str:
        return f"{self.task}/{self.stage}.jsonl"


def units(config: RunConfig) -> tuple[Unit, ...]:
    """What this run (or this part of one) does, in the order in which it does it.

    Raises `FolderError` for a part that cannot be.
    """
    first, count = config.part or (1, 1)
    if not 1 <= first <= count:
        raise FolderError(f"part {first}/{count}: the first number must be from 1 to the second.")
    mine = list(config.shards)[first - 1 :: count]
    drafter = config.drafter
    scored = drafter is not None and config.backend != SERVED
    stages = ["trace", "answer"] + ["replay"] * scored
    stages += ["drafter_answer"] * (scored and drafter is not None and drafter.kind == "model")
    made = [Unit(shard, stage) for shard in mine for stage in stages]
    checked = [Unit(shard, "departure") for shard in mine if config.float32_check]
    raced, swept = race_keys(config), sweep_keys(config)
    timed = [Unit(shard, "timing") for shard in mine if raced[shard]]
    return (*made, *checked, *timed, *(Unit(shard, "sweep") for shard in mine if shard in swept))


def race_keys(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The prompts of each shard that are raced: the first `race_prompts` of each task (all, if `None`)."""
    left: Counter[str] = Counter()
    raced = {}
    for shard, keys in config.shards.items():
        task = Unit(shard, "timing").task
        limit = len(keys) if config.race_prompts is None else max(0, config.race_prompts - left[task])
        raced[shard] = keys[:limit] if config.race_rounds and config.drafter else ()
        left[task] += len(keys)
    return raced


def sweep_keys(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The prompts of each sweep: those that are raced of a task, by the first shard that has any."""
    if not config.gammas:
        return {}
    tasks: dict[str, dict[str, tuple[str, ...]]] = {}
    for shard, keys in race_keys(config).items():
        if keys:
            tasks.setdefault(Unit(shard, "sweep").task, {})[shard] = keys
    return {next(iter(raced)): tuple(key for keys in raced.values() for key in keys) for raced in tasks.values()}


def halves(keys: Sequence[T]) -> tuple[Sequence[T], ...]:
    """The two halves of a sweep's prompts, taken in turn: the first chooses γ, the second reports it."""
    return tuple(half for half in (keys[::2], keys[1::2]) if half)


def sweep_places(config: RunConfig, keys: Sequence[str]) -> dict[SweepPlace, Sequence[str]]:
    """What the lines of a sweep of these prompts must be of, each once, and the prompts of its half."""
    return {
        (half, batch, gamma, number): mine
        for half, mine in enumerate(halves(keys))
        for batch in config.batch_sizes
        for gamma in (0, *config.gammas)
        for number in range(config.race_rounds)
    }


def sweep_place(line: Throughput) -> SweepPlace:
    """Half, batch size, γ and round of a line."""
    return line.half, line.batch_size, line.gamma, line.round


def difference(there: RunConfig, here: RunConfig) -> str | None:
    """The first field in which two configurations differ, with both values; `None` if they are the same."""
    return _difference(there.model_dump(mode="json"), here.model_dump(mode="json"), "")


def _difference(there: Any, here: Any, where: str) -> str | None:
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(name, there.get(name), here.get(name)) for name in [*there, *(here.keys() - there.keys())]]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(str(place), *both) for place, both in enumerate(zip(there, here, strict=True))]
    elif there == here:
        return None
    else:
        return f"{where}: {_short(there)} there, {_short(here)} here"
    found = (_difference(old, new, f"{where}.{name}".lstrip(".")) for name, old, new in pairs)
    return next((difference for difference in found if difference), None)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def same_machine(there: Environment, here: Environment, *, timed: bool) -> str | None:
    """Why lines made `there` may not be continued `here`, `None` if they may.

    Texts need the same kind of hardware; timings also the same processor, threads and versions.
    """
    names = ["device_name"]
    if timed:
        names += ["processor", "cores", "threads", "python", "packages", "platform"]
    old, new = there.model_dump(), here.model_dump()
    return _difference({name: old[name] for name in names}, {name: new[name] for name in names}, "")


# --------------------------------------------------------------------------- reading


class RunFolder:
    """A run folder as it lies there, trusted only after every line of every finished unit was checked."""

    def __init__(self, path: Path):
        """Raises `FolderError` or `RecordError` for a folder that is no run's, or damaged."""
        self.path = path
        self.config = read_record(path / RUN, RunConfig)
        self.units = units(self.config)
        self.environments = tuple(read_lines(path / ENVIRONMENTS, Environment))
        self.done = self._done()

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.units)

    @property
    def whole(self) -> bool:
        """Complete, and not a part of a run."""
        return self.complete and self.config.part is None

    @property
    def progress(self) -> str:
        return f"{len(self.done)} of {len(self.units)} steps done"

    def tasks(self) -> list[str]:
        """The tasks asked for, those without a single prompt left included."""
        return [f"{suite.name}/{language}" for suite in self.config.suites for language in suite.languages]

    def dropped(self) -> tuple[Dropped, ...]:
        """The prompts that are not run."""
        return tuple(line for task in self.tasks() for line in read_lines(self.path / task / DROPPED, Dropped))

    def read(self, stage: str, kind: type[R]) -> dict[Unit, tuple[R, ...]]:
        """The records of every finished unit of a stage. Raises `RecordError` for a line that does not belong there."""
        found: dict[Unit, tuple[R, ...]] = {}
        files: dict[str, list[ShardDone]] = {}
        for unit, mark in self.done.items():
            if unit.stage == stage:
                files.setdefault(unit.file, []).append(mark)
        for file, marks in files.items():
            lines = list(read_lines(self.path / file, kind))
            self._require(file, len(lines), sum(mark.lines for mark in marks))
            start = 0
            for mark in marks:
                unit, mine = Unit(mark.shard, mark.stage), lines[start : start + mark.lines]
                self._check(unit, mine, start)
                found[unit] = tuple(mine)
                start += mark.lines
            self._check_rest(file, lines, start)
        return found

    def lines(self, stage: str, kind: type[R]) -> list[R]:
        """The same without their units, in order of writing."""
        return [line for lines in self.read(stage, kind).values() for line in lines]

    def check(self) -> None:
        """Read everything and check that it fits together. Raises `RecordError`."""
        traces = {trace.key: trace for trace in self.lines("trace", Trace)}
        self.lines("answer", Answer)
        self.lines("drafter_answer", Answer)
        made: list[Replay | Timing | Departure] = [
            *self.lines("replay", Replay),
            *self.lines("timing", Timing),
            *self.lines("departure", Departure),
        ]
        for record in made:
            trace = traces.get(record.key)
            if trace is None or trace.prompt_sha != record.prompt_sha:
                raise self._damaged(f"{record.key}: made from another prompt or text than the trace", record.key)
            if fault := _unfit(record, trace):
                raise self._damaged(f"{record.key}: {fault}", record.key)
        swept, lengths = sweep_keys(self.config), {key: len(trace.ids) for key, trace in traces.items()}
        for unit, lines in self.read("sweep", Throughput).items():
            places = sweep_places(self.config, swept[unit.shard])
            for line in lines:
                tokens = sum(lengths.get(key, 0) for key in places[sweep_place(line)])
                if line.tokens != tokens:
                    raise self._damaged(f"{unit.shard}: {line.tokens} tokens where the traces have {tokens}", unit.file)

    def _done(self) -> dict[Unit, ShardDone]:
        """Finished units in the order they were finished. Those of a task whose folder was deleted are to be redone."""
        known, done = set(self.units), dict[Unit, ShardDone]()
        for number, mark in enumerate(read_lines(self.path / SHARDS, ShardDone), 1):
            unit, where = Unit(mark.shard, mark.stage), f"{self.path / SHARDS}:{number}"
            if unit not in known:
                raise FolderError(f"{where} {mark.shard} {mark.stage}: no step of this run. Delete that line.")
            if unit in done:
                raise FolderError(f"{where} {mark.shard} {mark.stage}: finished twice. Delete that line.")
            if not 0 <= mark.environment < len(self.environments):
                raise FolderError(f"{where} environment: {ENVIRONMENTS} has no line {mark.environment}. Restore it.")
            if (self.path / unit.task).is_dir():
                done[unit] = mark
        return done

    def _require(self, file: str, found: int, wanted: int) -> None:
        if found < wanted:
            raise self._damaged(f"{self.path / file}: {found} whole lines where {wanted} were finished", file)

    def _check(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        expected = self.config.shards[unit.shard]
        if unit.stage == "timing":
            self._check_timings(unit, lines, start)
            return
        if unit.stage == "sweep":
            self._check_sweep(unit, lines, start)
            return
        if unit.stage == "drafter_answer" and not lines:
            return
        for place, (line, key) in enumerate(zip(lines, expected, strict=False), start + 1):
            if _key(line) != key or _shard(line) not in (None, unit.shard):
                raise self._foreign(unit, place, _key(line))
        if len(lines) != len(expected):
            raise self._damaged(
                f"{self.path / unit.file}: {unit.shard} has {len(lines)} of its {len(expected)} lines", unit.file
            )

    def _check_timings(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        """Every raced prompt; or, where a race may end early, those of its first heats."""
        raced = race_keys(self.config)[unit.shard]
        for place, line in enumerate(lines, start + 1):
            if _key(line) not in raced or _shard(line) != unit.shard:
                raise self._foreign(unit, place, _key(line))
        timed = {_key(line) for line in lines}
        ends = accumulate(map(len, heats(self.config, raced)), initial=0)
        allowed = [end for end in ends if ends_early(self.config) or end == len(raced)]
        if not any(timed == set(raced[:end]) for end in allowed):
            raise self._damaged(f"{self.path / unit.file}: timings of {unit.shard} are missing", unit.file)

    def _check_sweep(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        """Everything swept in every round, once."""
        left = sweep_places(self.config, sweep_keys(self.config)[unit.shard])
        for place, line in enumerate(lines, start + 1):
            assert isinstance(line, Throughput)
            keys = left.pop(sweep_place(line), None)
            if keys is None or line.shard != unit.shard or line.prompts != len(keys):
                raise self._foreign(unit, place, line.shard)
        if left:
            raise self._damaged(f"{self.path / unit.file}: {len(left)} lines of {unit.shard} are missing", unit.file)

    def _check_rest(self, file: str, lines: Sequence[Record], start: int) -> None:
        """Lines after the last finished unit are those of an interrupted one, or foreign."""
        left = [unit for unit in self.units if unit.file == file and unit not in self.done]
        expected = {key for unit in left for key in (unit.shard, *self.config.shards[unit.shard])}
        for place, line in enumerate(lines[start:], start + 1):
            if _key(line) not in expected:
                raise self._damaged(f"{self.path / file}:{place} {_key(line)}: no line of this run belongs here", file)

    def _foreign(self, unit: Unit, place: int, key: str) -> FolderError:
        return self._damaged(f"{self.path / unit.file}:{place} {key}: not {unit.shard}'s line in this place", unit.file)

    def _damaged(self, what: str, place: str) -> FolderError:
        task = "/".join(place.split("/")[:2])
        return FolderError(f"{what}. Restore the file, or delete {self.path / task}/ and run again: only it is redone.")


def _unfit(line: Replay | Timing | Departure, trace: Trace) -> str | None:
    """What of a line does not fit the text it was made from."""
    length = len(trace.ids)
    if isinstance(line, Departure):
        return f"departs at token {line.first} of the trace's {length}" if (line.first or 0) > length else None
    tokens = line.tokens if isinstance(line, Timing) else line.contexts + 1
    return None if tokens == length else f"{tokens} tokens where the trace has {length}"


def _key(line: Record) -> str:
    """What a line is of: its prompt, or the shard that its sweep belongs to."""
    return line.shard if isinstance(line, Throughput) else str(getattr(line, "key"))  # noqa: B009 - all others have one


def _shard(line: Record) -> str | None:
    return getattr(line, "shard", None)


# --------------------------------------------------------------------------- writing


class RunWriter:
    """The one process that may add to a run folder. Made by `writing`."""

    def __init__(self, folder: RunFolder, environment: Environment):
        self.folder = folder
        self.environment = environment
        self.done = dict(folder.done)
        self.written = len(folder.environments)
        self.mine: dict[int, Environment] = {}

    def left(self) -> list[Unit]:
        """The units still to do, in order."""
        return [unit for unit in self.folder.units if unit not in self.done]

    def add(self, unit: Unit, lines: Iterable[Record], environment: int | None = None) -> list[Record]:
        """Do a unit: append each line as it comes, then mark the unit finished. Returns the lines.

        `environment`: the index of one that is already there, else this session's. Raises `FolderError` where it
        cannot be written; what was finished before stays.
        """
        index = self.session(self.environment) if environment is None else environment
        kept = []
        with _appending(self.folder.path / unit.file) as file:
            for line in lines:
                file.write(lines_text([line]).encode())
                file.flush()
                kept.append(line)
        mark = ShardDone(shard=unit.shard, stage=unit.stage, lines=len(kept), environment=index)
        self._append(SHARDS, [mark])
        self.done[unit] = mark
        return kept

    def add_environments(self, environments: Sequence[Environment]) -> int:
        """Append environments; returns the index of the first."""
        first = self.written
        self._append(ENVIRONMENTS, environments)
        self.written += len(environments)
        return first

    def session(self, environment: Environment) -> int:
        """The index of an environment that works here, appended when it first does. Raises `FolderError` if refused."""
        known = next((index for index, mine in self.mine.items() if mine == environment), None)
        if known is not None:
            return known
        self.refuse_other_machine(environment)
        index = self.add_environments([environment])
        self.mine[index] = environment
        return index

    def refuse_other_machine(self, environment: Environment) -> None:
        """Raises `FolderError` if what is there may not be continued in this environment."""
        for unit, mark in self.folder.done.items():
            there = self.folder.environments[mark.environment]
            if found := same_machine(there, environment, timed=unit.stage in TIMED):
                raise FolderError(
                    f"{self.folder.path}: {unit.stage} lines were made on another machine ({found}). "
                    "Continue there, or choose another --out."
                )

    def _append(self, name: str, lines: Sequence[Record]) -> None:
        with _appending(self.folder.path / name) as file:
            file.write(lines_text(lines).encode())


@contextmanager
def writing(
    path: Path, config: RunConfig, environment: Environment, dropped: Sequence[Dropped] = ()
) -> Iterator[RunWriter]:
    """Create or continue the run in `path`, as its only writer while the context lasts.

    What an interrupted unit left is cut off. Raises `FolderError`, with nothing changed, for a folder that another
    process writes, that holds another configuration or no run at all, that is damaged or cannot be written.
    """
    with _locked(path):
        if not (path / RUN).exists():
            _start(path, config)
        folder = RunFolder(path)
        if found := difference(folder.config, config):
            raise FolderError(
                f"{path}: holds another run ({found}). Choose another --out, or give the options it was started with."
            )
        folder.check()
        _note_dropped(folder, dropped)
        _cut(folder)
        yield RunWriter(folder, environment)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by the operating system for this process: it ends with the process, however that dies."""
    lock = FileLock(path / LOCK, timeout=0)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise FolderError(f"{path}: another process is writing here. Wait for it, or choose another --out.") from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _start(path: Path, config: RunConfig) -> None:
    if any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise FolderError(f"{path}: not empty, and not a run folder (no {RUN}). Choose another --out.")
    write_record(path / RUN, config)


def _note_dropped(folder: RunFolder, dropped: Sequence[Dropped]) -> None:
    by_task: dict[str, list[Dropped]] = {task: [] for task in folder.tasks()}
    for line in dropped:
        by_task[line.key.rpartition("/")[0]].append(line)
    for task, lines in by_task.items():
        path = folder.path / task / DROPPED
        if list(read_lines(path, Dropped)) == lines:
            continue
        if path.exists():
            raise FolderError(f"{path}: not what this run drops. Delete that file and run again.")
        write_atomic(path, lines_text(lines))


def _cut(folder: RunFolder) -> None:
    """Cut every file back to the lines of finished units, torn last lines too; rewrite the marks if some are void."""
    counts: Counter[str] = Counter()
    for unit, mark in folder.done.items():
        counts[unit.file] += mark.lines
    for file in sorted({unit.file for unit in folder.units}):
        _keep_lines(folder.path / file, counts[file])
    _keep_lines(folder.path / ENVIRONMENTS, len(folder.environments))
    marks = lines_text(list(folder.done.values()))
    shards = folder.path / SHARDS
    if shards.exists() and shards.read_bytes() != marks.encode():
        write_atomic(shards, marks)


def _keep_lines(path: Path, count: int) -> None:
    if not path.exists():
        return
    try:
        with path.open("r+b") as file:
            for _ in range(count):
                file.readline()
            if file.tell() < path.stat().st_size:
                file.truncate(file.tell())
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _appending(path: Path) -> Iterator[BinaryIO]:
    """A file open at its end; on disk when the context ends. Raises `FolderError` for whatever the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FolderError:
    return FolderError(
        f"{path}: cannot be written ({error.strerror or error}). Free space or mend it and run the same command again, "
        "which goes on from here; or choose another --out."
    )
