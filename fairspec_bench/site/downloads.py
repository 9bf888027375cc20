"""Every figure of the site as JSON and CSV, and the JSON schemas of the records.

A local run is given with its whole report, a submission with the figures of its pages: its own folder has the rest.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairspec_bench.reporting.escape import spreadsheet
from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report
from fairspec_bench.schemas.submission import Audit, Submission, Verified
from fairspec_bench.site.board import MARKS, Board, Candidate, Entry
from fairspec_bench.site.views import Run
from fairspec_bench.suites.tracks import Track

SCHEMA_VERSION = 4
LICENCE = "Apache-2.0"  # of the code and the figures
COLUMNS = (
    "track", "slug", "name", "verifier", "drafter", "gamma", "suite", "language", "measure", "value", "low", "high",
)  # fmt: skip
FIGURES = (
    "acceptance", "overlap", "block_efficiency_uncut", "misfit", "speedup", "speedup_end_to_end",
    "seconds_per_answer_autoregressive", "seconds_per_answer", "tokens_per_answer", "verifier_calls_per_answer",
    "truncated", "looping", "off_language", "dropped",
)  # fmt: skip
SCHEMAS: Mapping[str, type[Record]] = {
    "submission": Submission,
    "verified": Verified,
    "report": Report,
    "audit": Audit,
    "track": Track,
}


class Figure(Record):
    """A figure and its 95 % interval; `null` is no data."""

    value: float | None
    low: float | None
    high: float | None


class SuiteFigures(Record):
    """A submission in one suite; `ranks` from the best to the lowest it may have, `null` where it has none."""

    ranks: tuple[int, int] | None
    noise_floor: float | None
    levelled_down: tuple[str, ...]
    across: dict[str, Figure]
    languages: dict[str, dict[str, Figure]]


class EntryFigures(Record):
    """A checked submission. `audited` says which of its claims were, `unranked` why it has no rank."""

    slug: str
    page: str
    audited: dict[str, bool]
    unranked: str | None
    manifest_sha256: Sha256
    submission: Submission
    small_pair: bool
    race_verdict: RaceVerdict
    suites: dict[str, SuiteFigures]


class RefusedFolder(Record):
    """A folder that the check refused, and its findings."""

    slug: str
    refusals: tuple[str, ...]


class BoardFile(Record):
    """board.json. `date` is the day of the newest run or audit; `tracks` and `runs` as their own records have them."""

    schema_version: int
    date: str
    licence: str
    tracks: list[dict[str, Any]]
    entries: list[EntryFigures]
    refused: list[RefusedFolder]
    runs: list[dict[str, Any]]


def schemas() -> dict[str, str]:
    """The JSON schema of each record and of board.json, by its file."""
    found = {name: kind.model_json_schema() for name, kind in SCHEMAS.items()}
    found["board"] = BoardFile.model_json_schema()
    return {
        f"schemas/{name}.json": json.dumps(schema, indent=1, sort_keys=True) + "\n" for name, schema in found.items()
    }


def board_json(runs: Sequence[Run], boards: Sequence[Board] = (), refused: Sequence[Entry] = (), date: str = "") -> str:
    """Every figure of the site, with what made it, as JSON in ASCII; one submission or run a line."""
    parts = {
        "tracks": [_track(board) for board in boards],
        "entries": [_entry(board, each) for board in boards for each in board.candidates],
        "refused": [{"slug": each.slug, "refusals": each.refusals} for each in refused],
        "runs": [_run(run) for run in runs],
    }
    lines = ",\n".join(f'"{name}": [{_lines(records)}]' for name, records in parts.items())
    head = f'"schema_version": {SCHEMA_VERSION}, "date": {json.dumps(date)}, "licence": {json.dumps(LICENCE)}'
    return f"{{{head},\n{lines}}}\n"


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    texts = [json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":")) for record in records]
    return "\n" + ",\n".join(texts) + "\n" if texts else ""


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "page": run.page,
        "small_pair": run.small,
        **run.report.model_dump(mode="json", include={"config": {"verifier", "drafter", "sampling", "gamma", "seed"}}),
        **run.report.model_dump(mode="json", include={"suites", "race_verdict", "notes"}),
    }


def _track(board: Board) -> dict[str, Any]:
    omitted = {"suites": {"__all__": {"data_sha256", "prompts_sha256", "divergence"}}}
    return {"page": board.page, **board.track.model_dump(mode="json", exclude=omitted)}


def _entry(board: Board, candidate: Candidate) -> dict[str, Any]:
    entry = candidate.verified.entry
    return {
        "slug": candidate.entry.slug,
        "page": candidate.page,
        "audited": {mark: mark in candidate.marks for mark in MARKS},
        "unranked": candidate.reason or None,
        "manifest_sha256": candidate.verified.manifest_sha256,
        "submission": entry.model_dump(mode="json"),
        "small_pair": candidate.run.small,
        "race_verdict": candidate.run.report.race_verdict.model_dump(mode="json"),
        "suites": {name: _suite(board, candidate, name) for name in board.suites if name in candidate.views},
    }


def _suite(board: Board, candidate: Candidate, name: str) -> dict[str, Any]:
    suite = candidate.views[name].suite
    placed = board.places(name).get(candidate.slug)
    return {
        "ranks": None if placed is None else [placed.standing.low, placed.standing.high],
        "noise_floor": suite.noise_floor,
        "levelled_down": board.levelled_down(candidate, name),
        "across": {measure: _plain(e) for measure, e in suite.across.items()},
        "languages": {
            task.language: {m: _plain(task.measures[m]) for m in FIGURES if m in task.measures} for task in suite.tasks
        },
    }


def _plain(e: Estimate) -> dict[str, float | None]:
    return {"value": e.value, "low": e.low, "high": e.high}


def board_csv(runs: Sequence[Run], boards: Sequence[Board] = ()) -> str:
    """One line for each figure: its place, value and 95 % interval; no data is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        writer.writerows(_csv_rows("", "", run, None))
    for board in boards:
        for each in board.candidates:
            writer.writerows(_csv_rows(board.track.name, each.entry.slug, each.run, FIGURES))
    return text.getvalue()


def _csv_rows(track: str, slug: str, run: Run, kept: Sequence[str] | None) -> Iterable[list[Any]]:
    """The figures of one report; of its languages only those `kept`, where given."""
    place: list[str | int] = [track, slug, run.name, run.verifier, run.drafter, run.report.config.gamma]
    start = [_csv_cell(each) for each in place]
    for suite in run.report.suites:
        groups = [("", suite.across, None), *((task.language, task.measures, kept) for task in suite.tasks)]
        for language, measures, only in groups:
            cells = [*start, _csv_cell(suite.suite), _csv_cell(language)]
            for name in sorted(measures if only is None else set(measures).intersection(only)):
                e = measures[name]
                yield [*cells, _csv_cell(name), e.value, e.low, e.high]


def _csv_cell(cell: str | int) -> str | int:
    return cell if isinstance(cell, int) else spreadsheet(cell)
