"""Is a submission what it says? Everything is recomputed from its lines; all faults are found at once.

Knows the folder's files and the order of checking. What a prompt's lines owe each other is in `algebra`, what a file
may hold in `reading`. Needs no GPU, no torch, no network and none of the submitter's word. What files cannot show,
that the drafts and sums came from the drafter named, stays self-reported until someone audits it.

    submission.toml, MANIFEST.sha256, README.md?, drafter/config.json?
    run/{run,report}.json, run/{environments,shards}.jsonl, run/<suite>/<language>/<stage>.jsonl     each, or its .gz
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from fairspec_bench.entries import Submission, Verified
from fairspec_bench.measure.enough import raced_prefix
from fairspec_bench.measure.lines import Lines, suite_of, task_of
from fairspec_bench.measure.report import build_report
from fairspec_bench.measure.sums import prompt_sums
from fairspec_bench.records import (
    Answer,
    Departure,
    Dropped,
    Environment,
    FairspecError,
    Record,
    Replay,
    Report,
    RunConfig,
    Sha256,
    ShardDone,
    Throughput,
    Timing,
    Trace,
)
from fairspec_bench.score.folder import (
    DROPPED,
    ENVIRONMENTS,
    REPORT,
    RUN,
    SHARDS,
    STAGES,
    TIMED,
    Unit,
    race_keys,
    sweep_keys,
    sweep_place,
    sweep_places,
    units,
)
from fairspec_bench.submit import algebra, schema
from fairspec_bench.submit.algebra import MODES, Place
from fairspec_bench.submit.findings import Findings, Verdict
from fairspec_bench.submit.reading import JsonFault, Tree, parse_json
from fairspec_bench.submit.schema import check_text, read_submission
from fairspec_bench.suite.tracks import Track, load_reference, load_track

L = TypeVar("L", Trace, Answer, Replay, Timing, Departure)

MANIFEST = "MANIFEST.sha256"
MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
MAX_MANIFEST_BYTES = 2**18
MAX_CONFIG_BYTES = 2**20
MAX_ENVIRONMENTS = 1_000
MAX_LINES_PER_TASK = 100_000
MAX_ROUNDS = 100
SHARD_NUMBER = re.compile(r"[0-9]{1,9}")
README, DRAFTER_CONFIG, RUN_FOLDER = "README.md", "drafter/config.json", "run"
REQUIRED = (schema.FILE, MANIFEST, *(f"{RUN_FOLDER}/{name}" for name in (RUN, ENVIRONMENTS, SHARDS, REPORT)))
FIGURE_SHARE, FIGURE_SLACK = 1e-6, 1e-9
"""How far a figure of the report may lie from the recomputed one: another machine's last digits."""


def check(folder: Path, tracks: Path | None = None) -> Verdict:
    """Check a submission against its track; `tracks` is the folder of track files, the package's own by default.

    Never raises for anything a folder holds: a fault of the checker itself is finding X001, and nothing is accepted.
    """
    findings = Findings()
    checker = _Checker(folder, findings, tracks)
    verified = None
    try:
        verified = checker.run()
    except Exception as error:  # whatever a folder provokes must end in a refusal, not in a traceback
        findings.add("X001", ".", "checker", f"{type(error).__name__}: {error}", "a finished check")
    return Verdict(
        findings=tuple(findings.kept),
        omitted=findings.omitted,
        track=checker.track.name if checker.track else None,
        manifest_sha256=checker.manifest_sha256,
        verified=verified if not findings else None,
    )


def sealed(folder: Path) -> Sha256 | None:
    """The hash of a folder's manifest if it lists every file with its true hash, else `None`: quick, and no verdict."""
    findings = Findings()
    try:
        checker = _Checker(folder, findings, None)
        checker.read_manifest()
    except Exception:  # as in `check`: whatever a folder provokes
        return None
    return None if findings else checker.manifest_sha256


def read_replays(folder: Path, track: Track) -> dict[str, Replay]:
    """The claimed replays of a submission that has passed, by key; a wrong line is left out."""
    tree = Tree(folder, Findings())
    most = len(track.tasks) * MAX_LINES_PER_TASK
    names = [f"{RUN_FOLDER}/{task}/replay.jsonl" for task in track.tasks]
    return {replay.key: replay for name in names for _, replay in tree.lines(name, Replay, most)}


class _Checker:
    """One check, in its order. Each step adds to the findings; only a step without its ground is left out."""

    def __init__(self, folder: Path, findings: Findings, tracks: Path | None):
        self.folder, self.findings, self.tracks = folder, findings, tracks
        self.manifest_sha256: Sha256 | None = None
        self.track: Track | None = None

    def run(self) -> Verified | None:
        if self.folder.is_symlink() or not self.folder.is_dir():
            self.findings.add("F001", ".", "folder", "no folder", "the folder of one submission")
            return None
        self.read_manifest()
        self._loose_files()
        entry = self._submission()
        if entry is None or self.track is None:
            return None
        self.reference = load_reference(self.track, self.tracks)
        self._files(self.track)
        config = self._config(entry, self.track)
        if config is None:
            return None
        environments = self._environments()
        lines = _RunLines(self, self.track, config).check(environments)
        return None if self.findings else self._verified(entry, self.track, config, environments, lines)

    # ----------------------------------------------------------------- files

    def read_manifest(self) -> None:
        """Open the folder, and hold its files against its manifest."""
        self.tree = Tree(self.folder, self.findings)
        raw = self.tree.read(MANIFEST, MAX_MANIFEST_BYTES)
        if raw is None:
            return
        self.manifest_sha256 = hashlib.sha256(raw).hexdigest()
        listed: dict[str, str] = {}
        for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
            match = MANIFEST_LINE.fullmatch(line)
            if match is None:
                self.findings.add("M001", MANIFEST, "line", line, "<sha256>  <file>", line=number)
            elif match[2] in listed:
                self.findings.add("M005", MANIFEST, "file", match[2], "each file once", line=number)
            else:
                listed[match[2]] = match[1]
                self._listed(number, match[2], match[1])
        for name in sorted(self.tree.files.keys() - listed.keys() - {MANIFEST}):
            self.findings.add("M002", MANIFEST, "file", "nothing", name)

    def _listed(self, number: int, name: str, digest: str) -> None:
        if name not in self.tree.files:
            self.findings.add("M003", MANIFEST, "file", name, "a file of this folder", line=number)
        elif (found := self.tree.sha256(name)) is not None and found != digest:
            self.findings.add("M004", MANIFEST, name, digest, found, line=number)

    def _loose_files(self) -> None:
        """The files that stand by themselves: what must be there, the readme, the drafter's own configuration."""
        for name in REQUIRED:
            if self.tree.stored(name) is None:
                self.findings.add("F006", name, "file", "nothing", "the file")
        raw = self.tree.read(README, schema.MAX_BYTES) if README in self.tree.files else None
        if raw is not None:
            check_text(raw.decode("utf-8", "replace"), README, self.findings)
        raw = self.tree.read(DRAFTER_CONFIG, MAX_CONFIG_BYTES) if DRAFTER_CONFIG in self.tree.files else None
        if raw is not None:
            self._drafter_config(raw)

    def _drafter_config(self, raw: bytes) -> None:
        try:
            plain = parse_json(raw)
        except JsonFault as fault:
            self.findings.add(fault.code, DRAFTER_CONFIG, "json", fault.got, fault.expected)
            return
        check_text(plain, DRAFTER_CONFIG, self.findings)
        if isinstance(plain, dict) and "auto_map" in plain:
            self.findings.add("W002", DRAFTER_CONFIG, "auto_map", plain["auto_map"], "no auto_map")

    def _files(self, track: Track) -> None:
        """Only what a submission to this track has, each once."""
        stages = [f"{stage}.jsonl" for stage in STAGES] + [DROPPED]
        known = {*REQUIRED, README, DRAFTER_CONFIG}
        known |= {f"{RUN_FOLDER}/{task}/{name}" for task in track.tasks for name in stages}
        for name in self.tree.files:
            plain = name.removesuffix(".gz")
            if name.lower().endswith(schema.PICKLED):
                self.findings.add("W001", name, "file", name, "no weights in a submission")
            elif name not in known and not (plain in known and plain.startswith(f"{RUN_FOLDER}/")):
                self.findings.add("F005", name, "file", name, "a file of the run, or none")
            elif plain != name and plain in self.tree.files:
                self.findings.add("F009", name, "file", "both", "one of the two")

    # ----------------------------------------------------------------- who and what

    def _submission(self) -> Submission | None:
        raw = self.tree.read(schema.FILE, schema.MAX_BYTES)
        entry = None if raw is None else read_submission(raw, self.findings)
        if entry is None:
            return None
        named = entry.drafter.files.get(Path(DRAFTER_CONFIG).name)
        if DRAFTER_CONFIG in self.tree.files and (found := self.tree.sha256(DRAFTER_CONFIG)) != named:
            self.findings.add("S011", DRAFTER_CONFIG, "sha256", found, named)
        try:
            track = load_track(entry.track, self.tracks)
        except FairspecError as error:
            self.findings.add("S006", schema.FILE, "track", entry.track, str(error))
            return entry
        if track.open_fields:
            self.findings.add("S007", schema.FILE, "track", ", ".join(track.open_fields), "a pinned track")
            return entry
        self.track = track
        return entry

    def _config(self, entry: Submission, track: Track) -> RunConfig | None:
        name = f"{RUN_FOLDER}/{RUN}"
        made = self.tree.document(name, RunConfig)
        if made is None:
            return None
        config, plain = made
        at = Place(self.findings, self.tree.stored(name) or name, 1)
        told = {key: value for key, value in plain.items() if key not in ("shards", "clusters")}
        check_text(told, at.file, self.findings)
        _compare(config.model_dump(include=set(_FIXED)), {key: getattr(track, key) for key in _FIXED}, "C001", at)
        self._compare_models(entry, track, config, at)
        self._compare_suites(track, config, at)
        if config.float32_check and (config.dtype == "float32" or not config.rule.greedy):
            at.add("T006", "float32_check", True, "of greedy texts in a half type only")
        if config.race_rounds > MAX_ROUNDS:
            at.add("B001", "race_rounds", config.race_rounds, f"at most {MAX_ROUNDS}")
            return None
        if config.gammas and (config.gamma not in config.gammas or not config.batch_sizes):
            at.add("B001", "gammas", config.gammas, f"the run's own, {config.gamma}, among them, and batch sizes")
        largest = max(config.batch_sizes, default=0)
        for shard, keys in sweep_keys(config).items():
            if len(keys) // 2 < largest:
                at.add("B001", "batch_sizes", largest, f"at most half of the {len(keys)} raced prompts of {shard}")
        return config if self._plan(config, at) else None

    def _compare_models(self, entry: Submission, track: Track, config: RunConfig, at: Place) -> None:
        verifier = {"name": config.verifier.name, "revision": config.verifier.revision}
        wanted = {"name": track.verifier, "revision": track.verifier_revision}
        _compare(verifier, wanted, "C001", at, "verifier.")
        if config.drafter is None:
            at.add("S010", "drafter", None, entry.drafter.kind)
            return
        for field in ("kind", "revision", "parameters"):
            here, there = getattr(entry.drafter, field), getattr(config.drafter, field)
            if here != there:
                self.findings.add("S010", schema.FILE, f"drafter.{field}", here, there)
        if config.drafter.options.get("trust_remote_code"):
            at.add("W002", "drafter.options.trust_remote_code", True, False)

    def _compare_suites(self, track: Track, config: RunConfig, at: Place) -> None:
        names = [suite.name for suite in config.suites]
        if names != [suite.name for suite in track.suites]:
            at.add("C002", "suites", names, [suite.name for suite in track.suites])
            return
        for here, there in zip(config.suites, track.suites, strict=True):
            where = f"suites.{there.name}."
            if here.languages != there.languages:
                at.add("C002", f"{where}languages", here.languages, there.languages)
            for field in ("version", "limit", "num_fewshot", "cap"):
                if getattr(here, field) != getattr(there, field):
                    at.add("C001", f"{where}{field}", getattr(here, field), getattr(there, field))
            for field in ("data_sha256", "prompts_sha256"):
                _compare(getattr(here, field), getattr(there, field) or {}, "C002", at, f"{where}{field}.")

    def _plan(self, config: RunConfig, at: Place) -> bool:
        """Every prompt of the track once, in a shard of its task. → whether the lines can be read by this plan."""
        asked = Counter(key for keys in config.shards.values() for key in keys)
        sound = config.part is None
        if config.part is not None:
            at.add("C003", "part", config.part, None)
        for key in sorted(self.reference.keys() - asked.keys()):
            at.add("C003", "shards", "nothing", key)
        for key, times in asked.items():
            if times > 1 or key not in self.reference:
                at.add("C003", f"shards.{key}", f"{times} times", "a prompt of the track, once")
        for shard, keys in config.shards.items():
            named = SHARD_NUMBER.fullmatch(shard.rpartition("/")[2])
            if not named or any(task_of(key) != task_of(shard) for key in keys):
                at.add("C003", f"shards.{shard}", "another name or task", f"a number, prompts of {task_of(shard)}")
                sound = False
        _compare(config.clusters, {key: each.cluster for key, each in self.reference.items()}, "C004", at, "clusters.")
        return sound and asked.keys() <= self.reference.keys()

    def _environments(self) -> tuple[Environment, ...]:
        name = f"{RUN_FOLDER}/{ENVIRONMENTS}"
        found = self.tree.lines(name, Environment, MAX_ENVIRONMENTS)
        for _, environment in found:
            check_text(environment.model_dump(), name, self.findings)
        return tuple(environment for _, environment in found)

    # ----------------------------------------------------------------- what follows from the lines

    def _verified(
        self,
        entry: Submission,
        track: Track,
        config: RunConfig,
        environments: tuple[Environment, ...],
        lines: Lines,
    ) -> Verified | None:
        name = f"{RUN_FOLDER}/{REPORT}"
        made = self.tree.document(name, Report)
        if made is None:
            return None
        report = build_report(config, environments, lines, replicates=track.replicates)
        at = Place(self.findings, self.tree.stored(name) or name, 1)
        for field, here, there in islice(differences(made[0].model_dump(), report.model_dump(), ""), 5):
            at.add("P001", field, here, there)
        assert self.manifest_sha256 is not None
        assert track.reference_sha256 is not None
        return Verified(
            manifest_sha256=self.manifest_sha256,
            reference_sha256=track.reference_sha256,
            entry=entry,
            report=report,
            sums=prompt_sums(config, lines),
        )


_FIXED = ("tokenizer_sha256", "chat_template", "rule", "gamma", "seed", "dtype")


def _compare(here: Mapping[str, Any], there: Mapping[str, Any], code: str, at: Place, where: str = "") -> None:
    """Find every key in which two mappings differ."""
    wanted = {key: value.model_dump() if isinstance(value, Record) else value for key, value in there.items()}
    wrong = [key for key in {**wanted, **here} if here.get(key) != wanted.get(key)]
    for key in wrong:
        at.add(code, f"{where}{key}", here.get(key), wanted.get(key))


def differences(here: Any, there: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two reports differ: numbers by more than another machine's last digits, all else at all."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in {**there, **here}:
            yield from differences(here.get(key), there.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(here, tuple) and isinstance(there, tuple) and len(here) == len(there):
        for place, pair in enumerate(zip(here, there, strict=True)):
            yield from differences(*pair, f"{where}.{place}")
    elif isinstance(here, float) and isinstance(there, float):
        if not math.isclose(here, there, rel_tol=FIGURE_SHARE, abs_tol=FIGURE_SLACK):
            yield where, here, there
    elif here != there:
        yield where, here, there


class _RunLines:
    """The lines of a run against its plan, the track and each other."""

    def __init__(self, checker: _Checker, track: Track, config: RunConfig):
        self.tree, self.findings, self.reference = checker.tree, checker.findings, checker.reference
        self.track, self.config = track, config
        self.shard_of = {key: shard for shard, keys in config.shards.items() for key in keys}
        self.kind = config.drafter.kind if config.drafter else "model"
        self.counts: Counter[str] = Counter()

    def check(self, environments: tuple[Environment, ...]) -> Lines:
        """Find what is wrong with the lines; → them, sound only if nothing was found."""
        marks = self._marks(environments)
        made = [self._task(suite_of(task), task) for task in self.track.tasks]
        self._finished(marks)
        return Lines(
            traces=[line for each in made for line in each.traces],
            answers=[line for each in made for line in each.answers],
            drafter_answers=[line for each in made for line in each.drafter_answers],
            replays=[line for each in made for line in each.replays],
            timings=[line for each in made for line in each.timings],
            departures=[line for each in made for line in each.departures],
            throughputs=[line for each in made for line in each.throughputs],
        )

    def _marks(self, environments: tuple[Environment, ...]) -> dict[Unit, ShardDone]:
        """Every step of the run, finished once, in an environment that is there."""
        name, known = f"{RUN_FOLDER}/{SHARDS}", set(units(self.config))
        found: dict[Unit, ShardDone] = {}
        for number, mark in self.tree.lines(name, ShardDone, len(known)):
            unit, at = Unit(mark.shard, mark.stage), Place(self.findings, self.tree.stored(name) or name, number)
            if unit not in known or unit in found:
                at.add("C005", "shard", f"{mark.shard} {mark.stage}", "a step of the run, once")
                continue
            found[unit] = mark
            if not 0 <= mark.environment < len(environments):
                at.add("C005", "environment", mark.environment, f"0 to {len(environments) - 1}")
            elif mark.stage in TIMED:
                self._check_hardware(environments[mark.environment], at)
        for unit in sorted(known - found.keys(), key=lambda unit: (unit.shard, unit.stage)):
            self.findings.add("C005", name, "shard", "nothing", f"{unit.shard} {unit.stage}")
        return found

    def _check_hardware(self, environment: Environment, at: Place) -> None:
        wanted = self.track.hardware
        if wanted is None:
            return
        here = (environment.device, environment.device_name, self.config.backend)
        there = (wanted.device, wanted.device_name, wanted.backend)
        if here != there:
            at.add("B006", "environment", here, there)
        if "device_map" in self.config.verifier.options:
            at.add("B006", "environment", "a verifier spread over several devices", "one device")

    def _finished(self, marks: Mapping[Unit, ShardDone]) -> None:
        claimed: Counter[str] = Counter()
        for unit, mark in marks.items():
            claimed[unit.file] += mark.lines
        for file in sorted({*claimed, *self.counts}):
            if claimed[file] != self.counts[file]:
                stored = self.tree.stored(f"{RUN_FOLDER}/{file}") or f"{RUN_FOLDER}/{file}"
                self.findings.add("L005", stored, "lines", self.counts[file], claimed[file])

    def _task(self, suite: str, task: str) -> Lines:
        keys = [key for key in self.reference if task_of(key) == task]
        fixed = next(each for each in self.track.suites if each.name == suite)
        self._no_drops(task)
        traces = self._by_key(task, "trace", Trace, keys)
        for key, (trace, at) in traces.items():
            algebra.check_trace(trace, self.reference[key], self.track, fixed.cap, bool(fixed.stops), at)
        answers = self._by_key(task, "answer", Answer, keys)
        for key, (answer, at) in answers.items():
            algebra.check_answer(answer, self.reference[key], at)
        drafter_answers = self._by_key(task, "drafter_answer", Answer, keys, optional=True)
        for answer, at in drafter_answers.values():
            algebra.check_drafter_answer(answer, at)
        replays = self._by_key(task, "replay", Replay, keys)
        for key, (replay, at) in replays.items():
            if key in traces:
                algebra.check_replay(replay, traces[key][0], self.reference[key], self.track, at)
        unasked = not self.config.float32_check
        departures = self._by_key(task, "departure", Departure, keys, optional=unasked)
        for key, (departure, at) in departures.items():
            if key in traces:
                algebra.check_departure(departure, traces[key][0], at)
        self._proper(replays)
        algebra.check_departures(replays.values(), fixed.divergence.get(task.rpartition("/")[2]), self.track.rule)
        return Lines(
            traces=[line for line, _ in traces.values()],
            answers=[line for line, _ in answers.values()],
            drafter_answers=[line for line, _ in drafter_answers.values()],
            replays=[line for line, _ in replays.values()],
            timings=self._timings(task, traces, replays),
            departures=[line for line, _ in departures.values()],
            throughputs=self._throughputs(task, traces),
        )

    def _no_drops(self, task: str) -> None:
        name = f"{RUN_FOLDER}/{task}/{DROPPED}"
        for number, line in self.tree.lines(name, Dropped, 0):
            at = Place(self.findings, self.tree.stored(name) or name, number)
            at.add("L001", "key", f"{line.key} dropped", "every prompt of the track")

    def _proper(self, replays: Mapping[str, tuple[Replay, Place]]) -> None:
        """A drafter has a proper q on every line or on none, and then no figure that needs one."""
        for replay, at in replays.values():
            given = {name: getattr(replay, name) is not None for name in ("overlap", "kl", "cross_entropy")}
            if len(set(given.values())) > 1 or (self.kind in ("model", "ngram")) != all(given.values()):
                at.add("R007", "kl", given, f"as a drafter of kind {self.kind} has them")

    def _by_key(
        self, task: str, stage: str, kind: type[L], keys: list[str], *, optional: bool = False
    ) -> dict[str, tuple[L, Place]]:
        """The one line of every prompt of a task, with its place."""
        found: dict[str, tuple[L, Place]] = {}
        for line, at in self._lines(task, stage, kind, set(keys)):
            if line.key in found:
                at.add("L002", "key", line.key, "each prompt once")
            else:
                found[line.key] = (line, at)
        missing = [] if optional and not found else [key for key in keys if key not in found]
        file = f"{RUN_FOLDER}/{task}/{stage}.jsonl"
        for key in missing:
            self.findings.add("L001", self.tree.stored(file) or file, "key", "nothing", key)
        return found

    def _lines(self, task: str, stage: str, kind: type[L], keys: set[str]) -> Iterator[tuple[L, Place]]:
        """The lines of a file that belong there, the others found."""
        name = f"{RUN_FOLDER}/{task}/{stage}.jsonl"
        runs = len(MODES) * self.config.race_rounds if kind is Timing else 1
        for number, line in self.tree.lines(name, kind, len(keys) * runs):
            self.counts[f"{task}/{stage}.jsonl"] += 1
            at = Place(self.findings, self.tree.stored(name) or name, number)
            shard = line.shard if isinstance(line, Trace | Replay | Departure | Timing) else None
            if line.key not in keys:
                at.add("L003", "key", line.key, f"a prompt of {task}")
            elif shard is not None and shard != self.shard_of.get(line.key):
                at.add("L003", "shard", shard, self.shard_of.get(line.key))
            else:
                yield line, at

    def _timings(
        self, task: str, traces: Mapping[str, tuple[Trace, Place]], replays: Mapping[str, tuple[Replay, Place]]
    ) -> list[Timing]:
        shards = [keys for shard, keys in race_keys(self.config).items() if task_of(shard) == task]
        raced = {key for keys in shards for key in keys}
        by_key: dict[str, list[Timing]] = {key: [] for key in raced}
        for timing, at in self._lines(task, "timing", Timing, raced):
            by_key[timing.key].append(timing)
            if timing.key in traces:
                replay = replays.get(timing.key)
                trace = traces[timing.key][0]
                algebra.check_timing(timing, trace, replay[0] if replay else None, self.track, self.kind, at)
        name = f"{RUN_FOLDER}/{task}/timing.jsonl"
        whole = Place(self.findings, self.tree.stored(name) or name, 1)
        once = {key: {(line.round, line.mode): line for line in lines} for key, lines in by_key.items()}
        due = set(raced_prefix(self.config, shards, lambda key: list(once[key].values())))
        for key, timings in sorted(by_key.items()):
            if key in due:
                algebra.check_race(timings, self.config.race_rounds, key, whole)
            elif timings:
                whole.add("B001", "key", f"{key} after the race knew enough", "no timing")
        return [timing for timings in by_key.values() for timing in timings]

    def _throughputs(self, task: str, traces: Mapping[str, tuple[Trace, Place]]) -> list[Throughput]:
        """The sweep of a task, if the run has one: everything in every round, once, on the reference texts."""
        found, name = list[Throughput](), f"{RUN_FOLDER}/{task}/sweep.jsonl"
        swept = {shard: keys for shard, keys in sweep_keys(self.config).items() if task_of(shard) == task}
        left = {
            (shard, *place): half
            for shard, keys in swept.items()
            for place, half in sweep_places(self.config, keys).items()
        }
        readings: set[tuple[int, int]] = set()
        for number, line in self.tree.lines(name, Throughput, len(left)):
            self.counts[f"{task}/sweep.jsonl"] += 1
            at = Place(self.findings, self.tree.stored(name) or name, number)
            half = left.pop((line.shard, *sweep_place(line)), None)
            if half is None:
                at.add("L003", "shard", f"{line.shard} {sweep_place(line)}", "everything that is swept, once")
                continue
            algebra.check_throughput(line, [traces[key][0] for key in half if key in traces], at)
            reading = (line.prefill_ns, line.decode_ns)
            if reading in readings and line.decode_ns:
                at.add("B005", "decode_ns", "the same reading twice", "a reading of its own for each line")
            readings.add(reading)
            found.append(line)
        if left:
            stored = self.tree.stored(name) or name
            self.findings.add("L001", stored, "line", f"{len(left)} are missing", "everything that is swept")
        return found
