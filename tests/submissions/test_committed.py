"""The submissions here: each passes the check, each audit is of the very bytes, each track has its baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

import fairspec_bench as fairspec
from fairspec_bench.api.submissions import AUDITS
from fairspec_bench.schemas.io import read_record
from fairspec_bench.schemas.submission import Audit
from fairspec_bench.submissions.check import sealed
from fairspec_bench.submissions.pack import SLUG, read_entry

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
FOLDERS = sorted(path for path in SUBMISSIONS.iterdir() if path.is_dir() and path.name[0] not in "._")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_submission_passes_the_check(folder: Path) -> None:
    verdict = fairspec.submit_check(folder, keep=False)
    assert [str(finding) for finding in verdict.findings] == []
    assert SLUG.fullmatch(folder.name)


def test_every_track_has_its_baseline_and_every_mended_drafter_what_it_was_made_of() -> None:
    slugs = {folder.name for folder in FOLDERS}
    assert {track.baseline for track in fairspec.list_tracks()} <= slugs
    drafters = {folder.name: read_entry(folder)["drafter"] for folder in FOLDERS}
    assert {drafter["fine_tuned_from"] for drafter in drafters.values() if "fine_tuned_from" in drafter} <= slugs


def test_every_audit_is_of_the_submission_as_it_stands() -> None:
    audits = {path.stem: read_record(path, Audit) for path in (SUBMISSIONS / AUDITS).glob("*.json")}
    assert audits
    for slug, audit in audits.items():
        assert audit.manifest_sha256 == sealed(SUBMISSIONS / slug)
