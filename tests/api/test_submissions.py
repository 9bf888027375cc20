"""Submissions by the API: from a drafter to a board, and from a run to a track."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.api import submissions
from fairspec_bench.api.submissions import changed_submission
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import CACHE_DIR
from fairspec_bench.submissions.check import check, sealed
from fairspec_bench.suites.tracks import load_track

TOLD = {
    "name": "Tiny",
    "description": "A tiny drafter.",
    "authors": ("A. Nother",),
    "contact": "a@example.org",
    "licence": "Apache-2.0",
    "url": "https://example.org",
    "training_data": "None.",
}
RACELESS = {"race_rounds": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pair, a track fixed by its run, and one sealed submission to it."""
    base = tmp_path_factory.mktemp("submissions")
    verifier, drafter = map(str, save_pair(base))
    options = {"languages": ("en", "te"), "limit": 3, "max_new_tokens": 16, **RACELESS}
    fairspec.run(verifier, "lookup", ["embedded_math"], base / "run", cache=None, **options)
    made = fairspec.new_track(base / "run", "tiny", title="Tiny", about="A test.", folder=base / "tracks")
    assert made == base / "tracks" / "tiny.toml"
    fairspec.submit_new(base / "submissions" / "mine", "tiny", drafter, tracks=base / "tracks", **TOLD)
    fairspec.submit_score(base / "submissions" / "mine", drafter, tracks=base / "tracks", **RACELESS)
    return base


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_scored_at_the_desk_passes_the_check(home: Path) -> None:
    verdict = fairspec.submit_check(home / "submissions" / "mine", tracks=home / "tracks")
    assert [str(finding) for finding in verdict.findings] == []
    assert verdict.verified is not None
    drafter = verdict.verified.entry.drafter
    assert (drafter.kind, drafter.repo) == ("model", "drafter")
    assert {"model.safetensors", "config.json"} <= drafter.files.keys()
    assert verdict.verified.report.config.drafter is not None
    assert verdict.verified.report.config.drafter.name == "drafter"  # and not where it lay


def test_the_texts_are_the_tracks_and_none_is_decoded(home: Path, tmp_path: Path) -> None:
    """A pack whose texts are not what the verifier says is taken as it is: no text was made anew."""
    tracks = Path(shutil.copytree(home / "tracks", tmp_path / "tracks"))
    pack = tracks / "tiny.reference.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(pack.read_bytes()).splitlines()]
    lines[0]["ids"][-1] = (lines[0]["ids"][-1] + 1) % 200 + 20
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    pack.write_bytes(gzip.compress(text))
    track = load_track("tiny", tracks)
    changed = (tracks / "tiny.toml").read_text().replace(str(track.reference_sha256), hashlib.sha256(text).hexdigest())
    (tracks / "tiny.toml").write_text(changed)
    folder = tmp_path / "submissions" / "other"
    fairspec.submit_new(folder, "tiny", str(home / "drafter"), tracks=tracks, **TOLD)
    fairspec.submit_score(folder, str(home / "drafter"), tracks=tracks, **RACELESS)
    found = {finding.code for finding in check(folder, tracks).findings}
    assert found <= {"T005", "T004", "R006"}  # the verifier here would say something else, and the replay tells
    assert "T005" in found


def test_a_scored_submission_is_not_scored_again_and_an_unknown_one_is_one_line(home: Path, tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="is scored"):
        fairspec.submit_score(home / "submissions" / "mine", tracks=home / "tracks")
    with pytest.raises(FairspecError, match=r"no submission.toml"):
        fairspec.submit_score(tmp_path / "nothing")
    with pytest.raises(FairspecError, match="either the drafter"):
        fairspec.submit_new(tmp_path / "x", "embedded")


def test_another_verifier_than_the_tracks_is_refused(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "submissions" / "other"
    fairspec.submit_new(folder, "tiny", str(home / "drafter"), tracks=home / "tracks", **TOLD)
    given = {"verifier": str(home / "drafter"), "tracks": home / "tracks", **RACELESS}
    with pytest.raises(FairspecError, match="track tiny: verifier: the weights or their dtype differ here"):
        fairspec.submit_score(folder, str(home / "drafter"), **given)


def test_a_private_folder_that_would_not_be_used_is_refused(home: Path, tmp_path: Path) -> None:
    """It was ignored without a word: embedded suites make their own fresh prompts."""
    given = {"auditor": "A. Nother", "tracks": home / "tracks"}
    submission = home / "submissions" / "mine"
    with pytest.raises(FairspecError, match="track tiny has embedded suites only, which make their own fresh prompts"):
        fairspec.submit_audit(submission, private=tmp_path, **given)
    with pytest.raises(FairspecError, match=r"nowhere: no such folder\. Give --private a folder"):
        fairspec.submit_audit(submission, private=tmp_path / "nowhere", **given)
    with pytest.raises(FairspecError, match="sample=0: must be at least 1"):
        fairspec.submit_audit(submission, sample=0, **given)


def test_a_track_is_fixed_once(home: Path) -> None:
    with pytest.raises(FairspecError, match=r"A changed track is a new track"):
        fairspec.new_track(home / "run", "tiny", title="T", about="A", folder=home / "tracks")
    track = load_track("tiny", home / "tracks")
    assert track.open_fields == ()
    assert {language for suite in track.suites for language in suite.divergence} == {"en", "te"}


def test_an_archived_track_takes_no_submissions(home: Path, tmp_path: Path) -> None:
    tracks = Path(shutil.copytree(home / "tracks", tmp_path / "tracks"))
    (tracks / "tiny.toml").write_text('archived = "Its verifier was withdrawn."\n' + (tracks / "tiny.toml").read_text())
    fairspec.submit_new(tmp_path / "late", "tiny", str(home / "drafter"), tracks=tracks, **TOLD)
    with pytest.raises(FairspecError, match=r"takes no submissions .Its verifier was withdrawn"):
        fairspec.submit_score(tmp_path / "late", str(home / "drafter"), tracks=tracks)


def test_the_board_reads_what_an_earlier_check_kept_and_only_for_the_same_bytes(
    home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submissions = Path(shutil.copytree(home / "submissions", tmp_path / "submissions"))
    checked: list[Path] = []

    def counted(folder: Path, tracks: Path | None = None) -> object:
        checked.append(folder)
        return check(folder, tracks)

    monkeypatch.setattr("fairspec_bench.submissions.check.check", counted)
    first = fairspec.board(submissions, tracks=home / "tracks")
    second = fairspec.board(submissions, tracks=home / "tracks")
    assert first == second
    assert len(checked) == 1
    assert first.entries[0].verified is not None
    lines = submissions / "mine" / "run" / "replay.jsonl.gz"
    lines.write_bytes(gzip.compress(gzip.decompress(lines.read_bytes()).replace(b'"alpha":', b'"alpha":1')))
    (entry,) = fairspec.board(submissions, tracks=home / "tracks").entries
    assert len(checked) == 2
    assert entry.verified is None
    assert any(words.startswith("M004") for words in entry.refusals)


def test_a_kept_record_that_is_damaged_or_of_other_bytes_is_not_believed(home: Path, cache: Path) -> None:
    fairspec.board(home / "submissions", tracks=home / "tracks")
    (kept,) = cache.rglob("*.json.gz")
    manifest = sealed(home / "submissions" / "mine")
    assert manifest is not None
    assert kept.name == f"{manifest}.json.gz"
    good = kept.read_bytes()
    forged = gzip.compress(gzip.decompress(good).replace(manifest.encode(), b"0" * 64))
    for bytes_there in (b"", b"no gzip", gzip.compress(b"{}"), forged):
        kept.write_bytes(bytes_there)
        (entry,) = fairspec.board(home / "submissions", tracks=home / "tracks").entries
        assert entry.verified is not None
        assert kept.read_bytes() == good  # checked anew


def test_a_cache_that_cannot_be_written_costs_no_verdict(home: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert fairspec.submit_check(home / "submissions" / "mine", tracks=home / "tracks").ok


def test_scoring_stopped_while_it_packed_is_sealed_by_pack(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(home / "submissions" / "mine", tmp_path / "mine"))
    lines = folder / "run" / "reference.jsonl.gz"
    lines.with_suffix("").write_bytes(gzip.decompress(lines.read_bytes()))
    lines.write_bytes(lines.read_bytes()[:20])  # torn, its source still there
    with pytest.raises(FairspecError, match="Seal it with fairspec submit pack"):
        fairspec.submit_score(folder, tracks=home / "tracks")
    fairspec.submit_pack(folder)
    assert [str(finding) for finding in check(folder, home / "tracks").findings] == []


def test_a_folder_that_is_no_slug_is_listed_as_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "submissions" / "mine", tmp_path / "submissions" / "Not A Slug")
    (entry,) = fairspec.board(tmp_path / "submissions", tracks=home / "tracks").entries
    assert entry.verified is None
    assert "no slug" in entry.refusals[0]


def test_the_site_of_a_folder_of_submissions(home: Path, tmp_path: Path) -> None:
    page = fairspec.build_board(tmp_path / "site", home / "submissions", tracks=home / "tracks")
    assert page == tmp_path / "site" / "index.html"
    assert "Tiny" in (tmp_path / "site" / "submissions" / "mine.html").read_text(encoding="utf-8")
    with pytest.raises(FairspecError, match="nothing to show"):
        fairspec.build_board(tmp_path / "site")
    with pytest.raises(FairspecError, match="no such folder"):
        fairspec.build_board(tmp_path / "site", tmp_path / "nowhere")


# --------------------------------------------------------------------------- pull requests


def git(root: Path, *arguments: str) -> None:
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(root), *settings, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a base branch of one submission, and a branch on top of it."""
    root = tmp_path / "checkout"
    (root / "submissions" / "old").mkdir(parents=True)
    (root / "submissions" / "old" / "submission.toml").write_text("old")
    (root / "code.py").write_text("old")
    git(root.parent, "init", "-q", "-b", "main", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "base")
    git(root, "checkout", "-qb", "branch")
    return root


def commit(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("new")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "change")


def test_a_pull_request_is_one_submission(checkout: Path) -> None:
    commit(checkout, "submissions/new/submission.toml", "submissions/new/run/run.json")
    assert changed_submission("main", checkout) == checkout / "submissions" / "new"


@pytest.mark.parametrize(
    "names",
    [
        ("submissions/new/a", "code.py"),
        ("submissions/new/a", "submissions/old/submission.toml"),
        ("submissions/new/a", ".github/workflows/x.yml"),
        ("submissions/_audits/old.json",),
        ("submissions/loose.toml",),
        ("submissions/new/a", "submissions/nëw/a"),
        ("submissions-too/new/a",),
    ],
)
def test_a_pull_request_of_more_than_a_submission_is_refused(names: tuple[str, ...], checkout: Path) -> None:
    commit(checkout, *names)
    with pytest.raises(FairspecError, match="one folder submissions/SLUG and nothing else"):
        changed_submission("main", checkout)


def test_an_archived_track_takes_no_submission(checkout: Path, home: Path, tmp_path: Path) -> None:
    tracks = Path(shutil.copytree(home / "tracks", tmp_path / "tracks"))
    path = tracks / "tiny.toml"
    text = path.read_text()
    path.write_text('archived = "superseded by tiny-2"\n' + text)
    commit(checkout, "submissions/new/run/run.json")
    (checkout / "submissions/new/submission.toml").write_text('track = "tiny"\n')
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "a track")
    with pytest.raises(FairspecError, match="track tiny: takes no submissions"):
        changed_submission("main", checkout, tracks=tracks)
    path.write_text(text)
    assert changed_submission("main", checkout, tracks=tracks) == checkout / "submissions" / "new"


@pytest.mark.parametrize("name", ["New", "con", "\u0440lain", "a" * 64, "new_one", "new.txt"])
def test_a_folder_that_is_no_slug_is_refused(name: str, checkout: Path) -> None:
    """`Ntrex-mgsm-plain` took the page of `ntrex-mgsm-plain`."""
    commit(checkout, f"submissions/{name}/submission.toml")
    with pytest.raises(FairspecError, match="no slug"):
        changed_submission("main", checkout)


def test_what_an_older_checker_passed_is_checked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kept verdicts were known by a number that nobody raised."""
    first = submissions.kept_check("a")
    assert submissions.kept_check("a") == first
    package = tmp_path / "fairspec_bench"
    shutil.copytree(
        Path(submissions.__file__).parents[1], package, ignore=shutil.ignore_patterns("*.safetensors", "*.npz")
    )
    monkeypatch.setattr(submissions, "__file__", str(package / "api/submissions.py"))
    for source in ("submissions/rules.py", "metrics/speed.py", "schemas/invariants.py"):
        submissions.checker_sha256.cache_clear()
        before = submissions.kept_check("a")
        with (package / source).open("a") as file:
            file.write("# a rule more\n")
        submissions.checker_sha256.cache_clear()
        assert submissions.kept_check("a") != before
    submissions.checker_sha256.cache_clear()


def test_nothing_changed_a_removal_and_an_unknown_base_are_one_line(checkout: Path) -> None:
    with pytest.raises(FairspecError, match="'nothing': changed"):
        changed_submission("main", checkout)
    with pytest.raises(FairspecError, match="Fetch the base branch"):
        changed_submission("no-such-ref", checkout)
    git(checkout, "rm", "-rq", "submissions/old")
    git(checkout, "commit", "-qm", "gone")
    with pytest.raises(FairspecError, match="withdraw"):
        changed_submission("main", checkout)
