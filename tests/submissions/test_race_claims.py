"""Submissions whose race ended early, or that swept: accepted exactly as the rule has it, refused if cut otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import REPLICATES, change_document, change_line, small_submission

from fairspec_bench.metrics.report import build_report
from fairspec_bench.schemas import stages
from fairspec_bench.schemas.config import ChunkDone
from fairspec_bench.schemas.io import lines_text, read_lines, write_record
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Throughput
from fairspec_bench.schemas.stages import Unit, sweep_keys, sweep_places, units
from fairspec_bench.scoring.report import lines_of
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.submissions.check import check
from fairspec_bench.submissions.pack import pack

TASKS = ("embedded_math/en", "embedded_math/ja", "embedded_story/en", "embedded_story/ja")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_submission(tmp_path_factory.mktemp("race"))


@pytest.fixture
def copy(valid: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid[0], tmp_path / "copy"))


def found(folder: Path, tracks: Path) -> set[str]:
    pack(folder)
    return {finding.code for finding in check(folder, tracks).findings}


def marks(folder: Path, change: Callable[[list[ChunkDone]], list[ChunkDone]]) -> None:
    path = folder / "run" / "chunks.jsonl"
    path.write_text(lines_text(change(list(read_lines(path, ChunkDone)))))


def report(folder: Path) -> None:
    run = RunFolder(folder / "run")
    made = build_report(run.config, run.environments, lines_of(run), replicates=REPLICATES)
    write_record(folder / "run" / "report.json", made)


def keep_raced(folder: Path, task: str, prompts: int) -> None:
    """Leave the timings of so many prompts of a task."""
    path = folder / "run" / "race.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    keys = list(dict.fromkeys(line["key"] for line in lines if PromptKey(line["key"]).task == task))[:prompts]
    kept = [line for line in lines if line["key"] in keys]
    others = [line for line in lines if PromptKey(line["key"]).task != task]
    path.write_text("".join(json.dumps(line) + "\n" for line in sorted([*kept, *others], key=lines.index)))
    unit = Unit(f"{task}/000", "race")
    marks(
        folder,
        lambda all_: [
            each.model_copy(update={"lines": len(kept)}) if Unit(each.chunk, each.stage) == unit else each
            for each in all_
        ],
    )


@pytest.mark.parametrize("sampling", [{"race_budget": 1e-6}, {"race_width": 1e6}])
def test_a_race_that_ended_by_its_rule_passes_and_any_other_cut_does_not(
    sampling: dict[str, float], copy: Path, valid: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heats of one prompt, two prompts raced: the budget is spent with the first, the width is never known of one."""
    monkeypatch.setattr(stages, "RACE_BATCH", 1)
    change_document(copy, "run.json", lambda config: config.update(sampling))
    due = 1 if "race_budget" in sampling else 2
    for task in TASKS:
        keep_raced(copy, task, due)
    report(copy)
    assert found(copy, valid[1]) == set()
    for task, left in ((TASKS[0], 3 - due), (TASKS[1], 0)):
        spoilt = Path(shutil.copytree(valid[0], copy.parent / f"{task.replace('/', '-')}"))
        change_document(spoilt, "run.json", lambda config: config.update(sampling))
        for other in TASKS:
            keep_raced(spoilt, other, left if other == task else due)
        report(spoilt)
        assert "B001" in found(spoilt, valid[1]), (task, left)


def test_a_fixed_race_may_not_be_cut(copy: Path, valid: tuple[Path, Path]) -> None:
    keep_raced(copy, TASKS[0], 1)
    assert "B001" in found(copy, valid[1])


def test_a_race_of_recorded_blocks_passes(tmp_path: Path) -> None:
    """A whole decode is timed, and its steps in another one: they need not add up to it; nor may they be missing."""
    folder, tracks = small_submission(tmp_path, recorded=True)
    assert found(folder, tracks) == set()
    for change in ({"separate_steps": False}, {"decode_ns": 1}):
        spoilt = Path(shutil.copytree(folder, tmp_path / f"{next(iter(change))}"))
        change_line(spoilt, "race.jsonl", 1, lambda record, change=change: record.update(change))
        assert "B005" in found(spoilt, tracks)


def swept(folder: Path) -> None:
    """Give a submission a sweep of two γ at batch size 1, on paper."""
    path = folder / "run"
    gamma = json.loads((path / "run.json").read_text())["gamma"]
    change_document(folder, "run.json", lambda config: config.update(gammas=[1, gamma], batch_sizes=[1]))
    config = RunFolder(path).config
    lengths = {
        line["key"]: len(line["ids"]) for line in map(json.loads, (path / "reference.jsonl").read_text().splitlines())
    }
    done: list[ChunkDone] = []
    for number, chunk in enumerate(sweep_keys(config)):
        lines = [
            Throughput(
                chunk=chunk, half=half, batch_size=batch, gamma=swept_, round=turn, order=0, prompts=len(mine),
                tokens=sum(lengths[key] for key in mine), prefill_ns=10_000_000 + place,
                decode_ns=1_000_000_000 + 1000 * number + place,
            )
            for place, ((_, half, batch, swept_, turn), mine) in enumerate(sweep_places(config, chunk).items())
        ]  # fmt: skip
        unit = Unit(chunk, "sweep")
        assert unit in units(config)
        with (path / unit.file).open("a") as file:
            file.write(lines_text(lines))
        done.append(ChunkDone(chunk=chunk, stage="sweep", lines=len(lines), environment=0))
    marks(folder, lambda all_: [*all_, *done])
    report(folder)


def test_a_sweep_is_read_recomputed_and_held_against_the_texts(copy: Path, valid: tuple[Path, Path]) -> None:
    swept(copy)
    assert found(copy, valid[1]) == set()
    file = copy / "run/sweep.jsonl"
    whole = file.read_text().splitlines(keepends=True)

    def spoil(change: Callable[[dict[str, Any]], object]) -> set[str]:
        record = json.loads(whole[0])
        change(record)
        file.write_text("".join([json.dumps(record) + "\n", *whole[1:]]))
        return found(copy, valid[1])

    assert "B002" in spoil(lambda record: record.update(tokens=record["tokens"] + 1))
    assert "B005" in spoil(lambda record: record.update(decode_ns=10))
    assert "B005" in spoil(
        lambda record: record.update({n: json.loads(whole[1])[n] for n in ("prefill_ns", "decode_ns")})
    )
    assert "L003" in spoil(lambda record: record.update(gamma=7))
    assert "L003" in spoil(lambda record: record.update(round=1))
    assert "P001" in spoil(lambda record: record.update(decode_ns=2 * record["decode_ns"]))
    file.write_text("".join(whole[1:]))
    assert {"L001", "L005"} <= found(copy, valid[1])
    file.write_text("".join(whole))
    change_document(copy, "run.json", lambda config: config.update(batch_sizes=[1, 5]))
    assert "B001" in found(copy, valid[1])
