"""The desk: the public functions about submissions, their tracks and the board. Commands have the same names.

Knows which room does what, as `face` does for runs; the desk stands above it. Loads what it needs when it is called.
"""

from __future__ import annotations

import gzip
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairspec_bench import face
from fairspec_bench.entries import Audit, Verified
from fairspec_bench.records import FairspecError, Report, read_record, write_record

if TYPE_CHECKING:
    from fairspec_bench.score.prepare import Prepared
    from fairspec_bench.score.run import Watch
    from fairspec_bench.site.board import Entry
    from fairspec_bench.submit.findings import Verdict
    from fairspec_bench.suite.tracks import Reference, Track

SUBMISSIONS = Path("submissions")
AUDITS = "_audits"
"""The folder beside the submissions where maintainers keep audits: no slug begins so."""
MANY = 20
"""Submissions from which on it pays to check them in several processes."""
CHECKER = 1
"""Raised whenever the check finds more than before: what an older one passed is checked again."""
PUBLISHED = ("*.safetensors", "*.json", "*.model", "*.txt")


# --------------------------------------------------------------------------- submissions


def submit_new(
    folder: str | Path, track: str, drafter: str | None = None, run: str | Path | None = None, **told: Any
) -> Path:
    """Begin a submission of a `drafter` still to be scored, or of a finished `run`; → its `submission.toml`.

    `told` are the fields of `submit.pack.new`; those not given stay blank. Raises `FairspecError`.
    """
    from fairspec_bench.submit import pack

    if (drafter is None) == (run is None):
        raise FairspecError("give either the drafter to be scored (--drafter) or a finished run (--run).")
    if drafter is not None:
        from fairspec_bench.score.prepare import drafter_ask

        asked = drafter_ask(drafter, face.embedded(drafter))
        told = {"repo": Path(drafter).name if Path(drafter).is_dir() else drafter, "kind": asked.kind} | told
    return pack.new(Path(folder), track, None if run is None else Path(run), **told)


def submit_score(
    folder: str | Path,
    drafter: str | None = None,
    *,
    verifier: str | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    race_prompts: int = 50,
    race_rounds: int = 5,
    tracks: Path | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Report:
    """Run a submission's drafter on its track and seal it: run, description, gzip, manifest; → its report.

    `drafter` and `verifier` say where they lie here, by default under the names that the submission and the track give
    them. Stopped, the same call goes on. Raises `FairspecError`.
    """
    from fairspec_bench.score.folder import RUN
    from fairspec_bench.score.run import run
    from fairspec_bench.submit import pack
    from fairspec_bench.submit.check import RUN_FOLDER

    folder = Path(folder)
    entry = pack.read_entry(folder)
    track, references = _track(str(entry.get("track")), tracks)
    out = folder / RUN_FOLDER
    if out.exists() and not (out / RUN).exists():
        raise FairspecError(f"{out}: is scored. Seal it with fairspec submit pack, or remove it to score again.")
    asked = drafter or str(entry.get("drafter", {}).get("repo"))
    given = {"device": device, "batch_size": batch_size, "race_prompts": race_prompts, "race_rounds": race_rounds}
    name = str(entry.get("drafter", {}).get("repo"))
    prepared, texts = _prepared(track, references, name, asked, verifier, **given, **options)
    report = run(prepared, out, cache=face.cache_folder(), given=texts, watch=watch)
    pack.describe(folder, prepared.config, _published(asked))
    pack.compress(folder)
    pack.pack(folder)
    return report


def submit_pack(folder: str | Path) -> Path:
    """Gzip a submission's run and write its manifest anew; → the manifest. Raises `FairspecError`."""
    from fairspec_bench.submit import pack

    pack.compress(Path(folder))
    return pack.pack(Path(folder))


def submit_check(folder: str | Path, *, keep: bool = True, tracks: Path | None = None) -> Verdict:
    """Recompute everything a submission claims, without torch; → the verdict, with every fault at once.

    What passed is kept under the hash of its manifest (`keep`), for the site to read. Raises nothing for what a
    folder holds: that is the verdict's.
    """
    from fairspec_bench.submit.check import check

    verdict = check(Path(folder), tracks)
    if keep and verdict.verified is not None:
        path = _kept(verdict.verified.manifest_sha256)
        with suppress(OSError):  # a cache that cannot be written costs a second check, not the verdict
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(verdict.verified.model_dump_json().encode(), 6, mtime=0))
    return verdict


def changed_submission(base: str, root: str | Path = ".") -> Path:
    """The one submission folder that a branch changes since `base`, of the git checkout at `root`.

    Raises `FairspecError` where anything else is changed too, or nothing: one pull request, one submission.
    """
    command = ["git", "-C", str(root), "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", f"{base}...HEAD"]
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
    if not folder.is_dir():
        raise FairspecError(f"{folder}: removed. Ask the maintainers to withdraw a submission (CONTRIBUTING.md).")
    return folder


def submit_audit(
    folder: str | Path,
    drafter: str | None = None,
    *,
    verifier: str | None = None,
    auditor: str,
    sample: int = 5,
    fresh: int = 10,
    seed: int | None = None,
    private: Path | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    tracks: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Audit:
    """Score a sample of a submission again, and prompts it has not seen; → the audit, kept in `_audits` beside it.

    `seed` is drawn now unless given; `private` is a folder of questions, `<suite>/<language>.txt` or `<language>.txt`,
    one a line, line k the same problem in each; built-in suites make their own. Raises `FairspecError`.
    """
    from fairspec_bench.score.audit import audit
    from fairspec_bench.submit.check import read_replays

    folder = Path(folder)
    verdict = submit_check(folder, tracks=tracks)
    if verdict.verified is None:
        raise FairspecError(f"{folder}: does not pass the check. First: fairspec submit check {folder}.")
    verified = verdict.verified
    track, references = _track(verified.entry.track, tracks)
    asked = drafter or verified.entry.drafter.repo
    told, ran = verified.entry.drafter, verified.report.config.drafter
    given: dict[str, Any] = {"device": device, "batch_size": batch_size, **options}
    given["drafter_args"] = dict(ran.options) if ran else {}
    if drafter is None and re.fullmatch("[0-9a-f]{40}", told.revision or ""):
        given["drafter_args"]["revision"] = told.revision
    prepared, _ = _prepared(track, references, told.repo, asked, verifier, **given)
    found = audit(
        track,
        references,
        verified,
        read_replays(folder, track),
        prepared,
        sample=sample,
        fresh=fresh,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        auditor=auditor,
        date=date.today().isoformat(),
        private=private,
        say=say,
    )
    write_record(folder.parent / AUDITS / f"{folder.name}.json", found)
    return found


def _prepared(
    track: Track, references: Mapping[str, Reference], name: str, drafter: str, verifier: str | None, **options: Any
) -> tuple[Prepared, Mapping[str, Reference]]:
    """A run by the track's settings, and the texts that it is made on. `name` is what the drafter is called in it."""
    from fairspec_bench.score.packs import texts_for
    from fairspec_bench.score.prepare import prepare

    pinned = track.verifier_revision or ""
    on_hub = verifier is None and not pinned.startswith("weights-sha256:")
    ask = face.make_ask(
        track.verifier,
        drafter,
        [suite.name for suite in track.suites],
        model_args={"revision": pinned} if on_hub else {},
        languages=tuple(dict.fromkeys(language for suite in track.suites for language in suite.languages)),
        temperature=track.rule.temperature,
        top_k=track.rule.top_k,
        top_p=track.rule.top_p,
        limit=_common(track, "limit"),
        num_fewshot=_common(track, "num_fewshot"),
        cap=_common(track, "cap"),
        chat_template=track.chat_template,
        gamma=track.gamma,
        seed=track.seed,
        dtype=track.dtype,
        backend=track.hardware.backend if track.hardware else None,
        **options,
    )
    assert ask.drafter is not None
    known = ask.drafter if ask.drafter.kind in ("lookup", "oracle") else replace(ask.drafter, name=name)
    lying = ask.verifier if verifier is None else replace(ask.verifier, source=verifier)
    prepared = prepare(replace(ask, verifier=lying, drafter=known))
    return prepared, texts_for(track, references, prepared)


def _common(track: Track, field: str) -> int | None:
    """What all suites of a track share, else `None`: each suite's own value, which `texts_for` checks."""
    values = {getattr(suite, field) for suite in track.suites}
    return values.pop() if len(values) == 1 else None


def _published(drafter: str) -> dict[str, Path]:
    """The files of a drafter that lies in a folder here, or in the Hub's cache, by name."""
    place = Path(face.embedded(drafter) or drafter)
    if not place.is_dir():
        return {}
    return {path.name: path for pattern in PUBLISHED for path in place.glob(pattern) if path.is_file()}


def _kept(manifest_sha256: str) -> Path:
    return face.cache_folder().parent / "verified" / str(CHECKER) / f"{manifest_sha256}.json.gz"


# --------------------------------------------------------------------------- tracks


def list_tracks() -> tuple[Track, ...]:
    """Every track by name, archived ones too. Raises `FairspecError` for a file that is none."""
    from fairspec_bench.suite import tracks

    return tracks.list_tracks()


def new_track(
    run: str | Path, name: str, *, title: str, about: str, baseline: str | None = None, folder: Path | None = None
) -> Path:
    """Fix a track by a finished run of its verifier and any drafter; → its file. Raises `FairspecError`.

    The run's own verifier is loaded to learn its vocabulary and end-of-text ids.
    """
    from fairspec_bench.records import RunConfig
    from fairspec_bench.score.folder import RUN
    from fairspec_bench.score.packs import write_track
    from fairspec_bench.score.prepare import load_verifier_asked
    from fairspec_bench.suite.tasks import load_suite
    from fairspec_bench.suite.tracks import tracks_folder

    config = read_record(Path(run) / RUN, RunConfig)
    ask = face.make_ask(config.verifier.name, None, [suite.name for suite in config.suites], dtype=config.dtype)
    verifier = load_verifier_asked(ask)
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
    )


def _track(name: str, folder: Path | None) -> tuple[Track, dict[str, Reference]]:
    from fairspec_bench.suite.tracks import load_reference, load_track

    track = load_track(name, folder)
    if track.open_fields or track.archived:
        why = track.archived or f"{', '.join(track.open_fields)} not fixed yet"
        raise FairspecError(f"track {name}: takes no submissions ({why}). Choose another.")
    return track, load_reference(track, folder)


# --------------------------------------------------------------------------- the board


@dataclass(frozen=True)
class Board:
    """What is published: the tracks, and every submission under its slug, refused ones too."""

    tracks: tuple[Track, ...]
    entries: tuple[Entry, ...]


def board(submissions: str | Path = SUBMISSIONS, *, tracks: Path | None = None) -> Board:
    """Check every submission of a folder, or read what an earlier check of the same bytes kept; → the board.

    Raises `FairspecError` where there is no such folder; a submission that does not pass is among the entries.
    """
    from fairspec_bench.suite.tracks import list_tracks

    root = Path(submissions)
    if not root.is_dir():
        raise FairspecError(f"{root}: no such folder. Give the folder of submissions, or run folders.")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
    if len(folders) < MANY:
        return Board(list_tracks(tracks), tuple(_entry(folder, tracks) for folder in folders))
    with ProcessPoolExecutor() as workers:
        return Board(list_tracks(tracks), tuple(workers.map(_entry, folders, repeat(tracks), chunksize=4)))


def _entry(folder: Path, tracks: Path | None) -> Entry:
    from fairspec_bench.site.board import Entry
    from fairspec_bench.submit.check import sealed
    from fairspec_bench.submit.pack import SLUG

    if not SLUG.fullmatch(folder.name):
        return Entry(folder.name, None, ("its folder's name is no slug: lower-case letters, digits and hyphens",))
    verified = None if (manifest := sealed(folder)) is None else _read_kept(manifest, tracks)
    if verified is None:
        verdict = submit_check(folder, tracks=tracks)
        if verdict.verified is None:
            return Entry(folder.name, None, tuple(map(str, verdict.findings)))
        verified = verdict.verified
    path = folder.parent / AUDITS / f"{folder.name}.json"
    return Entry(folder.name, verified, (), read_record(path, Audit) if path.exists() else None)


def _read_kept(manifest_sha256: str, tracks: Path | None) -> Verified | None:
    """What a check of the same bytes against the same references kept; `None` for none, or a damaged one."""
    from fairspec_bench.suite.tracks import load_track

    try:
        kept = Verified.model_validate_json(gzip.decompress(_kept(manifest_sha256).read_bytes()))
        same = load_track(kept.entry.track, tracks).reference_sha256 == kept.reference_sha256
    except (OSError, EOFError, ValueError, FairspecError):
        return None
    return kept if same and kept.manifest_sha256 == manifest_sha256 else None


def build_board(
    out: str | Path = "site",
    submissions: str | Path | None = None,
    runs: Sequence[str | Path] = (),
    *,
    changes: Sequence[tuple[str | Path, str | Path]] = (),
    tracks: Path | None = None,
) -> Path:
    """Publish a folder of submissions, and run folders beside them, in `out`; → its first page.

    `changes` are pairs (before, after) of the runs whose difference is shown. Raises `FairspecError`.
    """
    from fairspec_bench.site import build
    from fairspec_bench.site.changes import Changed

    if submissions is None and not runs:
        raise FairspecError("site: nothing to show. Name run folders, or --submissions FOLDER.")
    shown = [Changed(Path(first), Path(second), face.compare(first, second)) for first, second in changes]
    found = Board((), ()) if submissions is None else board(submissions, tracks=tracks)
    return build.build_site([Path(run) for run in runs], Path(out), shown, tracks=found.tracks, entries=found.entries)
