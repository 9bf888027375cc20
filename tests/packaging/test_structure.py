"""The layout of the repository: what lies where, one meaning a class name, and how many files there are."""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairspec_bench"
NOT_OF_A_PACKAGE = {"bench", "browser", "docs", "packaging", "support"}
"""Folders of tests that are of no one package: benchmarks, browser, documents, distribution, and what tests share."""


def test_no_module_lies_loose_at_the_root() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert (PACKAGE / "py.typed").is_file()


def test_a_class_name_means_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_tests_mirror_the_package() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert [
        str(path) for path in folders if path.parts[0] not in NOT_OF_A_PACKAGE and not (PACKAGE / path).is_dir()
    ] == []


def test_there_are_few_files() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: tracked files cannot be counted")
    assert len(done.stdout.splitlines()) < 800
