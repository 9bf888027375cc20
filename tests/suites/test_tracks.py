"""Tracks and their references: the committed one is what it says, an altered or unpinned one takes nothing."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
from small import RUN, small_run, small_track

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.io import lines_text, read_record
from fairspec_bench.scoring.reference_packs import references_of
from fairspec_bench.suites.tracks import list_tracks, load_track, load_track_references, tracks_folder


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tracks")
    small_track(base / "tracks", base / "run", small_run(base / "run"))
    return base / "tracks"


def test_the_committed_track_is_the_committed_run() -> None:
    track, config = load_track("embedded"), read_record(RUN / "run.json", RunConfig)
    assert track.open_fields == ()
    assert (track.verifier, track.verifier_revision) == (config.verifier.name, config.verifier.revision)
    for field in ("tokenizer_sha256", "chat_template", "sampling", "gamma", "seed", "dtype"):
        assert getattr(track, field) == getattr(config, field)
    for here, there in zip(track.suites, config.suites, strict=True):
        for field in (
            "name",
            "version",
            "languages",
            "limit",
            "num_fewshot",
            "max_new_tokens",
            "data_sha256",
            "prompts_sha256",
        ):
            assert getattr(here, field) == getattr(there, field)
    packed = tracks_folder() / "embedded.reference.jsonl.gz"
    assert gzip.decompress(packed.read_bytes()).decode() == lines_text(references_of(RUN))
    assert set(load_track_references(track)) == set(config.clusters)


def test_every_track_file_loads() -> None:
    assert "embedded" in [track.name for track in list_tracks()]


def test_a_missing_field_is_open(tracks: Path) -> None:
    assert load_track("small", tracks).open_fields == ()
    assert load_track("unpinned", tracks).open_fields == ("verifier_revision",)
    assert [track.name for track in list_tracks(tracks)] == ["small", "unpinned"]


def test_an_altered_reference_is_refused(tracks: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tracks, tmp_path / "tracks"))
    packed = copy / "small.reference.jsonl.gz"
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()).replace(b'"ids":[', b'"ids":[1,', 1)))
    with pytest.raises(FairspecError, match="not the references this track was fixed with"):
        load_track_references(load_track("small", copy), copy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gamma = 4", "gamma = 0", "gamma: Input should be greater"),
        ("gamma = 4", "gamma = 4\nnotes = 1", "notes: Extra inputs"),
        ("gamma = 4", "gamma =", "Invalid value"),
        ('name = "small"', 'name = "other"', "is not the file's name"),
    ],
)
def test_a_wrong_track_file_is_refused_in_one_line(
    old: str, new: str, message: str, tracks: Path, tmp_path: Path
) -> None:
    text = (tracks / "small.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "small.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(FairspecError, match=message) as caught:
        load_track("small", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_track_names_the_known(tracks: Path) -> None:
    with pytest.raises(FairspecError, match="small, unpinned"):
        load_track("../small", tracks)


def test_an_unfinished_run_is_no_reference(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    marks = (tmp_path / "run" / "chunks.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "chunks.jsonl").write_text("".join(marks[:-1]))
    with pytest.raises(FairspecError, match="Finish the run"):
        references_of(tmp_path / "run")
