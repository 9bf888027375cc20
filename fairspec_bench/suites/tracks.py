"""Tracks: the setting that all submissions of a board share, and their references. Imports no torch.

A key that a track's file leaves out is `null`; a track with a `null` takes no submissions.

    <name>.toml                  suites and hashes, verifier, tokenizer, sampling, γ, stops, dtype, hardware, …
    <name>.reference.jsonl.gz    a line per prompt: the verifier's output, its grade and its entropy
    <name>.pieces.json.gz        the bytes of the tokens, id to hexadecimal: what shows texts without a tokenizer
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from fairspec_bench.schemas.base import FairspecError, Record, Sha256, unknown
from fairspec_bench.schemas.config import Backend, SamplingParams
from fairspec_bench.schemas.lines import Answer, Finish
from fairspec_bench.suites.listing import tasks_folder


class Divergence(Record):
    """How far the verifier may differ from the reference on another machine, by the verifier against itself.

    `gap`: nats by which its own argmax may exceed the reference's token; `share`: of prompts with such a position.
    """

    gap: float = Field(ge=0)
    share: float = Field(ge=0, le=1)


class TrackSuite(Record):
    """One suite of a track. `limit` left out: all prompts. `stops`: the strings that may end an output.

    `divergence` by language; a language without one allows none.
    """

    name: str
    version: str
    limit: int | None = None
    num_fewshot: int = 0
    max_new_tokens: int = Field(gt=0)
    stops: tuple[str, ...] = ()
    data_sha256: dict[str, Sha256] | None = None
    prompts_sha256: dict[str, Sha256] | None = None
    divergence: dict[str, Divergence] = Field(default_factory=dict)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.prompts_sha256 or ())


class Hardware(Record):
    """The class within which times are compared: fields of environments, and `backend` of a run.

    `processor` and `threads` are not compared where a track leaves them out, as those made by 0.1 do.
    """

    device: str
    device_name: str
    backend: Backend = "eager"
    processor: str | None = None
    threads: int | None = Field(default=None, gt=0)


class TrackRace(Record):
    """What a race of a track must be, by the race that its own run had.

    At least the first `prompts` of each language in at least `rounds` rounds; it ends early by no wider an interval
    than `width` and by no smaller a budget than `budget` (seconds), `None`: not at all. `verify_ratio` is the smallest
    of a language, `step_ns` the shortest mean time of a verifier step there.
    """

    prompts: int = Field(ge=1)
    rounds: int = Field(ge=2)
    width: float | None = Field(default=None, gt=0)
    budget: float | None = Field(default=None, gt=0)
    verify_ratio: float = Field(gt=0)
    step_ns: float = Field(gt=0)


class Track(Record):
    """What every submission of a track shares. `vocabulary`: ids are below it.

    `baseline` is the slug of the submission that others are compared with. An `archived` track takes no more of them
    and keeps its board; the text says why and names the successor.
    """

    schema_version: Literal[2]
    name: str
    title: str
    about: str
    verifier: str
    verifier_revision: str | None = None
    verifier_parameters: int | None = Field(default=None, gt=0)
    tokenizer_sha256: Sha256 | None = None
    vocabulary: int | None = Field(default=None, gt=0)
    eos_ids: tuple[int, ...] | None = None
    chat_template: bool
    chat_template_args: dict[str, JsonValue] | None = None
    sampling: SamplingParams
    gamma: int = Field(ge=1, le=64)
    seed: int
    dtype: Literal["float32", "bfloat16", "float16"]
    hardware: Hardware | None = None
    race: TrackRace | None = None
    replicates: int = Field(default=10_000, ge=2)
    reference_sha256: Sha256 | None = None
    baseline: str | None = None
    archived: str | None = None
    suites: tuple[TrackSuite, ...] = Field(min_length=1)

    @property
    def open_fields(self) -> tuple[str, ...]:
        """What is still `null`: a track with any takes no submissions."""
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


class TrackReference(Record):
    """One prompt of a track: the verifier's output. `verifier_entropy` is its sum over contexts, nats."""

    key: str
    cluster: str
    prompt_sha: Sha256
    ids: tuple[int, ...] = Field(min_length=1)
    finish: Finish
    verifier_entropy: float | None
    answer: Answer


def tracks_folder() -> Path:
    """Where the track files lie."""
    return tasks_folder() / "tracks"


def list_tracks(folder: Path | None = None) -> tuple[Track, ...]:
    """Every track by name. Raises `FairspecError` for a file that is none."""
    return tuple(_read(path) for path in sorted((folder or tracks_folder()).glob("*.toml")))


def load_track(name: str, folder: Path | None = None) -> Track:
    """The track of that name. Raises `FairspecError` if there is none."""
    known = {path.stem: path for path in sorted((folder or tracks_folder()).glob("*.toml"))}
    if name not in known:
        raise unknown("track", name, known)
    return _read(known[name])


def _read(path: Path) -> Track:
    try:
        track = Track.model_validate_json(json.dumps(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError) as error:  # pydantic's and TOML's errors are ValueErrors
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise FairspecError(f"{path} {'.'.join(map(str, first['loc']))}: {first['msg']}. Correct the track.") from None
    if track.name != path.stem:
        raise FairspecError(f"{path} name: {track.name!r} is not the file's name. Correct the track.")
    return track


def pieces_text(pieces: Mapping[int, bytes]) -> str:
    """The file of a track's pieces, uncompressed."""
    return json.dumps({str(each): piece.hex() for each, piece in sorted(pieces.items())}, separators=(",", ":")) + "\n"


def load_track_pieces(track: Track, folder: Path | None = None) -> dict[int, bytes]:
    """The bytes of a track's tokens by id; empty where it keeps none. Raises `FairspecError` for a damaged file."""
    path = (folder or tracks_folder()) / f"{track.name}.pieces.json.gz"
    if not path.exists():
        return {}
    try:
        found = TypeAdapter(dict[int, str]).validate_json(gzip.decompress(path.read_bytes()))
        return {each: bytes.fromhex(piece) for each, piece in found.items()}
    except (OSError, EOFError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise FairspecError(f"{path}: cannot be read ({said}). Restore the track's pieces.") from None


def load_track_references(track: Track, folder: Path | None = None) -> dict[str, TrackReference]:
    """The references of a track by key. Raises `FairspecError` if they are not those the track was fixed with."""
    path = (folder or tracks_folder()) / f"{track.name}.reference.jsonl.gz"
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise FairspecError(f"{path}: cannot be read ({error}). Restore the track's reference.") from None
    if hashlib.sha256(text).hexdigest() != track.reference_sha256:
        raise FairspecError(f"{path}: not the references this track was fixed with. Restore the track's reference.")
    track_references = [TrackReference.model_validate_json(line) for line in text.splitlines()]
    return {each.key: each for each in track_references}
