"""`fairspec pin` against a Hub of one's own: commits into pair files, nothing half written, no network one line."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from fairspec_bench.api.models import pin
from fairspec_bench.cli.main import main
from fairspec_bench.models import hub
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites import pairs
from fairspec_bench.suites.listing import tasks_folder

COMMITS = {
    "Qwen/Qwen2.5-3B": "0123456789012345678901234567890123456789",
    "Qwen/Qwen2.5-0.5B": "b" * 40,
    "Qwen/Qwen3-8B-Base": "main",
}
PAIR = "qwen2.5-0.5b-3b"


class Hub(BaseHTTPRequestHandler):
    """What the Hub says of a model at `/api/models/ID`, and at `/api/models/ID/revision/REVISION`."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        name, _, revision = self.path.removeprefix("/api/models/").partition("?")[0].partition("/revision/")
        known = {"id": name, "sha": COMMITS.get(name), "siblings": []}
        found = name in COMMITS and revision in ("", "main")
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "RevisionNotFound" if name in COMMITS else "RepoNotFound")
        self.end_headers()
        self.wfile.write(json.dumps(known if found else {"error": "not found"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tasks_folder(), tmp_path / "tasks")
    monkeypatch.setattr(pairs, "tasks_folder", lambda: tmp_path / "tasks")
    return tmp_path / "tasks" / "pairs"


def test_commits_are_written_into_the_pairs_file_and_nothing_else_changes(online: None, folder: Path) -> None:
    path = folder / f"{PAIR}.yaml"
    before = path.read_text().splitlines()
    assert pin(PAIR) == tuple((name, COMMITS[name]) for name in ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-0.5B"))
    pair = pairs.load_pair_file(PAIR)
    assert (pair.verifier.revision, pair.drafter.revision) == (
        COMMITS[pair.verifier.model],
        COMMITS[pair.drafter.model],
    )
    assert pair.pinned
    after = path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [old for old, _ in changed] == ["  revision: null"] * 2
    assert pin(PAIR) == ()
    assert path.read_text().splitlines() == after


def test_a_branch_is_not_pinned_and_a_commit_is_kept(online: None, folder: Path) -> None:
    path = folder / f"{PAIR}.yaml"
    text = path.read_text().replace("revision: null", "revision: main", 1)
    path.write_text(text.replace("revision: null", f"revision: {'c' * 40}", 1))
    assert not pairs.load_pair_file(PAIR).pinned
    assert pin(PAIR) == (("Qwen/Qwen2.5-3B", COMMITS["Qwen/Qwen2.5-3B"]),)
    assert pairs.load_pair_file(PAIR).drafter.revision == "c" * 40


def test_a_models_commit_is_printed(online: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pin", "Qwen/Qwen2.5-0.5B"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"Qwen/Qwen2.5-0.5B revision={'b' * 40}\n"


def test_a_half_of_a_pair_is_not_written(online: None, folder: Path) -> None:
    """The drafter's commit cannot be had: the verifier's is not written either."""
    path = folder / f"{PAIR}.yaml"
    path.write_text(path.read_text().replace("model: Qwen/Qwen2.5-0.5B", "model: Qwen/Gone"))
    before = path.read_bytes()
    with pytest.raises(FairspecError, match=r"^Qwen/Gone: no model at https://huggingface.co/Qwen/Gone"):
        pin(PAIR)
    assert path.read_bytes() == before


def test_refused_in_one_line(online: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / f"{PAIR}.yaml"
    said = yaml.safe_load(path.read_text())
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in said.items()))
    refused = {
        "no line `revision: null`": PAIR,
        "unknown pair or Hub id .owner/name. .qwen9.": "qwen9",
        "unknown pair or Hub id .owner/name. .a/b/c.": "a/b/c",
        "gave no commit": "Qwen/Qwen3-8B-Base",
    }
    for word, name in refused.items():
        with pytest.raises(FairspecError, match=word) as caught:
            pin(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(FairspecError, match="the Hub cannot be reached") as caught:
        pin("Qwen/Qwen2.5-3B")
    assert "\n" not in str(caught.value)


def test_without_names_every_open_pair_is_pinned(
    online: None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.glob("*.yaml"):
        if path.stem not in (PAIR, "embedded"):
            path.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["pin"])
    assert ended.value.code == 0
    assert f"pinned: {PAIR}" in capsys.readouterr().out
    assert all(pair.pinned for pair in pairs.list_pairs())


def test_a_planted_bug_is_seen(online: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both commits written in the first place."""
    substitute = pairs.re.subn
    monkeypatch.setattr(
        pairs.re,
        "subn",
        lambda pattern, *rest, **more: substitute(pattern.replace("drafter:", "verifier:"), *rest, **more),
    )
    with pytest.raises(AssertionError):
        test_commits_are_written_into_the_pairs_file_and_nothing_else_changes(None, folder)
