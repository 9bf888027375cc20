"""Rows as they are measured, and at the end the table: printed, and written where `--table` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pace import Row

from fairspec_bench.schemas.io import write_atomic
from fairspec_bench.scoring.environment import describe

ROWS = pytest.StashKey[list[Row]]()
READING = "## Aims missed, and why"
NOTES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="Write the rows to PATH.md and PATH.json.")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on two shared cores wait for each other more than they help."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def take(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Keep a row for the table."""
    return request.config.stash.setdefault(ROWS, []).append


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a line of the profile."""
    return request.config.stash.setdefault(NOTES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows, path = config.stash.get(ROWS, []), config.getoption("--table", None)
    if not rows:
        return
    notes = config.stash.get(NOTES, [])
    terminalreporter.write_line("\n".join([*table(rows), "", *notes]))
    if path:
        write_atomic(path.with_suffix(".json"), json.dumps([asdict(each) for each in rows], indent=1) + "\n")
        made = page(rows, notes, "cuda" if torch.cuda.is_available() else "cpu")
        write_atomic(path.with_suffix(".md"), made + said_before(path.with_suffix(".md")))


def table(rows: list[Row]) -> list[str]:
    lines = ["| what | aim | measured | 95 % interval | met | |", "|---|---|---|---|---|---|"]
    for each in rows:
        value, low, high = (f"{number:.3g}" for number in (each.value, each.low, each.high))
        verdict = "yes" if each.met == "yes" else f"**{each.met}**"
        lines.append(f"| {each.what} | {each.aim} | {value} | {low} to {high} | {verdict} | {each.detail} |")
    return lines


def said_before(path: Path) -> str:
    """What somebody wrote below the figures of an earlier table: it stays, to be read again."""
    _, found, rest = (path.read_text() if path.exists() else "").partition(READING)
    return f"\n{found}{rest}" if found else ""


def page(rows: list[Row], notes: list[str], device: str) -> str:
    here = describe(device)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(here.packages.items()))
    profile = ["", "## Where a block's time goes", "", "Embedded pair, γ = 4, batch 1.", "", *notes] if notes else []
    return "\n".join(
        [
            "# The engine beside Transformers and its own limits",
            "",
            f"Made by `make {'bench-gpu' if device == 'cuda' else 'bench'}`. The two sides of a row are taken in turn,",
            "in one process, on the same pair and ids. The figure is the median of rounds' ratios (nine, or seven),",
            "the interval that of the order statistics; of a speed-up, the race's. An aim is met by a whole",
            "interval; `open` where it lies within. None is dropped.",
            "",
            *table(rows),
            "",
            f"Machine: {here.processor}, {here.cores} cores, one thread used, {here.device_name}.",
            f"Python {here.python}; {versions}. Commit {here.commit}. {here.started}.",
            *profile,
            "",
        ]
    )
