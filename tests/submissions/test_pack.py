"""`new` and `pack`: what they write is what `check` reads; a template with blanks is refused."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
from small import small_run, small_track

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.submissions.check import check
from fairspec_bench.submissions.pack import new, pack


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


def test_pack_needs_a_submission(base: Path) -> None:
    with pytest.raises(FairspecError, match=r"no submission\.toml"):
        pack(base / "tracks")
