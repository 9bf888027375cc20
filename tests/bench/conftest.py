"""Rows as they are measured, and at the end the table: printed, and written where `--table` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from pace import Row

from fairspec_bench.records import write_atomic
from fairspec_bench.score.environment import describe

ROWS = pytest.StashKey[list[Row]]()
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


def table(rows: list[Row]) -> str:
    lines = ["| what | aim | measured | 95 % interval | met | |", "|---|---|---|---|---|---|"]
    for each in rows:
        met = "yes" if each.met else "**no**"
        value, low, high = (f"{number:.3g}" for number in (each.value, each.low, each.high))
        lines.append(f"| {each.what} | {each.aim} | {value} | {low} to {high} | {met} | {each.detail} |")
    return "\n".join(lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    notes = config.stash.get(NOTES, [])
    device = "cuda" if "cuda" in str(config.getoption("--table")) and torch.cuda.is_available() else "cpu"
    here = describe(device)
    text = table(rows) + "\n\n" + "\n".join(notes) + "\n"
    terminalreporter.write_line(text)
    if path := config.getoption("--table"):
        machine = (
            f"{here.processor}, {here.cores} cores, {here.threads} threads, {here.device_name}; Python {here.python}"
        )
        packages = ", ".join(f"{name} {version}" for name, version in sorted(here.packages.items()))
        head = f"Machine: {machine}. Versions: {packages}. Code: {here.commit}. {here.started}."
        write_atomic(path.with_suffix(".json"), json.dumps([asdict(each) for each in rows], indent=1) + "\n")
        profile = (
            "\n\n## Where a block's time goes\n\nEmbedded pair, γ = 4, batch 1.\n\n" + "\n".join(notes) if notes else ""
        )
        write_atomic(path.with_suffix(".table.md"), f"{table(rows)}\n\n{head}{profile}\n")
