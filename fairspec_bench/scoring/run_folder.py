"""A run on disk: who may write it, what of it is finished, how it resumes after any kill.

    run.json            the configuration, written first; another one in the same folder is refused
    environments.jsonl  a line per session that did work, and kind of machine in it
    dropped.jsonl       prompts that are not run, and why
    <stage>.jsonl       a line per record of all tasks, in the order of the run's units (`schemas.stages`)
    chunks.jsonl        a line per finished unit, written after that unit's lines are on disk
    report.json         of a run that is complete

A `Unit` (one stage of one chunk) is what is redone after a kill: lines without their unit's line in `chunks.jsonl` are
cut off. So the same command resumes from anywhere and ends with the same bytes, timings and environments apart. A file
may also be gzipped; such a folder is read, not continued.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, TypeVar

from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.config import ChunkDone, Environment, RunConfig
from fairspec_bench.schemas.invariants import Derived, Fault, line_faults, sweep_faults
from fairspec_bench.schemas.io import GZIP, lines_text, opened, read_lines, read_record, stored_at, write_atomic
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.lines import Dropped, Reference, Throughput, Timing
from fairspec_bench.schemas.resumable import FolderError, difference, resumable, unwritable
from fairspec_bench.schemas.stages import (
    STAGES,
    SweepPlace,
    Unit,
    ends_early,
    race_batches,
    sweep_place,
    sweep_places,
    unit_keys,
)

R = TypeVar("R", bound=Record)

RUN, ENVIRONMENTS, CHUNKS, DROPPED, REPORT = (
    "run.json",
    "environments.jsonl",
    "chunks.jsonl",
    "dropped.jsonl",
    "report.json",
)
FILES = (RUN, ENVIRONMENTS, CHUNKS, DROPPED, REPORT, *(stage.file for stage in STAGES.values()))
"""Every file of a run folder."""


def same_machine(there: Environment, here: Environment, *, timed: bool, versions: bool = True) -> str | None:
    """Why lines made `there` may not be continued `here`, `None` if they may.

    Outputs need the same kind of hardware; timings also the same processor, threads and, unless asked otherwise,
    `versions`.
    """
    names = {"device_name"}
    if timed:
        names |= {"processor", "cores", "threads"}
    if timed and versions:
        names |= {"python", "packages", "platform"}
    return difference(there, here, of=names)


# --------------------------------------------------------------------------- reading


class RunFolder:
    """A run folder; a file is read once, and its lines trusted only after each of every finished unit was checked."""

    def __init__(self, path: Path):
        """Raises `FolderError` or `RecordError` for a folder that is no run's, or damaged."""
        self.path = path
        self.config = read_record(path / RUN, RunConfig)
        self.keys = unit_keys(self.config)
        self.environments = tuple(read_lines(path / ENVIRONMENTS, Environment))
        self.done = self._done()
        self._read: dict[str, dict[Unit, tuple[Record, ...]]] = {}

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(self.keys)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.keys)

    @property
    def whole(self) -> bool:
        """Complete, and not a shard of a run."""
        return self.complete and self.config.shard is None

    @property
    def progress(self) -> str:
        return f"{len(self.done)} of {len(self.keys)} steps done"

    def tasks(self) -> list[Task]:
        """The tasks of the run, those without a single prompt left included."""
        return [Task.of(suite.name, language) for suite in self.config.suites for language in suite.languages]

    def dropped(self) -> tuple[Dropped, ...]:
        """The prompts that are not run."""
        return tuple(read_lines(self.path / DROPPED, Dropped))

    def read(self, stage: str, kind: type[R]) -> dict[Unit, tuple[R, ...]]:
        """The records (of type `kind`) of every finished unit of a stage.

        Raises `RecordError` for a line that does not belong there.
        """
        if stage not in self._read:
            self._read[stage] = self._units(stage)
        return self._read[stage]  # type: ignore[return-value]

    def lines(self, stage: str, kind: type[R]) -> list[R]:
        """The same without their units, in order of writing."""
        return [line for lines in self.read(stage, kind).values() for line in lines]

    def add(self, unit: Unit, lines: Sequence[Record], mark: ChunkDone) -> None:
        """A unit that was finished just now, so that it need not be read."""
        self.read(unit.stage, Record)[unit] = tuple(lines)
        self.done[unit] = mark

    def check(self) -> None:
        """Check that the lines of all stages fit together and are those that were written. Raises `RecordError`."""
        references = {reference.key: reference for reference in self.lines("reference", Reference)}
        undone = [keys for unit, keys in self.keys.items() if unit.stage == "reference" and unit not in self.done]
        missing = {key for keys in undone for key in keys}
        for stage in STAGES.values():
            for unit, lines in self.read(stage.name, stage.record).items():
                places = sweep_places(self.config, unit.chunk) if stage.record is Throughput else {}
                for line in lines:
                    if fault := _fault(line, references, places, missing):
                        raise self._damaged(f"{_key(line)} {stage.name}: {fault} as its reference has it", unit.file)
        for name, stage in STAGES.items():
            self._check_bytes(stage.file, {unit: mark for unit, mark in self.done.items() if unit.stage == name})

    def _units(self, stage: str) -> dict[Unit, tuple[Record, ...]]:
        found: dict[Unit, tuple[Record, ...]] = {}
        marks = {unit: mark for unit, mark in self.done.items() if unit.stage == stage}
        if not marks:
            return found
        file, start = STAGES[stage].file, 0
        lines = list(read_lines(self.path / file, STAGES[stage].record))
        wanted = sum(mark.lines for mark in marks.values())
        if len(lines) < wanted:
            raise self._damaged(f"{self.path / file}: {len(lines)} whole lines where {wanted} were finished", file)
        for unit, mark in marks.items():
            mine = lines[start : start + mark.lines]
            self._check(unit, mine, start)
            found[unit] = tuple(mine)
            start += mark.lines
        self._check_rest(file, lines, start)
        return found

    def _done(self) -> dict[Unit, ChunkDone]:
        """Finished units in the order they were finished. Those of a stage whose file was deleted are to be redone."""
        done = dict[Unit, ChunkDone]()
        there = {stage for stage in STAGES if stored_at(self.path / STAGES[stage].file)}
        for number, mark in enumerate(read_lines(self.path / CHUNKS, ChunkDone), 1):
            unit, where = Unit(mark.chunk, mark.stage), f"{self.path / CHUNKS}:{number}"
            if unit not in self.keys:
                raise FolderError(f"{where} {mark.chunk} {mark.stage}: no step of this run. Delete that line.")
            if unit in done:
                raise FolderError(f"{where} {mark.chunk} {mark.stage}: finished twice. Delete that line.")
            if not 0 <= mark.environment < len(self.environments):
                raise FolderError(f"{where} environment: {ENVIRONMENTS} has no line {mark.environment}. Restore it.")
            if mark.stage in there:
                done[unit] = mark
        return done

    def _check(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        expected, stage = self.keys[unit], STAGES[unit.stage]
        if stage.record is Timing:
            self._check_timings(unit, lines, start)
        elif stage.record is Throughput:
            self._check_sweep(unit, lines, start)
        elif lines or not stage.optional:
            for place, (line, key) in enumerate(zip(lines, expected, strict=False), start + 1):
                if _key(line) != key or getattr(line, "chunk", unit.chunk) != unit.chunk:
                    raise self._foreign(unit, place, _key(line))
            if len(lines) != len(expected):
                raise self._damaged(
                    f"{self.path / unit.file}: {unit.chunk} has {len(lines)} of its {len(expected)} lines", unit.file
                )

    def _check_timings(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        """Every raced prompt; or, where a race may end early, those of its first batches."""
        raced = self.keys[unit]
        for place, line in enumerate(lines, start + 1):
            if _key(line) not in raced or getattr(line, "chunk", None) != unit.chunk:
                raise self._foreign(unit, place, _key(line))
        timed = {_key(line) for line in lines}
        ends = accumulate(map(len, race_batches(self.config, raced)), initial=0)
        allowed = [end for end in ends if ends_early(self.config) or end == len(raced)]
        if not any(timed == set(raced[:end]) for end in allowed):
            raise self._damaged(f"{self.path / unit.file}: timings of {unit.chunk} are missing", unit.file)

    def _check_sweep(self, unit: Unit, lines: Sequence[Record], start: int) -> None:
        """Everything swept in every round, once."""
        left = sweep_places(self.config, unit.chunk)
        for place, line in enumerate(lines, start + 1):
            assert isinstance(line, Throughput)
            keys = left.pop(sweep_place(line), None)
            if keys is None or line.prompts != len(keys):
                raise self._foreign(unit, place, line.chunk)
        if left:
            raise self._damaged(f"{self.path / unit.file}: {len(left)} lines of {unit.chunk} are missing", unit.file)

    def _check_bytes(self, file: str, marks: Mapping[Unit, ChunkDone]) -> None:
        """Each finished unit's lines are the bytes that were written, as far as its mark says which."""
        stored = stored_at(self.path / file)
        if stored is None or not any(mark.sha256 for mark in marks.values()):
            return
        with opened(stored) as text:
            for unit, mark in marks.items():
                digest = hashlib.sha256()
                for _ in range(mark.lines):
                    digest.update(text.readline())
                if mark.sha256 not in (None, digest.hexdigest()):
                    raise self._damaged(f"{self.path / file}: {unit.chunk} is not as it was written", file)

    def _check_rest(self, file: str, lines: Sequence[Record], start: int) -> None:
        """Lines after the last finished unit are those of an interrupted one, or foreign."""
        left = [unit for unit in self.keys if unit.file == file and unit not in self.done]
        expected = {key for unit in left for key in (unit.chunk, *self.keys[unit])}
        for place, line in enumerate(lines[start:], start + 1):
            if _key(line) not in expected:
                raise self._damaged(f"{self.path / file}:{place} {_key(line)}: no line of this run belongs here", file)

    def _foreign(self, unit: Unit, place: int, key: str) -> FolderError:
        return self._damaged(f"{self.path / unit.file}:{place} {key}: not {unit.chunk}'s line in this place", unit.file)

    def _damaged(self, what: str, file: str) -> FolderError:
        return FolderError(
            f"{what}. Restore the file, or delete {self.path / file} and run again: only that stage is redone."
        )


def _key(line: Record) -> str:
    """What a line is of: its prompt, or the chunk that its sweep belongs to."""
    return line.chunk if isinstance(line, Throughput) else str(getattr(line, "key"))  # noqa: B009 - all others have one


def _fault(
    line: Record,
    references: Mapping[str, Reference],
    places: Mapping[SweepPlace, Sequence[str]],
    missing: set[str],
) -> Fault | None:
    """What of a line does not fit its references; nothing where one is `missing`, which is still to be made again."""
    if isinstance(line, Throughput):
        keys = places[sweep_place(line)]
        found = sweep_faults(line, [references[key] for key in keys if key in references])
    elif isinstance(line, Derived):
        keys, found = [line.key], line_faults(line, references.get(line.key))
    else:
        return None
    return None if missing.intersection(keys) else next(found, None)


# --------------------------------------------------------------------------- writing


class RunWriter:
    """The one process that may add to a run folder. Made by `writing`."""

    def __init__(self, folder: RunFolder, environment: Environment):
        self.folder = folder
        self.environment = environment
        self.mine: dict[int, Environment] = {}

    def left(self) -> list[Unit]:
        """The units still to do, in order."""
        return [unit for unit in self.folder.units if unit not in self.folder.done]

    def add(self, unit: Unit, lines: Iterable[Record], environment: int | None = None) -> None:
        """Do a unit: append each line as it comes, then mark the unit finished.

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
        digest = hashlib.sha256(lines_text(kept).encode()).hexdigest()
        mark = ChunkDone(chunk=unit.chunk, stage=unit.stage, lines=len(kept), environment=index, sha256=digest)
        self._append(CHUNKS, [mark])
        self.folder.add(unit, kept, mark)

    def add_environments(self, environments: Sequence[Environment]) -> int:
        """Append environments; returns the index of the first."""
        first = len(self.folder.environments)
        self._append(ENVIRONMENTS, environments)
        self.folder.environments += tuple(environments)
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
        """Raises `FolderError` if what was there before this session may not be continued in this environment."""
        for unit, mark in self.folder.done.items():
            if mark.environment in self.mine:
                continue
            there = self.folder.environments[mark.environment]
            if found := same_machine(there, environment, timed=STAGES[unit.stage].timed):
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
    if zipped := next((file for file in FILES if (path / f"{file}{GZIP}").exists()), None):
        raise FolderError(f"{path}: {zipped} is gzipped, so this run is only read. Choose another --out, or gunzip it.")
    with resumable(path, RUN, config):
        folder = RunFolder(path)
        folder.check()
        _note_dropped(folder, dropped)
        _cut(folder)
        yield RunWriter(folder, environment)


def _note_dropped(folder: RunFolder, dropped: Sequence[Dropped]) -> None:
    path = folder.path / DROPPED
    if not path.exists():
        write_atomic(path, lines_text(dropped))
    elif folder.dropped() != tuple(dropped):
        raise FolderError(f"{path}: not what this run drops. Delete that file and run again.")


def _cut(folder: RunFolder) -> None:
    """Cut every file back to the lines of finished units, torn last lines too; rewrite the marks if some are void."""
    counts: Counter[str] = Counter()
    for unit, mark in folder.done.items():
        counts[unit.file] += mark.lines
    for stage in STAGES.values():
        _keep_lines(folder.path / stage.file, counts[stage.file])
    _keep_lines(folder.path / ENVIRONMENTS, len(folder.environments))
    marks = lines_text(list(folder.done.values()))
    chunks = folder.path / CHUNKS
    if chunks.exists() and chunks.read_bytes() != marks.encode():
        write_atomic(chunks, marks)


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
        raise unwritable(path, error) from error


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
        raise unwritable(path, error) from error
