"""`new` and `pack`: what they write is what `check` reads; a template with blanks is refused."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import small_run, small_track

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.submissions.check import check
from fairspec_bench.submissions.pack import compress, new, pack


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    small_track(folder / "tracks", folder / "run", small_run(folder / "run"))
    return folder


def test_a_template_describes_the_run_and_its_blanks_are_refused(base: Path) -> None:
    written = new(base / "mine", "small", base / "run", tracks=base / "tracks")
    drafter = tomllib.loads(written.read_text(encoding="utf-8"))["drafter"]
    assert (drafter["kind"], drafter["repo"], drafter["parameters"]) == ("model", "embedded:drafter", 463232)
    pack(base / "mine")
    found = {(finding.code, finding.field) for finding in check(base / "mine", base / "tracks").findings}
    assert found == {
        ("S002", "name"),
        ("S002", "description"),
        ("S002", "authors"),
        ("S002", "contact"),
        ("S002", "drafter.training_data"),
        ("S004", "url"),
        ("S005", "licence"),
        ("S009", "drafter.files"),
    }


def test_text_survives_the_template(base: Path) -> None:
    said = 'Quotes " and \\ and\nlines, ไทย'
    written = new(base / "said", "small", base / "run", description=said, tracks=base / "tracks")
    assert tomllib.loads(written.read_text(encoding="utf-8"))["description"] == said


def test_the_manifest_lists_every_file_with_its_hash(base: Path) -> None:
    new(base / "listed", "small", base / "run", tracks=base / "tracks")
    written = pack(base / "listed")
    once = written.read_bytes()
    lines = dict(reversed(line.split("  ")) for line in once.decode().splitlines())
    files = {path for path in (base / "listed").rglob("*") if path.is_file() and path != written}
    assert set(lines) == {path.relative_to(base / "listed").as_posix() for path in files}
    assert list(lines) == sorted(lines)
    for path in files:
        assert lines[path.relative_to(base / "listed").as_posix()] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert pack(base / "listed").read_bytes() == once


@pytest.mark.parametrize(
    ("slug", "track", "run", "message"),
    [
        ("Mine", "small", "run", "no slug"),
        ("run", "small", "run", "is there already"),
        ("other", "large", "run", "unknown"),
        ("other", "small", "tracks", "no such file"),
    ],
)
def test_new_refuses_in_one_line(slug: str, track: str, run: str, message: str, base: Path) -> None:
    with pytest.raises(FairspecError, match=message) as caught:
        new(base / slug, track, base / run, tracks=base / "tracks")
    assert "\n" not in str(caught.value)
    assert not (base / "other").exists()


def run_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "run").iterdir())}


@pytest.mark.parametrize("event", range(0, 40, 3))
def test_sealing_that_is_stopped_anywhere_is_completed_to_the_same_bytes(
    event: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while files were gzipped ended in the advice to delete lines that lay beside it."""
    for slug in ("sealed", "killed"):
        shutil.rmtree(base / f"{slug}-{event}", ignore_errors=True)
        new(base / f"{slug}-{event}", "small", base / "run", tracks=base / "tracks")
    whole, killed = base / f"sealed-{event}", base / f"killed-{event}"
    compress(whole)
    left = event

    class Killed(BaseException):
        pass

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: Any, **named: Any) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*given, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(f"fairspec_bench.schemas.io.os.{name}", counting(getattr(os, name)))
        patch.setattr(Path, "unlink", counting(Path.unlink))
        with contextlib.suppress(Killed):
            compress(killed)
    (killed / "run" / ".run.json.xxxx").write_text("half")
    there = {path.name.removesuffix(".gz") for path in (killed / "run").iterdir() if not path.name.startswith(".")}
    assert there >= {path.name.removesuffix(".gz") for path in (whole / "run").iterdir()}
    compress(killed)
    assert run_files(killed) == run_files(whole)
    assert "\n".join(sorted(run_files(killed))).count(".gz") == len(run_files(killed))
    pack(killed)


def test_a_disk_that_refuses_is_one_line(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new(base / "full", "small", base / "run", tracks=base / "tracks")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairspec_bench.schemas.io.os.fsync", full)
    before = run_files(base / "full")
    with pytest.raises(FairspecError, match="No space left on device") as caught:
        compress(base / "full")
    assert "\n" not in str(caught.value)
    assert run_files(base / "full") == before


def test_what_a_kill_left_is_not_listed(base: Path) -> None:
    new(base / "hidden", "small", base / "run", tracks=base / "tracks")
    (base / "hidden" / ".submission.toml.abcd").write_text("half")
    assert ".abcd" not in pack(base / "hidden").read_text()


def test_pack_needs_a_submission(base: Path) -> None:
    with pytest.raises(FairspecError, match=r"no submission\.toml"):
        pack(base / "tracks")
