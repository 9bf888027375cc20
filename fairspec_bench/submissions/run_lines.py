"""The lines of a submitted run against its plan, the track's references and each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.metrics.race_stopping import raced_prefix
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.config import ChunkDone, Environment, RunConfig
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import Answer, Dropped, DtypeDivergence, Reference, Replay, Throughput, Timing
from fairspec_bench.schemas.stages import STAGES, Unit, sweep_place, sweep_places, unit_keys
from fairspec_bench.scoring.run_folder import CHUNKS, DROPPED
from fairspec_bench.submissions import rules
from fairspec_bench.submissions.findings import Findings
from fairspec_bench.submissions.reading import Tree
from fairspec_bench.submissions.rules import Place
from fairspec_bench.suites.tracks import Track, TrackReference

RUN_FOLDER = "run"
K = TypeVar("K", Reference, Answer, Replay, DtypeDivergence)
R = TypeVar("R", bound=Record)
Placed = Mapping[str, tuple[K, Place]]
"""The line of every prompt, and where it is."""


def check_lines(
    tree: Tree,
    findings: Findings,
    track: Track,
    track_references: Mapping[str, TrackReference],
    config: RunConfig,
    environments: tuple[Environment, ...],
) -> Lines:
    """Find what is wrong with the lines; → them, sound only if nothing was found."""
    return _RunLines(tree, findings, track, track_references, config).check(environments)


class _RunLines:
    def __init__(
        self,
        tree: Tree,
        findings: Findings,
        track: Track,
        track_references: Mapping[str, TrackReference],
        config: RunConfig,
    ):
        self.tree, self.findings, self.track_references = tree, findings, track_references
        self.track, self.config = track, config
        self.chunk_of = {key: chunk for chunk, keys in config.chunks.items() for key in keys}
        self.keys = unit_keys(config)
        self.proper = config.drafter is None or config.drafter.proper
        kind = DRAFTER_KINDS.get(config.drafter.kind) if config.drafter else None
        self.drafts_each = kind is not None and kind.causal_lm
        self.counts: Counter[str] = Counter()

    def check(self, environments: tuple[Environment, ...]) -> Lines:
        marks = self._marks(environments)
        self._no_drops()
        references = self._by_key("reference", Reference)
        fixed = {suite.name: suite for suite in self.track.suites}
        for key, (reference, at) in references.items():
            suite = fixed[PromptKey(key).suite]
            rules.check_reference(
                reference, self.track_references[key], self.track, suite.max_new_tokens, bool(suite.stops), at
            )
        answers = self._by_key("answer", Answer)
        for key, (answer, at) in answers.items():
            rules.check_answer(answer, self.track_references[key], at)
        drafter_answers = self._by_key("drafter_answer", Answer)
        for answer, at in drafter_answers.values():
            rules.check_drafter_answer(answer, at)
        replays = self._by_key("replay", Replay)
        for key, (replay, at) in replays.items():
            if key in references:
                rules.check_replay(replay, references[key][0], self.track_references[key], self.track, at)
        divergences = self._by_key("dtype_divergence", DtypeDivergence)
        for key, (divergence, at) in divergences.items():
            if key in references:
                rules.check_dtype_divergence(divergence, references[key][0], at)
        self._proper(replays.values())
        for task in map(Task, self.track.tasks):
            mine = [each for key, each in replays.items() if PromptKey(key).task == task]
            rules.check_divergences(mine, fixed[task.suite].divergence.get(task.language), self.track.sampling)
        timings, throughputs = self._timings(references, replays), self._throughputs(references)
        self._finished(marks)
        return Lines(
            references=[line for line, _ in references.values()],
            answers=[line for line, _ in answers.values()],
            drafter_answers=[line for line, _ in drafter_answers.values()],
            replays=[line for line, _ in replays.values()],
            timings=timings,
            divergences=[line for line, _ in divergences.values()],
            throughputs=throughputs,
        )

    # ----------------------------------------------------------------- the plan

    def _marks(self, environments: tuple[Environment, ...]) -> dict[Unit, ChunkDone]:
        """Every step of the run, finished once, in an environment that is there."""
        found: dict[Unit, ChunkDone] = {}
        for mark, at in self._read(CHUNKS, ChunkDone, len(self.keys)):
            unit = Unit(mark.chunk, mark.stage)
            if unit not in self.keys or unit in found:
                at.add("C005", "chunk", f"{mark.chunk} {mark.stage}", "a step of the run, once")
                continue
            found[unit] = mark
            if not 0 <= mark.environment < len(environments):
                at.add("C005", "environment", mark.environment, f"0 to {len(environments) - 1}")
            elif STAGES[mark.stage].timed:
                self._check_hardware(environments[mark.environment], at)
        for unit in sorted(self.keys.keys() - found.keys(), key=lambda unit: (unit.chunk, unit.stage)):
            self.findings.add("C005", f"{RUN_FOLDER}/{CHUNKS}", "chunk", "nothing", f"{unit.chunk} {unit.stage}")
        return found

    def _check_hardware(self, environment: Environment, at: Place) -> None:
        wanted = self.track.hardware
        if wanted is None:
            return
        named = [name for name in ("processor", "threads") if getattr(wanted, name) is not None]
        fields = ("device", "device_name", *named)
        here = (*(getattr(environment, name) for name in fields), self.config.backend)
        there = (*(getattr(wanted, name) for name in fields), wanted.backend)
        if here != there:
            at.add("B006", "environment", here, there)
        if "device_map" in self.config.verifier.options:
            at.add("B006", "environment", "a verifier spread over several devices", "one device")

    def _finished(self, marks: Mapping[Unit, ChunkDone]) -> None:
        """Each file has the lines that its finished steps claim."""
        claimed: Counter[str] = Counter()
        for unit, mark in marks.items():
            claimed[unit.file] += mark.lines
        for file in sorted({*claimed, *self.counts}):
            if claimed[file] != self.counts[file]:
                self.findings.add("L005", self._stored(file), "lines", self.counts[file], claimed[file])

    def _no_drops(self) -> None:
        for line, at in self._read(DROPPED, Dropped, 0):
            at.add("L001", "key", f"{line.key} dropped", "every prompt of the track")

    def _proper(self, replays: Iterable[tuple[Replay, Place]]) -> None:
        """A drafter has a proper q on every line or on none, as its run says, and then no figure that needs one."""
        for replay, at in replays:
            given = {name: getattr(replay, name) is not None for name in ("overlap", "kl", "cross_entropy")}
            if set(given.values()) != {self.proper}:
                at.add("R007", "kl", given, f"as a drafter {'with' if self.proper else 'without'} a proper q has them")

    # ----------------------------------------------------------------- reading

    def _stored(self, file: str) -> str:
        name = f"{RUN_FOLDER}/{file}"
        return self.tree.stored(name) or name

    def _read(self, file: str, kind: type[R], most: int) -> Iterator[tuple[R, Place]]:
        stored = self._stored(file)
        for number, line in self.tree.lines(f"{RUN_FOLDER}/{file}", kind, most):
            yield line, Place(self.findings, stored, number)

    def _stage_keys(self, stage: str) -> list[str]:
        """The prompts that a stage of this run has, in its order."""
        return [key for unit, keys in self.keys.items() if unit.stage == stage for key in keys]

    def _lines(self, stage: str, kind: type[R]) -> Iterator[tuple[R, Place]]:
        """The lines of a stage that belong there, the others found."""
        file, keys = STAGES[stage].file, set(self._stage_keys(stage))
        most = sum(STAGES[stage].most(self.config, mine) for unit, mine in self.keys.items() if unit.stage == stage)
        for line, at in self._read(file, kind, most):
            self.counts[file] += 1
            key, chunk = getattr(line, "key"), getattr(line, "chunk", None)  # noqa: B009
            if key not in keys:
                at.add("L003", "key", key, "a prompt of this stage")
            elif chunk is not None and chunk != self.chunk_of.get(key):
                at.add("L003", "chunk", chunk, self.chunk_of.get(key))
            else:
                yield line, at

    def _by_key(self, stage: str, kind: type[K]) -> dict[str, tuple[K, Place]]:
        """The one line of every prompt, with its place.

        Where a stage may have no line for a prompt, a task has a line for each of its prompts or for none.
        """
        found: dict[str, tuple[K, Place]] = {}
        for line, at in self._lines(stage, kind):
            if line.key in found:
                at.add("L002", "key", line.key, "each prompt once")
            else:
                found[line.key] = (line, at)
        there = {PromptKey(key).task for key in found}
        for key in self._stage_keys(stage):
            if key not in found and not (STAGES[stage].optional and PromptKey(key).task not in there):
                self.findings.add("L001", self._stored(STAGES[stage].file), "key", "nothing", key)
        return found

    # ----------------------------------------------------------------- clock readings

    def _timings(self, references: Placed[Reference], replays: Placed[Replay]) -> list[Timing]:
        by_key: dict[str, list[Timing]] = {key: [] for key in self._stage_keys("race")}
        records = BACKENDS[self.config.backend].records
        for timing, at in self._lines("race", Timing):
            by_key[timing.key].append(timing)
            if timing.separate_steps and not records:
                at.add("B005", "separate_steps", True, f"false: {self.config.backend} times the steps of each decode")
            if timing.key in references:
                replay = replays.get(timing.key)
                rules.check_timing(
                    timing,
                    references[timing.key][0],
                    replay[0] if replay else None,
                    self.track,
                    drafts_each=self.drafts_each,
                    at=at,
                )
        whole = Place(self.findings, self._stored(STAGES["race"].file), 1)
        once = {key: {(line.round, line.mode): line for line in lines} for key, lines in by_key.items()}
        due: set[str] = set()
        for task in self.track.tasks:
            chunks = [keys for unit, keys in self.keys.items() if unit.stage == "race" and unit.task == task]
            due.update(raced_prefix(self.config, chunks, lambda key: list(once[key].values())))
        for key, timings in sorted(by_key.items()):
            if key in due:
                rules.check_race(timings, self.config.race_rounds, self.config.seed, key, whole)
            elif timings:
                whole.add("B001", "key", f"{key} after the race was decided", "no timing")
        for task in self.track.tasks:
            mine = [timing for key, timings in by_key.items() if PromptKey(key).task == task for timing in timings]
            rules.check_speed(mine, self.track, self.config.verifier.parameters, task, whole)
        return [timing for timings in by_key.values() for timing in timings]

    def _throughputs(self, references: Placed[Reference]) -> list[Throughput]:
        """The sweeps, if the run has them: everything in every round, once, on the references."""
        found, file = list[Throughput](), STAGES["sweep"].file
        chunks = [unit.chunk for unit in self.keys if unit.stage == "sweep"]
        left = {place: half for chunk in chunks for place, half in sweep_places(self.config, chunk).items()}
        readings: set[tuple[int, int]] = set()
        for line, at in self._read(file, Throughput, len(left)):
            self.counts[file] += 1
            half = left.pop(sweep_place(line), None)
            if half is None:
                at.add("L003", "chunk", sweep_place(line), "everything that is swept, once")
                continue
            rules.check_throughput(line, [references[key][0] for key in half if key in references], at)
            reading = (line.prefill_ns, line.decode_ns)
            if reading in readings and line.decode_ns:
                at.add("B005", "decode_ns", "the same reading twice", "a reading of its own for each line")
            readings.add(reading)
            found.append(line)
        if left:
            self.findings.add(
                "L001", self._stored(file), "line", f"{len(left)} are missing", "everything that is swept"
            )
        return found
