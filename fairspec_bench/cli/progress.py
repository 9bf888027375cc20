"""How commands speak: lines, tables, progress. Standard output carries results, standard error how far things are."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fairspec_bench.mitigation.finetune import FineTuneProgress
    from fairspec_bench.scoring.run import Progress

Show = Callable[[str, float, float], None]


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=160)


def say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)


def show_rich(shown: Any) -> None:
    console().print(shown)


def silence() -> None:
    """No progress bar for each model that is loaded."""
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()
    else:  # not imported just for this: a wrong argument is answered without it
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def of_run(show: Show) -> Callable[[Progress], None]:
    """A run's `on_progress` that shows it."""
    return lambda progress: show(f"{progress.unit.stage} {progress.unit.chunk}", progress.done, progress.total)


def of_training(show: Show) -> Callable[[FineTuneProgress], None]:
    """That of fine-tuning likewise."""
    return lambda progress: show(progress.label, progress.done, progress.total)


@contextmanager
def progress() -> Iterator[Show]:
    """Shows (label, done, total): a bar with an ETA on a terminal, else a plain line whenever the label changes."""
    silence()
    with bar() if sys.stderr.isatty() else plain() as show:
        yield show


@contextmanager
def plain(clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """Lines for a log: what was done, of how much, and the time left at the pace since the start of this process."""
    last, begun, before = "", clock(), -1.0

    def show(label: str, done: float, total: float) -> None:
        nonlocal last, begun, before
        if before < 0:  # what an earlier process did is no part of the pace
            begun, before = clock(), done
        if label != last:
            last = label
            left = (clock() - begun) * (total - done) / (done - before) if done > before else None
            typer.echo(f"{done / total:4.0%} {label}{'' if left is None else f', {duration(left)} left'}", err=True)

    yield show


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bar = Bar(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True)

    def show(label: str, done: float, total: float) -> None:
        if not bar.task_ids:
            bar.add_task(label, total=total, completed=int(done))
        bar.update(bar.task_ids[0], completed=done, total=total, description=label)

    with bar:
        yield show
