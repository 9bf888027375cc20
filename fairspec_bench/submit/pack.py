"""Begin a submission and seal it: the template of `submission.toml`, the manifest.

Knows the two files it writes. Whether they say the truth is `check`'s to find.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

from fairspec_bench.records import FairspecError, ModelConfig, RunConfig, Sha256, read_record, write_atomic
from fairspec_bench.score.folder import LOCK, RUN
from fairspec_bench.submit.check import MANIFEST, RUN_FOLDER
from fairspec_bench.submit.schema import BLANK, FILE
from fairspec_bench.suite.tracks import load_track

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def new(
    folder: Path,
    track: str,
    run: Path,
    *,
    name: str = BLANK,
    description: str = BLANK,
    authors: tuple[str, ...] = (BLANK,),
    contact: str = BLANK,
    licence: str = BLANK,
    url: str = BLANK,
    files: tuple[Path, ...] = (),
    training_data: str = BLANK,
    trained_on_suite_data: bool = False,
    tracks: Path | None = None,
) -> Path:
    """Make the folder of a submission from a finished run; → its `submission.toml`, to be completed by hand.

    The run is copied, the drafter's part filled from its run.json, `files` are hashed where they lie. Raises
    `FairspecError` for a folder that is there, a name that is no slug, an unknown track or no run.
    """
    if not SLUG.fullmatch(folder.name):
        raise FairspecError(f"{folder.name}: no slug. Use lower-case letters, digits and hyphens.")
    if folder.exists():
        raise FairspecError(f"{folder}: is there already. Choose another slug, or edit it and pack.")
    load_track(track, tracks)
    config = read_record(run / RUN, RunConfig)
    if config.drafter is None:
        raise FairspecError(f"{run}: a run without a drafter. Run one with a drafter.")
    shutil.copytree(run, folder / RUN_FOLDER, ignore=shutil.ignore_patterns(LOCK, "*.md"))
    settings = {
        "schema_version": 1,
        "name": name,
        "description": description,
        "authors": list(authors),
        "contact": contact,
        "licence": licence,
        "url": url,
        "track": track,
    }
    drafter = _drafter(config.drafter) | {
        "training_data": training_data,
        "trained_on_suite_data": trained_on_suite_data,
    }
    digests = {path.name: _sha256(path) for path in sorted(files, key=lambda path: path.name)}
    text = _toml(settings) + "\n[drafter]\n" + _toml(drafter)
    if digests:
        text += "\n[drafter.files]\n" + _toml(digests)
    write_atomic(folder / FILE, text)
    return folder / FILE


def _drafter(model: ModelConfig) -> dict[str, object]:
    known = {"kind": model.kind, "repo": model.name, "revision": model.revision, "parameters": model.parameters}
    return {key: value for key, value in known.items() if value is not None}


def _toml(values: dict[str, object] | dict[str, str]) -> str:
    # Strings, whole numbers, truth values and lists of strings are written in TOML as in JSON.
    return "".join(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def pack(folder: Path) -> Path:
    """Write the manifest: each file's SHA-256 and name, in order of their names. Raises `FairspecError`."""
    if not (folder / FILE).is_file():
        raise FairspecError(f"{folder}: no {FILE}. Begin with `fairspec submit new`.")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names if name != MANIFEST]
    write_atomic(folder / MANIFEST, "".join(lines))
    return folder / MANIFEST


def _sha256(path: Path) -> Sha256:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FairspecError(f"{path}: cannot be read ({error.strerror}). Give a file.") from error
