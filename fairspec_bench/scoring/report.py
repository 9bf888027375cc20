"""The report of a run folder and the comparison of two, from their lines alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairspec_bench.metrics import advice
from fairspec_bench.metrics.comparison import Comparison, compare_runs
from fairspec_bench.metrics.report import build_report
from fairspec_bench.metrics.run_data import Lines, load_run_data
from fairspec_bench.schemas.io import GZIP, write_atomic
from fairspec_bench.schemas.report import Report
from fairspec_bench.schemas.stages import STAGES
from fairspec_bench.scoring.run_folder import REPORT, RunFolder


def lines_of(folder: RunFolder) -> Lines:
    """The lines of the finished units of a run. Raises `RecordError` for damaged ones."""
    folder.check()
    lines = {stage.field: folder.lines(stage.name, stage.record) for stage in STAGES.values()}
    return Lines(**lines, dropped=folder.dropped())  # type: ignore[arg-type]


def make_report(folder: RunFolder) -> Report:
    """The report of the finished units, from their lines alone. Of a whole run it is kept as `report.json`.

    Of an unfinished run, or a shard of one, it is flagged as such and not kept; nor is one where it is there gzipped.
    """
    report = build_report(folder.config, folder.environments, lines_of(folder))
    path, text = folder.path / REPORT, report.model_dump_json(indent=1) + "\n"
    zipped = (folder.path / f"{REPORT}{GZIP}").exists()
    if folder.whole and not zipped and not (path.exists() and path.read_bytes() == text.encode()):
        write_atomic(path, text)
    return report


def compare(first: Path, second: Path) -> Comparison:
    """The paired difference of two run folders, second − first. Raises `FairspecError`."""
    before, after = ((folder.config, lines_of(folder)) for folder in map(RunFolder, (first, second)))
    return compare_runs(before, after)


def advise(first: Path, others: Sequence[Path] = (), requests: int | None = None) -> advice.Advice:
    """What a run says to those who serve its pair; with other drafters' runs also what a router would gain.

    Raises `FairspecError`.
    """
    folders = [RunFolder(path) for path in (first, *others)]
    reports = [make_report(folder) for folder in folders]
    found = advice.advise(reports[0], requests)
    if not others:
        return found
    runs = [
        advice.TimedRun(str(folder.path), load_run_data(folder.config, lines_of(folder)), report.race_verdict.quiet)
        for folder, report in zip(folders, reports, strict=True)
    ]
    return advice.with_router(found, runs)
