"""Submissions and their tracks: created, scored, packed, checked, audited."""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairspec_bench.api.options import cache_folder, check_run, run_options
from fairspec_bench.engine.drafters.kinds import drafter_kind
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.hub import COMMIT, local_folder
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import GZIP, read_record, write_record
from fairspec_bench.schemas.options import (
    AuditOptions,
    PairOptions,
    RunOptions,
    check_values,
    parameters,
    takes,
    unswept,
)
from fairspec_bench.schemas.report import Report
from fairspec_bench.schemas.submission import Audit

if TYPE_CHECKING:
    from fairspec_bench.scoring.prepare import RunContext
    from fairspec_bench.scoring.run import ProgressCallback
    from fairspec_bench.submissions.findings import Verdict
    from fairspec_bench.suites.tracks import Track, TrackReference


SUBMISSIONS = Path("submissions")
AUDITS = "_audits"
"""The folder beside the submissions where maintainers keep audits: no slug begins so."""
DECIDES = ("submissions", "metrics", "schemas", "suites", "scoring/run_folder.py", "engine/drafters/kinds.py")
"""The sources that a verdict follows from: what others passed is checked again."""
MACHINE = tuple(map(unswept, parameters(RunOptions, ("device", "batch_size"))))
"""Options of a run that depend on the machine: a track leaves them free."""
RACES = parameters(RunOptions, ("race_prompts", "race_rounds", "race_width", "race_budget"))
DRAFTER_ARGS = parameters(PairOptions, ("drafter_args",))
AUDIT = parameters(AuditOptions)
PUBLISHED = ("*.safetensors", "*.json", "*.model", "*.txt")


def submit_new(
    folder: str | Path, track: str, drafter: str | None = None, run: str | Path | None = None, **fields: Any
) -> Path:
    """Begin a submission of a `drafter` still to be scored, or of a finished `run`; → its `submission.toml`.

    `fields` are those of `submissions.pack.new`; what is not given stays blank. Raises `FairspecError`.
    """
    from fairspec_bench.submissions import pack

    if (drafter is None) == (run is None):
        raise FairspecError("give either the drafter to be scored (--drafter) or a finished run (--run).")
    if drafter is not None:
        repo = Path(drafter).name if Path(drafter).is_dir() else drafter
        fields = {"repo": repo, "kind": drafter_spec(drafter).kind} | fields
    return pack.new(Path(folder), track, None if run is None else Path(run), **fields)


@takes(*MACHINE, *RACES, *DRAFTER_ARGS)
def submit_score(
    folder: str | Path,
    drafter: str | None = None,
    *,
    verifier: str | None = None,
    tracks: Path | None = None,
    on_progress: ProgressCallback | None = None,
    **options: Any,
) -> Report:
    """Run a submission's drafter on its track and pack it: run, description, gzip, manifest; → its report.

    The same call resumes an interrupted one.

    Args:
        folder: the submission's.
        drafter: the folder or Hub id that holds it here, by default the submission's name of it.
        verifier: likewise for the track's verifier.
        tracks: the folder of tracks, by default the package's.
        on_progress: called after every chunk of work.
        **options: docs/OPTIONS.md.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    from fairspec_bench.scoring.run_folder import RUN
    from fairspec_bench.submissions import pack
    from fairspec_bench.submissions.run_lines import RUN_FOLDER

    folder = Path(folder)
    entry = pack.read_entry(folder)
    track, track_references = _track(str(entry.get("track")), tracks)
    out = folder / RUN_FOLDER
    if (out / f"{RUN}{GZIP}").exists():
        pack.compress(folder)
        raise FairspecError(f"{out}: is scored. Seal it with fairspec submit pack, or remove it to score again.")
    name = str(entry.get("drafter", {}).get("repo"))
    chosen = _track_options(track, name, drafter or name, verifier, **options)
    from fairspec_bench.scoring.run import run

    prepared, texts = _prepared(track, track_references, chosen)
    report = run(prepared, out, cache=cache_folder(), given=texts, watch=on_progress)
    pack.describe(folder, prepared.config, _published(drafter or name))
    pack.compress(folder)
    pack.pack(folder)
    return report


def submit_pack(folder: str | Path) -> Path:
    """Gzip a submission's run and write its manifest anew; → the manifest. Raises `FairspecError`."""
    from fairspec_bench.submissions import pack

    pack.compress(Path(folder))
    return pack.pack(Path(folder))


def submit_check(folder: str | Path, *, keep: bool = True, tracks: Path | None = None) -> Verdict:
    """Recompute everything a submission claims, without torch; → the verdict, with every fault at once.

    What passed is kept under the hash of its manifest (`keep`), for the site to read. Raises nothing for what a
    folder holds: that is the verdict's.
    """
    from fairspec_bench.submissions.check import check

    verdict = check(Path(folder), tracks)
    if keep and verdict.verified is not None:
        path = kept_check(verdict.verified.manifest_sha256)
        with suppress(OSError):  # a cache that cannot be written costs a second check, not the verdict
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(verdict.verified.model_dump_json().encode(), 6, mtime=0))
    return verdict


def changed_submission(base: str, root: str | Path = ".", *, tracks: Path | None = None) -> Path:
    """The one submission folder that a branch changes since `base`, of the git checkout at `root`.

    Raises `FairspecError` where anything else is changed too, or nothing: one pull request, one submission; for a name
    that is no slug; and for a track that is archived.
    """
    command = ["git", "-C", str(root), "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", f"{base}...HEAD"]
    from fairspec_bench.submissions import pack
    from fairspec_bench.submissions.reading import unsafe_name
    from fairspec_bench.suites.tracks import list_tracks as tracks_of

    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise FairspecError(f"git diff {base}...HEAD: {said.strip().splitlines()[0]}. Fetch the base branch.") from None
    names = sorted(filter(None, done.stdout.split("\0")))
    homes = {"/".join(name.split("/")[:2]) for name in names}
    folder = Path(root) / next(iter(homes), "")
    other = [name for name in names if not name.startswith(f"{SUBMISSIONS}/") or name.count("/") < 2]
    if other or len(homes) != 1 or folder.name[0] in "._":
        shown = ascii((other or sorted(homes) or ["nothing"])[0])
        raise FairspecError(f"{shown}: changed. A pull request holds one folder {SUBMISSIONS}/SLUG and nothing else.")
    if not pack.SLUG.fullmatch(folder.name) or unsafe_name(folder.name):
        raise FairspecError(f"{folder.name!a}: no slug. Use lower-case letters, digits and hyphens, at most 63.")
    if not folder.is_dir():
        raise FairspecError(f"{folder}: removed. Ask the maintainers to withdraw a submission (CONTRIBUTING.md).")
    archived = {track.name: track.archived for track in tracks_of(tracks) if track.archived}
    try:
        name = str(pack.read_entry(folder).get("track"))
    except FairspecError:
        return folder  # the check says what is wrong with it
    if name in archived:
        raise FairspecError(f"track {name}: takes no submissions ({archived[name]}). Choose another.")
    return folder


@takes(*AUDIT, *MACHINE)
def submit_audit(
    folder: str | Path,
    drafter: str | None = None,
    *,
    auditor: str,
    verifier: str | None = None,
    sample: int = 45,
    fresh: int = 10,
    races: int = 1,
    seed: int | None = None,
    private: Path | None = None,
    tracks: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Audit:
    """Score a sample of a submission again, and unseen prompts; → the audit, kept in `_audits` beside it.

    Args:
        folder: the submission's.
        drafter: the folder or Hub id that holds it here, by default the submission's name of it.
        auditor: who audits.
        verifier: where the track's verifier lies here.
        sample: prompts of each language that are scored again; fewer give no mark of audited drafts.
        fresh: unseen prompts of each language.
        races: raced prompts of each language that are raced again.
        seed: of the sample, drawn now by default.
        private: a folder of questions, `<suite>/<language>.txt` or `<language>.txt`, one a line, line k the same
            problem in each. Embedded suites make their own.
        tracks: the folder of tracks, by default the package's.
        say: called with a line at the beginning of each stage.
        **options: docs/OPTIONS.md.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    from fairspec_bench.submissions.check import read_replays, read_timings

    folder = Path(folder)
    check_values(AuditOptions(auditor, sample, fresh, races, private, seed))
    verdict = submit_check(folder, tracks=tracks)
    if verdict.verified is None:
        raise FairspecError(f"{folder}: does not pass the check. First: fairspec submit check {folder}.")
    verified = verdict.verified
    track, track_references = _track(verified.entry.track, tracks)
    if private is not None:
        _check_private(track, private, say)
    submitted, ran = verified.entry.drafter, verified.report.config.drafter
    arguments = dict(ran.options) if ran else {}
    if drafter is None and Path(submitted.repo).expanduser().exists() and drafter_kind(submitted.kind).needs_files:
        raise FairspecError(f"{submitted.repo}: a folder here, named by the submission. Say which with --drafter.")
    if drafter is None and re.fullmatch("[0-9a-f]{40}", submitted.revision or ""):
        arguments["revision"] = submitted.revision
    chosen = _track_options(
        track, submitted.repo, drafter or submitted.repo, verifier, **options, drafter_args=arguments
    )
    from fairspec_bench.submissions import pack
    from fairspec_bench.submissions.audit import audit

    for name, path in _published(chosen.drafter.source if chosen.drafter else "").items():
        if pack.sha256(path) != submitted.files.get(name, pack.sha256(path)):
            raise FairspecError(
                f"{path}: not the file that the submission names. Audit the drafter that was submitted."
            )
    prepared, _ = _prepared(track, track_references, chosen)
    found = audit(
        track,
        track_references,
        verified,
        read_replays(folder, track_references),
        prepared,
        timed=read_timings(folder, track_references),
        sample=sample,
        fresh=fresh,
        races=races,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        auditor=auditor,
        date=date.today().isoformat(),
        private=private,
        say=say,
    )
    write_record(folder.parent / AUDITS / f"{folder.name}.json", found)
    return found


def _check_private(track: Track, private: Path, say: Callable[[str], None]) -> None:
    """Refuse a private folder that does not exist or that no suite uses; say which suites do not use it."""
    from fairspec_bench.suites.fresh_prompts import can_be_fresh

    if not private.is_dir():
        raise FairspecError(f"{private}: no such folder. Give --private a folder of <language>.txt, or leave it out.")
    embedded = [suite.name for suite in track.suites if can_be_fresh(suite.name, None)]
    if len(embedded) == len(track.suites):
        raise FairspecError(
            f"--private {private}: track {track.name} has embedded suites only, which make their own fresh prompts. "
            "Leave it out."
        )
    if embedded:
        say(f"{', '.join(embedded)}: fresh prompts from a new seed, not from {private}")


def _track_options(track: Track, name: str, drafter: str, verifier: str | None, **options: Any) -> RunOptions:
    """The options of a run by the track's settings, checked. `name` is what the drafter is called in it."""
    pinned = track.verifier_revision or ""
    on_hub = verifier is None and COMMIT.fullmatch(pinned)
    chosen = run_options(
        track.verifier,
        drafter,
        [suite.name for suite in track.suites],
        model_args={"revision": pinned} if on_hub else {},
        languages=tuple(dict.fromkeys(language for suite in track.suites for language in suite.languages)),
        temperature=track.sampling.temperature,
        top_k=track.sampling.top_k,
        top_p=track.sampling.top_p,
        limit=_common(track, "limit"),
        num_fewshot=_common(track, "num_fewshot"),
        max_new_tokens=_common(track, "max_new_tokens"),
        apply_chat_template=track.chat_template,
        chat_template_args=track.chat_template_args,
        gamma=track.gamma,
        seed=track.seed,
        dtype=track.dtype,
        backend=track.hardware.backend if track.hardware else "auto",
        **options,
    )
    assert chosen.drafter is not None
    if drafter_kind(chosen.drafter.kind).needs_files:
        chosen = replace(chosen, drafter=replace(chosen.drafter, name=name))
    if verifier is not None:
        chosen = replace(chosen, verifier=replace(chosen.verifier, source=verifier))
    check_run(chosen)
    if chosen.sweeps:
        raise FairspecError("batch_size: a submission is scored with one. Sweep in a run of its own.")
    return chosen


def _prepared(
    track: Track, track_references: Mapping[str, TrackReference], options: RunOptions
) -> tuple[RunContext, Mapping[str, TrackReference]]:
    """A run by the track's settings, and the references that it is made on."""
    from fairspec_bench.scoring.prepare import prepare
    from fairspec_bench.scoring.reference_packs import texts_for

    prepared = prepare(options)
    return prepared, texts_for(track, track_references, prepared)


def _common(track: Track, field: str) -> int | None:
    """What all suites of a track share, else `None`: each suite's own value, which `texts_for` checks."""
    values = {getattr(suite, field) for suite in track.suites}
    return values.pop() if len(values) == 1 else None


def _published(drafter: str) -> dict[str, Path]:
    """The files of a drafter that lies in a folder here, or in the Hub's cache, by name."""
    place = local_folder(drafter)
    if place is None:
        return {}
    return {path.name: path for pattern in PUBLISHED for path in place.glob(pattern) if path.is_file()}


def kept_check(manifest_sha256: str) -> Path:
    """Where a verdict by these sources is kept."""
    return cache_folder().parent / "verified" / checker_sha256()[:16] / f"{manifest_sha256}.json.gz"


@cache
def checker_sha256() -> str:
    """Hash of the names and bytes of the sources that a verdict follows from."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    files = (
        path for each in DECIDES for path in ((package / each).rglob("*.py") if "." not in each else [package / each])
    )
    for path in sorted(files):
        digest.update(f"{path.relative_to(package).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def list_tracks() -> tuple[Track, ...]:
    """Every track by name, archived ones too. Raises `FairspecError` for a file that is not one."""
    from fairspec_bench.suites import tracks

    return tracks.list_tracks()


def new_track(
    run: str | Path, name: str, *, title: str, about: str, baseline: str | None = None, folder: Path | None = None
) -> Path:
    """Fix a track by a finished run of its verifier and any drafter; → its file. Raises `FairspecError`.

    The run's own verifier is loaded to learn its vocabulary and end-of-text ids.
    """
    from fairspec_bench.schemas.config import RunConfig
    from fairspec_bench.scoring.run_folder import RUN

    config = read_record(Path(run) / RUN, RunConfig)
    from fairspec_bench.models.codec import Codec
    from fairspec_bench.scoring.prepare import load_run_verifier
    from fairspec_bench.scoring.reference_packs import write_track
    from fairspec_bench.suites.suite import load_suite
    from fairspec_bench.suites.tracks import tracks_folder

    options = run_options(config.verifier.name, None, [suite.name for suite in config.suites], dtype=config.dtype)
    verifier = load_run_verifier(options)
    stops = {
        suite.name: load_suite(suite.name, languages=suite.languages[:1], limit=1).prompts[0].stops
        for suite in config.suites
    }
    return write_track(
        Path(run),
        folder or tracks_folder(),
        name,
        title=title,
        about=about,
        vocabulary=verifier.vocab_size,
        eos_ids=verifier.eos_ids,
        stops=stops,
        baseline=baseline,
        pieces=Codec(options.verifier.source, revision=options.verifier.revision).pieces,
    )


def _track(name: str, folder: Path | None) -> tuple[Track, dict[str, TrackReference]]:
    from fairspec_bench.suites.tracks import load_track, load_track_references

    track = load_track(name, folder)
    if track.open_fields or track.archived:
        why = track.archived or f"{', '.join(track.open_fields)} not fixed yet"
        raise FairspecError(f"track {name}: takes no submissions ({why}). Choose another.")
    return track, load_track_references(track, folder)
