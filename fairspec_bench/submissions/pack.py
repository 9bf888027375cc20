"""Make a submission: the template of `submission.toml`, what a run fills in of it, the manifest that seals it.

Whether they are true is for `check`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fairspec_bench.schemas.base import FairspecError, Sha256
from fairspec_bench.schemas.config import ModelConfig, RunConfig
from fairspec_bench.schemas.io import GZIP, read_record, write_atomic
from fairspec_bench.schemas.resumable import LOCK
from fairspec_bench.scoring.run_folder import RUN
from fairspec_bench.submissions.check import DRAFTER_CONFIG, MANIFEST
from fairspec_bench.submissions.run_lines import RUN_FOLDER
from fairspec_bench.submissions.schema import BLANK, FILE
from fairspec_bench.suites.tracks import load_track

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
CONFIG = Path(DRAFTER_CONFIG).name


def new(
    folder: Path,
    track: str,
    run: Path | None = None,
    *,
    repo: str = BLANK,
    kind: str = "model",
    name: str = BLANK,
    description: str = BLANK,
    authors: tuple[str, ...] = (BLANK,),
    contact: str = BLANK,
    licence: str = BLANK,
    url: str = BLANK,
    files: Mapping[str, Path] | None = None,
    training_data: str = BLANK,
    trained_on_suite_data: bool = False,
    fine_tuned_from: str | None = None,
    method: str | None = None,
    tracks: Path | None = None,
) -> Path:
    """Make the folder of a submission; → its `submission.toml`, in which what is not given is a blank.

    With a finished `run` that is copied and the drafter described from it (`describe`); without one the drafter of
    `repo` is still to be scored. Raises `FairspecError` for a folder that is there, a name that is no slug, an unknown
    track or no run.
    """
    if not SLUG.fullmatch(folder.name):
        raise FairspecError(f"{folder.name}: no slug. Use lower-case letters, digits and hyphens.")
    if folder.exists():
        raise FairspecError(f"{folder}: is there already. Choose another slug, or edit it and pack.")
    load_track(track, tracks)
    config = None if run is None else read_record(run / RUN, RunConfig)
    if config is not None and config.drafter is None:
        raise FairspecError(f"{run}: a run without a drafter. Run one with a drafter.")
    described = {
        "name": name,
        "description": description,
        "authors": list(authors),
        "contact": contact,
        "licence": licence,
        "url": url,
        "track": track,
    }
    drafter = {
        "kind": kind,
        "repo": repo,
        "training_data": training_data,
        "trained_on_suite_data": trained_on_suite_data,
        "fine_tuned_from": fine_tuned_from,
        "method": method,
    }
    _write_entry(folder, {"schema_version": 2, **described, "drafter": drafter})
    if run is not None and config is not None:
        shutil.copytree(run, folder / RUN_FOLDER, ignore=shutil.ignore_patterns(LOCK, "*.md"))
        describe(folder, config, files or {}, rename=repo == BLANK)
    return folder / FILE


def read_entry(folder: Path) -> dict[str, Any]:
    """`submission.toml` as it stands, blanks and all. Raises `FairspecError`."""
    try:
        return tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FairspecError(f"{folder}: no {FILE}. Begin with `fairspec submit new`.") from None
    except (OSError, ValueError) as error:
        raise FairspecError(f"{folder / FILE}: {error}. Correct the file.") from None


def describe(folder: Path, config: RunConfig, files: Mapping[str, Path], *, rename: bool = False) -> None:
    """Write into `submission.toml` what the run says of its drafter, and the hashes of the drafter's `files` by name.

    Keeps every other field; layout and comments of the file are not kept. The drafter's own configuration is copied
    beside it. `rename`: its name in the run becomes its `repo`.
    """
    assert config.drafter is not None
    entry = read_entry(folder)
    drafter = entry.get("drafter", {})
    kept = {key: drafter[key] for key in drafter if key not in ("kind", "revision", "parameters", "files")}
    found = _drafter(config.drafter)
    if rename:
        kept["repo"] = config.drafter.name
    digests = {name: sha256(path) for name, path in sorted(files.items())}
    _write_entry(folder, entry | {"drafter": {**found, **kept, "files": digests}})
    if CONFIG in files:
        (folder / DRAFTER_CONFIG).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[CONFIG], folder / DRAFTER_CONFIG)


def _drafter(model: ModelConfig) -> dict[str, object]:
    return {"kind": model.kind, "revision": model.revision, "parameters": model.parameters}


def _write_entry(folder: Path, entry: Mapping[str, Any]) -> None:
    """The entry as TOML, the drafter's files last; a field of no value is left out."""
    drafter = {key: value for key, value in entry["drafter"].items() if value not in (None, {})}
    top = {key: value for key, value in entry.items() if key != "drafter"}
    write_atomic(folder / FILE, tomli_w.dumps({**top, "drafter": drafter}))


def compress(folder: Path) -> None:
    """Gzip the files of the submission's run, the same bytes for the same file; its lock goes, and what a kill left.

    A file goes once its gzipped form is on disk. `run.json` is first, so that a run of which anything is gzipped is
    known to be finished: the same call completes what a kill interrupted. Raises `FairspecError` where it cannot write.
    """
    run = folder / RUN_FOLDER
    try:
        for left in (run / LOCK, *run.glob(".*.*")):
            left.unlink(missing_ok=True)
        plain = sorted(path for path in run.iterdir() if path.is_file() and path.suffix in (".json", ".jsonl"))
        for path in sorted(plain, key=lambda path: path.name != RUN):
            write_atomic(path.with_name(f"{path.name}{GZIP}"), gzip.compress(path.read_bytes(), 9, mtime=0))
            path.unlink()
    except OSError as error:
        raise FairspecError(f"{run}: cannot be sealed ({error.strerror}). Free space and pack again.") from error


def pack(folder: Path) -> Path:
    """Write the manifest: each file's SHA-256 and name, in order of their names. Raises `FairspecError`."""
    if not (folder / FILE).is_file():
        raise FairspecError(f"{folder}: no {FILE}. Begin with `fairspec submit new`.")
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name != MANIFEST]
    write_atomic(folder / MANIFEST, "".join(lines))
    return folder / MANIFEST


def sha256(path: Path) -> Sha256:
    """The hash of a file's bytes. Raises `FairspecError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FairspecError(f"{path}: cannot be read ({error.strerror}). Give a file.") from error
