"""Tracks: what is fixed for everyone who is compared, and the reference texts they are compared on.

Knows the files under `tasks/tracks/`. Judges nothing, and needs no torch. A key that a track's file leaves out is
`null`; a track with a `null` takes no submissions.

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

from fairspec_bench.records import Answer, Backend, FairspecError, Finish, Record, Rule, Sha256


class Divergence(Record):
    """How far the verifier may depart from the reference on another machine, from the verifier against itself.

    `gap`: nats by which its own argmax may lie above the text's token; `share`: of prompts that may have such a place.
    """

    gap: float = Field(ge=0)
    share: float = Field(ge=0, le=1)


class TrackSuite(Record):
    """One suite of a track. `limit` left out: all prompts. `stops`: the strings that may end a text.

    `divergence` by language; a language without one allows none.
    """

    name: str
    version: str
    limit: int | None = None
    num_fewshot: int = 0
    cap: int = Field(gt=0)
    stops: tuple[str, ...] = ()
    data_sha256: dict[str, Sha256] | None = None
    prompts_sha256: dict[str, Sha256] | None = None
    divergence: dict[str, Divergence] = Field(default_factory=dict)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.prompts_sha256 or ())


class Hardware(Record):
    """Within what times are compared: `device` and `device_name` of a run's environments, and its `backend`."""

    device: str
    device_name: str
    backend: Backend = "eager"


class Track(Record):
    """What every submission of a track shares. `vocabulary`: ids run from 0 to one less.

    `baseline` is the slug of the submission that others are shown against. An `archived` track takes no more of them
    and keeps its board; the text says why and what came after.
    """

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
    baseline: str | None = None
    archived: str | None = None
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
