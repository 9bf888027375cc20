"""The how-tos of docs/howto work as written, in a copy of the checkout: each extends it in at most two files.

Of a page, a block with `file=PATH` is that file, new and whole; a `diff` with `file=PATH` is an edit, its context found
once; a `console` is run, line by line; a `text` after it are lines that were printed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
COPIED = ("fairspec_bench", "tasks", "tests", "leaderboard", "docs", "CHANGELOG.md", "pyproject.toml")
FIRST = {"language": "suite"}
"""A page, and the one that it continues."""
EXTENDED = ("fairspec_bench/", "leaderboard/", "tasks/")
REFUSED = "refused: exit 2"
FENCE = re.compile(r"^```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path.stem for path in HOWTO.glob("*.md"))


class Block(NamedTuple):
    kind: str
    file: str | None
    body: str


def blocks(page: str) -> list[Block]:
    found = FENCE.finditer((HOWTO / f"{page}.md").read_text(encoding="utf-8"))
    return [Block(match["kind"], match["file"], match["body"]) for match in found]


def commands(block: Block) -> list[str]:
    return block.body.replace("\\\n", "").splitlines()


def follow(page: str, copy: Path) -> None:
    """Make and edit the files of a page."""
    for block in blocks(page):
        if block.file is None:
            continue
        path = copy / block.file
        if block.kind == "diff":
            edit(path, block.body)
        else:
            assert not path.exists(), f"{page}.md: {block.file} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")


def edit(path: Path, diff: str) -> None:
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +-\n" for line in lines)
    before, after = ("".join(line[1:] or "\n" for line in lines if line[0] != sign) for sign in "+-")
    text = path.read_text(encoding="utf-8")
    assert ("\n" + text).count("\n" + before) == 1, f"{path.name}: not there once:\n{before}"
    path.write_text(("\n" + text).replace("\n" + before, "\n" + after)[1:], encoding="utf-8")


def output_of(command: str, copy: Path) -> str:
    """What a command prints. It must succeed, or be refused if the page says so."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "FAIRSPEC_CACHE_DIR": str(copy / "cache"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command, shell=True, cwd=copy, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == (2 if command.endswith(REFUSED) else 0), command + "\n" + done.stdout + done.stderr
    return done.stdout + done.stderr


def steps(page: str) -> Iterator[tuple[list[str], list[str]]]:
    """The commands of a page's `console` blocks, and the lines that each block should print."""
    found = blocks(page)
    for block, following in zip(found, [*found[1:], None], strict=True):
        if block.kind == "console":
            printed = following.body if following and following[:2] == ("text", None) else ""
            yield commands(block), printed.splitlines()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_it_works_as_written(page: str, copy: Path) -> None:
    if page in FIRST:
        follow(FIRST[page], copy)
        for asked, _ in steps(FIRST[page]):
            for command in asked:
                if command.startswith("python "):
                    output_of(command, copy)
    follow(page, copy)
    run = 0
    for asked, wanted in steps(page):
        printed = "\n".join(output_of(command, copy) for command in asked)
        run += len(asked)
        missing = [line for line in wanted if line.rstrip("…") not in printed]
        assert not missing, f"not printed: {missing}\n{printed}"
        assert wanted, f"{page}.md: a console block without what it prints"
    assert run, f"{page}.md: no command"


@pytest.mark.parametrize("page", PAGES)
def test_it_takes_at_most_two_files(page: str) -> None:
    """Besides data and a test."""
    files = {block.file for block in blocks(page) if block.file and block.file.startswith(EXTENDED)}
    assert 1 <= len(files) <= 2


@pytest.mark.parametrize("page", PAGES)
def test_what_it_adds_passes_linters(page: str, copy: Path) -> None:
    if page in FIRST:
        follow(FIRST[page], copy)
    follow(page, copy)
    files = [block.file for block in blocks(page) if block.file and block.file.endswith(".py")]
    if files:
        output_of(f"ruff check {' '.join(files)}", copy)
        output_of(f"ruff format --check {' '.join(files)}", copy)
        output_of("lint-imports --no-cache", copy)


def test_an_edit_that_no_longer_fits_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "table.py"
    path.write_text("a = 1\nb = 2\n", encoding="utf-8")
    edit(path, " a = 1\n+c = 3\n-b = 2\n")
    assert path.read_text(encoding="utf-8") == "a = 1\nc = 3\n"
    with pytest.raises(AssertionError, match="not there once"):
        edit(path, " a = 1\n-b = 2\n")
