"""Tracks: what is fixed for everyone who is compared, and the reference texts they are compared on.

Knows the files under `tasks/tracks/` and how a reference pack is made of a finished run. Judges nothing. A key that a
track's file leaves out is `null`; a track with a `null` takes no submissions.

    <name>.toml                  suites and hashes, verifier, tokenizer, rule, γ, cap, stops, dtype, hardware
    <name>.reference.jsonl.gz    a line per prompt: the verifier's text, its grade and its entropy
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fairspec_bench.records import (
    Answer,
    FairspecError,
    Finish,
    Record,
    Replay,
    Rule,
    Sha256,
    Trace,
    lines_text,
)
from fairspec_bench.score.folder import RunFolder


class TrackSuite(Record):
    """One suite of a track. `limit` left out: all prompts. `stops`: the strings that may end a text."""

    name: str
    version: str
    limit: int | None = None
    num_fewshot: int = 0
    cap: int = Field(gt=0)
    stops: tuple[str, ...] = ()
    data_sha256: dict[str, Sha256] | None = None
    prompts_sha256: dict[str, Sha256] | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.prompts_sha256 or ())


class Hardware(Record):
    """The class of machine within which times are compared: `device` and `device_name` of a run's environments."""

    device: str
    device_name: str


class Track(Record):
    """What every submission of a track shares. `vocabulary`: ids run from 0 to one less."""

    schema_version: Literal[1]
    name: str
    title: str
    about: str
    verifier: str
    verifier_revision: str | None = None
    tokenizer_sha256: Sha256 | None = None
    vocabulary: int | None = Field(default=None, gt=0)
    eos_ids: tuple[int, ...] | None = None
    chat_template: bool
    rule: Rule
    gamma: int = Field(ge=1, le=64)
    seed: int
    dtype: Literal["float32", "bfloat16", "float16"]
    hardware: Hardware | None = None
    replicates: int = Field(default=10_000, ge=2)
    reference_sha256: Sha256 | None = None
    suites: tuple[TrackSuite, ...] = Field(min_length=1)

    @property
    def open_fields(self) -> tuple[str, ...]:
        """What is still `null`: while there is any, no submission is taken."""
        fixed = ("verifier_revision", "tokenizer_sha256", "vocabulary", "eos_ids", "hardware", "reference_sha256")
        own = [name for name in fixed if getattr(self, name) is None]
        hashes = [
            f"{suite.name}.{name}"
            for suite in self.suites
            for name in ("data_sha256", "prompts_sha256")
            if not getattr(suite, name)
        ]
        return (*own, *hashes)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(f"{suite.name}/{language}" for suite in self.suites for language in suite.languages)


class Reference(Record):
    """One prompt of a track: the verifier's text. `verifier_entropy` is its sum over contexts, nats."""

    key: str
    cluster: str
    prompt_sha: Sha256
    ids: tuple[int, ...] = Field(min_length=1)
    finish: Finish
    verifier_entropy: float | None
    answer: Answer


def tracks_folder() -> Path:
    """Where the track files lie: inside the installed package, else beside it in a checkout."""
    package = Path(str(files("fairspec_bench")))
    installed = package / "_tasks" / "tracks"
    return installed if installed.is_dir() else package.parent / "tasks" / "tracks"


def list_tracks(folder: Path | None = None) -> tuple[Track, ...]:
    """Every track by name. Raises `FairspecError` for a file that is none."""
    return tuple(_read(path) for path in sorted((folder or tracks_folder()).glob("*.toml")))


def load_track(name: str, folder: Path | None = None) -> Track:
    """The track of that name. Raises `FairspecError` if there is none."""
    known = {path.stem: path for path in sorted((folder or tracks_folder()).glob("*.toml"))}
    if name not in known:
        raise FairspecError(f"track {name!r}: unknown. Choose one of {', '.join(known) or 'none'}.")
    return _read(known[name])


def _read(path: Path) -> Track:
    try:
        track = Track.model_validate_json(json.dumps(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:  # pydantic's and TOML's errors are ValueErrors
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise FairspecError(f"{path} {'.'.join(map(str, first['loc']))}: {first['msg']}. Mend the track.") from None
    if track.name != path.stem:
        raise FairspecError(f"{path} name: {track.name!r} is not the file's name. Mend the track.")
    return track


def load_reference(track: Track, folder: Path | None = None) -> dict[str, Reference]:
    """The reference texts of a track by key. Raises `FairspecError` if they are not those the track was fixed with."""
    path = (folder or tracks_folder()) / f"{track.name}.reference.jsonl.gz"
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise FairspecError(f"{path}: cannot be read ({error}). Restore the track's reference.") from None
    if hashlib.sha256(text).hexdigest() != track.reference_sha256:
        raise FairspecError(f"{path}: not the texts this track was fixed with. Restore the track's reference.")
    references = [Reference.model_validate_json(line) for line in text.splitlines()]
    return {each.key: each for each in references}


def references_of(run: Path) -> tuple[Reference, ...]:
    """The texts that a finished run was made on, by key. Raises `FairspecError` for a run that is not whole."""
    folder = RunFolder(run)
    if not folder.whole:
        raise FairspecError(f"{run}: {folder.progress}. Finish the run before it becomes a reference.")
    answers = {answer.key: answer for answer in folder.lines("answer", Answer)}
    replays = {replay.key: replay for replay in folder.lines("replay", Replay)}
    return tuple(
        Reference(
            key=trace.key,
            cluster=folder.config.clusters[trace.key],
            prompt_sha=trace.prompt_sha,
            ids=trace.ids,
            finish=trace.finish,
            verifier_entropy=replays[trace.key].verifier_entropy if trace.key in replays else None,
            answer=answers[trace.key],
        )
        for trace in sorted(folder.lines("trace", Trace), key=lambda trace: trace.key)
    )


def write_reference(run: Path, path: Path) -> Sha256:
    """Make a run's texts a track's reference pack at `path`; → the hash that the track's file must name."""
    text = lines_text(references_of(run)).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    return hashlib.sha256(text).hexdigest()
