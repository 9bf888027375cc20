"""The committed results: the report of each committed run is what its lines give, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import fairspec_bench
from fairspec_bench import face
from fairspec_bench.records import read_record
from fairspec_bench.studies import causal, rivals, transfer

RESULTS = Path(__file__).parent.parent / "docs" / "results"
RUNS = sorted(path.parent for path in RESULTS.glob("*/run.json"))

STUDIES = (
    ("causal", causal.Causal, causal.describe),
    ("rivals", rivals.Rivals, rivals.page),
    ("transfer", transfer.Transfer, transfer.page),
)


def test_there_are_committed_runs() -> None:
    assert {run.name for run in RUNS} >= {"ntrex-mgsm", "ntrex-multiq"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_lines_give_the_committed_report(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    (copy / "report.json").unlink()
    report = fairspec_bench.report(copy)
    assert (copy / "report.json").read_bytes() == (run / "report.json").read_bytes()
    assert (run / "report.md").read_text(encoding="utf-8") == face.markdown(report).rstrip("\n") + "\n"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_no_text_of_the_data_is_committed(run: Path) -> None:
    for path in run.rglob("answer.jsonl"):
        assert all('"text":null' in line for line in path.read_text(encoding="utf-8").splitlines())


def test_the_pages_of_studies_are_those_of_their_figures() -> None:
    for name, kind, page in STUDIES:
        made = page(read_record(RESULTS / f"{name}.json", kind))
        assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == made


def test_the_plane_is_that_of_the_figures() -> None:
    made = rivals.plane(read_record(RESULTS / "rivals.json", rivals.Rivals))
    assert (RESULTS / "rivals.svg").read_text(encoding="utf-8") == made
