"""The leaderboard: every submission checked, and the site built."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from fairspec_bench.api import reports as api_reports
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import read_record
from fairspec_bench.schemas.submission import Audit, Verified

if TYPE_CHECKING:
    from fairspec_bench.site.board import Entry
    from fairspec_bench.suites.tracks import Track
from fairspec_bench.api.submissions import AUDITS, SUBMISSIONS, kept_check, submit_check

MANY = 4
"""Submissions from which on it pays to check them in several processes."""


@dataclass(frozen=True)
class PublishedBoard:
    """What is published: the tracks, and every submission under its slug, refused ones too."""

    tracks: tuple[Track, ...]
    entries: tuple[Entry, ...]


def board(submissions: str | Path = SUBMISSIONS, *, tracks: Path | None = None) -> PublishedBoard:
    """Check every submission of a folder, or read what an earlier check of the same bytes kept; → the board.

    Raises `FairspecError` where there is no such folder; a submission that does not pass is among the entries.
    """
    from fairspec_bench.suites.tracks import list_tracks

    root = Path(submissions)
    if not root.is_dir():
        raise FairspecError(f"{root}: no such folder. Give the folder of submissions, or run folders.")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
    if len(folders) < MANY:
        return PublishedBoard(list_tracks(tracks), tuple(_entry(folder, tracks) for folder in folders))
    with ProcessPoolExecutor() as workers:
        return PublishedBoard(list_tracks(tracks), tuple(workers.map(_entry, folders, repeat(tracks), chunksize=4)))


def _entry(folder: Path, tracks: Path | None) -> Entry:
    from fairspec_bench.site.board import Entry
    from fairspec_bench.submissions.check import sealed
    from fairspec_bench.submissions.pack import SLUG

    if not SLUG.fullmatch(folder.name):
        return Entry(folder.name, None, ("its folder's name is no slug: lower-case letters, digits and hyphens",))
    verified = None if (manifest := sealed(folder)) is None else _read_kept(manifest, tracks)
    if verified is None:
        verdict = submit_check(folder, tracks=tracks)
        if verdict.verified is None:
            return Entry(folder.name, None, tuple(map(str, verdict.findings)))
        verified = verdict.verified
    path = folder.parent / AUDITS / f"{folder.name}.json"
    return Entry(folder.name, verified, (), read_record(path, Audit) if path.exists() else None, folder)


def _read_kept(manifest_sha256: str, tracks: Path | None) -> Verified | None:
    """What a check of the same bytes against the same references kept; `None` for none, or a damaged one."""
    from fairspec_bench.suites.tracks import load_track

    try:
        kept = Verified.model_validate_json(gzip.decompress(kept_check(manifest_sha256).read_bytes()))
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
    base_url: str = "",
    repository: str = "",
) -> Path:
    """Publish a folder of submissions, and run folders beside them, in `out`; → its first page.

    `changes` are pairs (before, after) of the runs whose difference is shown. `base_url` and `repository`
    are the https addresses of the site and of its code, where known. Raises `FairspecError`.
    """
    from fairspec_bench.site import build
    from fairspec_bench.site.address import Address
    from fairspec_bench.site.views import RunChange

    if submissions is None and not runs:
        raise FairspecError("site: nothing to show. Name run folders, or --submissions FOLDER.")
    shown = [RunChange(Path(first), Path(second), api_reports.compare(first, second)) for first, second in changes]
    found = PublishedBoard((), ()) if submissions is None else board(submissions, tracks=tracks)
    return build.build_site(
        [Path(run) for run in runs],
        Path(out),
        shown,
        tracks=found.tracks,
        entries=found.entries,
        address=Address(base_url, repository),
    )
