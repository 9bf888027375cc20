"""A test that needs data sets is skipped without them, in one line that says what to set; CI refuses to skip it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = "def test_needs_data(data_dir):\n    assert (data_dir / 'mgsm').is_dir()\n"
REASON = "data sets missing: set FAIRSPEC_DATA_DIR to a folder that holds mgsm, multiq, ntrex"


def outcome(folder: Path, **environment: str) -> str:
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_it.py").write_text(TEST, encoding="utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FAIRSPEC_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(
        command, cwd=folder, env=own | environment, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize("given", ["", "nowhere", "."])
def test_without_data_a_test_is_skipped_and_says_what_to_set(given: str, tmp_path: Path) -> None:
    printed = outcome(tmp_path, FAIRSPEC_DATA_DIR=given)
    assert "1 skipped" in printed
    assert REASON in printed


def test_where_data_is_required_it_fails(tmp_path: Path) -> None:
    printed = outcome(tmp_path, FAIRSPEC_REQUIRE_DATA="1")
    assert "1 error" in printed
    assert REASON in printed


def test_with_data_it_runs(tmp_path: Path) -> None:
    for name in ("mgsm", "multiq", "ntrex"):
        (tmp_path / name).mkdir()
    assert "1 passed" in outcome(tmp_path, FAIRSPEC_DATA_DIR=str(tmp_path))
