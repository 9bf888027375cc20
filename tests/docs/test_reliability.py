"""Every case of docs/RELIABILITY.md names a test that exists, and every public case is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (.+?) \| .+ \| `(tests/\S+\.py)::(\w+)` \|$", (ROOT / "docs/RELIABILITY.md").read_text(), re.M)
CASES = {f"C{number}" for number in (*range(1, 8), *range(9, 23), *range(25, 31))}


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_each_case_names_a_test_that_exists() -> None:
    missing = [f"{case}: {file}::{test}" for case, file, test in ROWS if test not in functions(ROOT / file)]
    assert missing == []


def test_every_public_case_and_its_siblings_are_there() -> None:
    assert {case.split()[0] for case, *_ in ROWS} >= CASES
    assert len(ROWS) >= 40
    assert len({test for *_, test in ROWS}) == len(ROWS)  # no test stands for two cases
