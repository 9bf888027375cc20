"""Suites are listed from their group files alone: fast, and in either form of a suite's files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.suites import listing
from fairspec_bench.suites.listing import list_suites, suite_info

GROUP = """\
custom_dataset: !function utils.load
group: fairspec_own
task:
  - {task: fairspec_own_en}
  - {task: fairspec_own_sw, generation_kwargs: {until: ["Swali"]}}
metadata: {version: 1.0, title: Own, licence: ours, home: here}
"""


def test_listing_and_validating_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fairspec_bench.suites import suite, tracks\n"
        "from fairspec_bench.suites.listing import list_suites\n"
        "assert len(list_suites()) > 5\n"
        "assert len(tracks.list_tracks()) > 1\n"
        "print([name for name in ('torch', 'transformers', 'lm_eval', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_suite_may_be_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text(GROUP, encoding="utf-8")
    monkeypatch.setattr(listing, "tasks_folder", lambda: tmp_path)
    (info,) = list_suites()
    assert info == suite_info("own")
    assert (info.name, info.version, info.languages, info.published_sha256) == ("own", "1.0", ("en", "sw"), {})


def test_an_unknown_suite_names_the_known_ones() -> None:
    with pytest.raises(FairspecError, match=r"unknown suite 'mgms'\. Did you mean mgsm\? Known: aya, "):
        suite_info("mgms")
