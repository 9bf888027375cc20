"""Is a submission what it says? Everything is recomputed from its lines; all faults are found at once.

What must hold between a prompt's lines is in `rules`, what a file may hold in `reading`. Needs no GPU, no torch, no
network and nothing that the submitter says. What files cannot show, that the drafts and sums came from the drafter
named, stays self-reported until someone audits it.

    submission.toml, MANIFEST.sha256, README.md?, drafter/config.json?
    run/ with the files of a run folder, each as it is or gzipped
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from fairspec_bench.engine.drafters.kinds import DRAFTER_KINDS
from fairspec_bench.metrics.prompt_sums import prompt_sums
from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.schemas.base import FairspecError, Record, Sha256
from fairspec_bench.schemas.config import Environment, RunConfig, revision_difference
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Replay, Timing
from fairspec_bench.schemas.report import Report
from fairspec_bench.schemas.stages import MODES, STAGES, race_keys, sweep_keys
from fairspec_bench.schemas.submission import Submission, Verified
from fairspec_bench.scoring.run_folder import CHUNKS, ENVIRONMENTS, FILES, REPORT, RUN
from fairspec_bench.submissions import schema
from fairspec_bench.submissions.findings import Findings, Verdict
from fairspec_bench.submissions.reading import JsonFault, Tree, parse_json
from fairspec_bench.submissions.rules import Place
from fairspec_bench.submissions.run_lines import RUN_FOLDER, check_lines
from fairspec_bench.submissions.schema import check_text, read_submission
from fairspec_bench.suites.tracks import Track, TrackRace, load_track, load_track_references

MANIFEST = "MANIFEST.sha256"
MANIFEST_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
MAX_MANIFEST_BYTES = 2**18
MAX_CONFIG_BYTES = 2**20
MAX_ENVIRONMENTS = 1_000
MAX_ROUNDS = 100
MAX_BATCH = 65_536
VERIFIER_OPTIONS = {"attention", "device_map"}
"""Options of the verifier that change how it is run, not what it is; a spread one is not raced."""
CHUNK_NUMBER = re.compile(r"[0-9]{1,9}")
README, DRAFTER_CONFIG = "README.md", "drafter/config.json"
REQUIRED = (schema.FILE, MANIFEST, *(f"{RUN_FOLDER}/{name}" for name in (RUN, ENVIRONMENTS, CHUNKS, REPORT)))
WORDS: Any = {"notes": True, "suites": {"__all__": {"ranks": True, "tasks": {"__all__": {"flags"}}}}}
"""What a report says of its figures: made anew for everyone who reads it, and worded differently by other versions."""
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


def read_replays(folder: Path, references: Mapping[str, object]) -> dict[str, Replay]:
    """The claimed replays of a submission that has passed, by key; a wrong line is left out."""
    tree = Tree(folder, Findings())
    found = tree.lines(f"{RUN_FOLDER}/{STAGES['replay'].file}", Replay, len(references))
    return {replay.key: replay for _, replay in found}


def read_timings(folder: Path, references: Mapping[str, object]) -> list[Timing]:
    """Likewise its timings."""
    most = len(references) * MAX_ROUNDS * len(MODES)
    return [timing for _, timing in Tree(folder, Findings()).lines(f"{RUN_FOLDER}/{STAGES['race'].file}", Timing, most)]


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
        self.track_reference = load_track_references(self.track, self.tracks)
        self._files()
        config = self._config(entry, self.track)
        if config is None:
            return None
        environments = self._environments()
        for environment in environments:
            if config.device.split(":")[0] != environment.device:
                at = f"{RUN_FOLDER}/{RUN}"
                self.findings.add("B006", at, "device", config.device, environment.device)
        lines = check_lines(self.tree, self.findings, self.track, self.track_reference, config, environments)
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

    def _files(self) -> None:
        """Only what a submission has, each once."""
        known = {*REQUIRED, README, DRAFTER_CONFIG, *(f"{RUN_FOLDER}/{name}" for name in FILES)}
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
        shown = {key: value for key, value in plain.items() if key not in ("chunks", "clusters")}
        check_text(shown, at.file, self.findings)
        _compare(config.model_dump(include=set(_FIXED)), {key: getattr(track, key) for key in _FIXED}, "C001", at)
        self._compare_models(entry, track, config, at)
        self._compare_suites(track, config, at)
        if config.float32_check and (config.dtype == "float32" or not config.sampling.greedy):
            at.add("T006", "float32_check", True, "of greedy texts in a half type only")
        if track.race is not None and race_keys(config):
            self._compare_race(track.race, config, at)
        if config.race_rounds > MAX_ROUNDS:
            at.add("B001", "race_rounds", config.race_rounds, f"at most {MAX_ROUNDS}")
            return None
        if config.gammas and (config.gamma not in config.gammas or not config.batch_sizes):
            at.add("B001", "gammas", config.gammas, f"the run's own, {config.gamma}, among them, and batch sizes")
        largest = max(config.batch_sizes, default=0)
        for chunk, keys in sweep_keys(config).items():
            if len(keys) // 2 < largest:
                at.add("B001", "batch_sizes", largest, f"at most half of the {len(keys)} raced prompts of {chunk}")
        return config if self._plan(config, at) else None

    def _compare_models(self, entry: Submission, track: Track, config: RunConfig, at: Place) -> None:
        if config.verifier.name != track.verifier:
            at.add("C001", "verifier.name", config.verifier.name, track.verifier)
        if revision_difference(track.verifier_revision, config.verifier.revision):
            at.add("C001", "verifier.revision", config.verifier.revision, track.verifier_revision)
        if track.verifier_parameters is not None and config.verifier.parameters != track.verifier_parameters:
            at.add("C001", "verifier.parameters", config.verifier.parameters, track.verifier_parameters)
        for name in sorted(config.verifier.options.keys() - VERIFIER_OPTIONS):
            at.add("C001", f"verifier.options.{name}", config.verifier.options[name], "left out")
        if config.batch_size > MAX_BATCH:
            at.add("C001", "batch_size", config.batch_size, f"at most {MAX_BATCH}")
        if config.drafter is None:
            at.add("S010", "drafter", None, entry.drafter.kind)
            return
        kind = DRAFTER_KINDS.get(config.drafter.kind)
        if kind is not None and (config.drafter.proper, config.drafter.answers) != (kind.proper, kind.answers):
            at.add("S010", "drafter.proper", config.drafter.proper, f"as drafters of kind {kind.name} have it")
        for field in ("kind", "revision", "parameters"):
            here, there = getattr(entry.drafter, field), getattr(config.drafter, field)
            if here != there:
                self.findings.add("S010", schema.FILE, f"drafter.{field}", here, there)
        if kind is not None and kind.needs_files and config.drafter.name != entry.drafter.repo:
            self.findings.add("S010", schema.FILE, "drafter.repo", entry.drafter.repo, config.drafter.name)
        if config.drafter.options.get("trust_remote_code"):
            at.add("W002", "drafter.options.trust_remote_code", True, False)

    def _compare_race(self, race: TrackRace, config: RunConfig, at: Place) -> None:
        """A race of at least what the track's own had: fewer prompts and rounds leave more to choose from."""
        if config.race_prompts is not None and config.race_prompts < race.prompts:
            at.add("B001", "race_prompts", config.race_prompts, f"at least {race.prompts}")
        if config.race_rounds < race.rounds:
            at.add("B001", "race_rounds", config.race_rounds, f"at least {race.rounds}")
        if config.race_width is not None and config.race_width > (race.width or 0):
            at.add("B001", "race_width", config.race_width, f"at most {race.width}")
        if config.race_budget is not None and config.race_budget < (race.budget or math.inf):
            at.add("B001", "race_budget", config.race_budget, f"at least {race.budget}")

    def _compare_suites(self, track: Track, config: RunConfig, at: Place) -> None:
        names = [suite.name for suite in config.suites]
        if names != [suite.name for suite in track.suites]:
            at.add("C002", "suites", names, [suite.name for suite in track.suites])
            return
        for here, there in zip(config.suites, track.suites, strict=True):
            where = f"suites.{there.name}."
            if here.languages != there.languages:
                at.add("C002", f"{where}languages", here.languages, there.languages)
            for field in ("version", "limit", "num_fewshot", "max_new_tokens"):
                if getattr(here, field) != getattr(there, field):
                    at.add("C001", f"{where}{field}", getattr(here, field), getattr(there, field))
            for field in ("data_sha256", "prompts_sha256"):
                _compare(getattr(here, field), getattr(there, field) or {}, "C002", at, f"{where}{field}.")

    def _plan(self, config: RunConfig, at: Place) -> bool:
        """Every prompt of the track once, in a chunk of its task. → whether the lines can be read by this plan."""
        asked = Counter(key for keys in config.chunks.values() for key in keys)
        sound = config.shard is None
        if config.shard is not None:
            at.add("C003", "shard", config.shard, None)
        for key in sorted(self.track_reference.keys() - asked.keys()):
            at.add("C003", "chunks", "nothing", key)
        for key, times in asked.items():
            if times > 1 or key not in self.track_reference:
                at.add("C003", f"chunks.{key}", f"{times} times", "a prompt of the track, once")
        for chunk, keys in config.chunks.items():
            name = PromptKey(chunk)
            if not CHUNK_NUMBER.fullmatch(name.number) or any(PromptKey(key).task != name.task for key in keys):
                at.add("C003", f"chunks.{chunk}", "another name or task", f"a number, prompts of {name.task}")
                sound = False
        for task, mine in _by_task(config).items():
            if (found := next((pair for pair in pairwise(mine) if not _follows(*pair)), None)) is not None:
                at.add("C003", f"chunks.{task}", f"{found[1]} after {found[0]}", "the track's order")
        _compare(
            config.clusters, {key: each.cluster for key, each in self.track_reference.items()}, "C004", at, "clusters."
        )
        return sound and asked.keys() <= self.track_reference.keys()

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
        claimed, found = (each.model_dump(exclude=WORDS) for each in (made[0], report))
        for field, here, there in islice(differences(claimed, found, ""), 5):
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


def _by_task(config: RunConfig) -> dict[str, list[str]]:
    """The prompts of each task in the order of the run."""
    found: dict[str, list[str]] = {}
    for keys in config.chunks.values():
        for key in keys:
            found.setdefault(PromptKey(key).task, []).append(key)
    return found


def _follows(before: str, key: str) -> bool:
    """Whether a prompt comes after another as the suite has them, by number."""
    first, second = PromptKey(before).number, PromptKey(key).number
    return not (CHUNK_NUMBER.fullmatch(first) and CHUNK_NUMBER.fullmatch(second)) or int(first) < int(second)


_FIXED = ("tokenizer_sha256", "chat_template", "chat_template_args", "sampling", "gamma", "seed", "dtype")


def _compare(here: Mapping[str, Any], there: Mapping[str, Any], code: str, at: Place, where: str = "") -> None:
    """Find every key in which two mappings differ."""
    wanted = {key: value.model_dump() if isinstance(value, Record) else value for key, value in there.items()}
    wrong = [key for key in {**wanted, **here} if here.get(key) != wanted.get(key)]
    for key in wrong:
        at.add(code, f"{where}{key}", here.get(key), wanted.get(key))


def differences(here: Any, there: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Where a report differs from the one found: numbers by more than another machine's last digits, all else at all.

    A figure that it lacks is no difference: an older version, which had no such figure, may have written it.
    """
    if isinstance(here, dict) and isinstance(there, dict):
        for key, value in here.items():
            yield from differences(value, there.get(key), f"{where}.{key}".lstrip("."))
    elif isinstance(here, tuple) and isinstance(there, tuple) and len(here) == len(there):
        for place, pair in enumerate(zip(here, there, strict=True)):
            yield from differences(*pair, f"{where}.{place}")
    elif isinstance(here, float) and isinstance(there, float):
        if not math.isclose(here, there, rel_tol=FIGURE_SHARE, abs_tol=FIGURE_SLACK):
            yield where, here, there
    elif here != there:
        yield where, here, there
