"""The built wheel, installed into an empty folder elsewhere, is complete: the demo works from it alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_demo_runs_from_the_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT), cwd=empty)
    (wheel,) = wheels.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel), cwd=empty)
    where = {"PYTHONPATH": str(site), "FAIRSPEC_CACHE_DIR": str(tmp_path / "cache")}
    found = run(sys.executable, "-c", "import fairspec_bench; print(fairspec_bench.__file__)", cwd=empty, **where)
    assert Path(found.strip()).is_relative_to(site), "the test must not see the checkout"
    said = run(sys.executable, "-m", "fairspec_bench", "demo", "--quick", "--out", "made", cwd=empty, **where)
    page = empty / "made" / "site" / "index.html"
    assert str(page.relative_to(empty)) in said
    assert "embedded:verifier" in page.read_text(encoding="utf-8")
