"""Submissions whose race ended early, or that swept: accepted exactly as the rule has it, refused if cut otherwise."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import REPLICATES, change_document, change_line, small_submission

from fairspec_bench.metrics.report import build_report
from fairspec_bench.schemas import stages
from fairspec_bench.schemas.config import ChunkDone
from fairspec_bench.schemas.io import lines_text, read_lines, write_record
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import StepTimes, Throughput, Timing
from fairspec_bench.schemas.stages import Unit, sweep_keys, sweep_places, units
from fairspec_bench.scoring.report import lines_of
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.submissions.check import check
from fairspec_bench.submissions.findings import Findings
from fairspec_bench.submissions.pack import pack
from fairspec_bench.submissions.rules import CLOCK_SLACK, Place, check_speed, read_ns
from fairspec_bench.suites.tracks import Track, TrackRace, load_track

TASKS = ("embedded_math/en", "embedded_math/ja", "embedded_story/en", "embedded_story/ja")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_submission(tmp_path_factory.mktemp("race"))


@pytest.fixture
def copy(valid: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid[0], tmp_path / "copy"))


@pytest.fixture(scope="module")
def any_race(valid: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracks without a rule of how much is raced, as those that 0.1 made."""
    tracks = Path(shutil.copytree(valid[1], tmp_path_factory.mktemp("any") / "tracks"))
    for path in tracks.glob("*.toml"):
        path.write_text(re.sub(r"\[race\]\n(?:(?!\[).*\n)*", "", path.read_text()))
        assert load_track(path.stem, tracks).race is None
    return tracks


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
    sampling: dict[str, float], copy: Path, valid: tuple[Path, Path], any_race: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heats of one prompt, two prompts raced: the budget is spent with the first, the width is never known of one."""
    monkeypatch.setattr(stages, "RACE_BATCH", 1)
    change_document(copy, "run.json", lambda config: config.update(sampling))
    due = 1 if "race_budget" in sampling else 2
    for task in TASKS:
        keep_raced(copy, task, due)
    report(copy)
    assert found(copy, any_race) == set()
    for task, left in ((TASKS[0], 3 - due), (TASKS[1], 0)):
        spoilt = Path(shutil.copytree(valid[0], copy.parent / f"{task.replace('/', '-')}"))
        change_document(spoilt, "run.json", lambda config: config.update(sampling))
        for other in TASKS:
            keep_raced(spoilt, other, left if other == task else due)
        report(spoilt)
        assert "B001" in found(spoilt, any_race), (task, left)


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


# --------------------------------------------------------------------------- what no honest machine gives

TRACK = load_track("embedded")
BLOCKS, CONTEXTS = 10, 30


def timing(mode: str, step_ns: float, drafting_ns: float = 0.0) -> Timing:
    """One decode of 31 tokens: in 10 blocks with a drafter, so that the block efficiency is 3."""
    calls = BLOCKS if mode == "speculative" else CONTEXTS
    steps = StepTimes(verify_ns=int(step_ns * calls), verify=calls, draft_next_ns=int(drafting_ns * calls))
    blocks = [{"accepted": 2, "emitted": 3, "raw_accepted": 2}] * BLOCKS if mode == "speculative" else []
    return Timing.model_validate(
        {
            "key": "s/l/0", "prompt_sha": "0" * 64, "mode": mode, "round": 0, "order": 0, "context": 9, "tokens": 31,
            "prefill_ns": 10**6, "drafter_prefill_ns": 0, "decode_ns": steps.total_ns,
            "step_times": steps.model_dump(), "blocks": tuple(blocks), "chunk": "s/l/000",
        },
        strict=False,
    )  # fmt: skip


def refused(track: Track, parameters: int | None, *timings: Timing) -> list[str]:
    findings = Findings()
    check_speed(timings, track, parameters, "s/l", Place(findings, "race.jsonl", 1))
    assert {each.code for each in findings.kept} <= {"B007"}
    return [each.field for each in findings.kept]


@given(ratio=st.floats(0.2, 5), drafting=st.floats(0, 3), noise=st.floats(0.7, 1.5), step=st.floats(1e5, 1e9))
def test_speed_up_and_verify_ratio_are_held_against_the_faster_baseline(
    ratio: float, drafting: float, noise: float, step: float
) -> None:
    """From their definitions, by hand: refused is what lies beyond the clock's slack, and nothing else."""
    raced = (
        timing("autoregressive", step), timing("control", noise * step),
        timing("speculative", ratio * step, drafting * step),
    )  # fmt: skip
    alone = min(1.0, noise) * CONTEXTS
    speedup = alone / (BLOCKS * (ratio + drafting))
    margins = speedup * (1 - CLOCK_SLACK) / 3, ratio / (min(1.0, noise) * (1 - CLOCK_SLACK))
    if all(abs(margin - 1) > 1e-3 for margin in margins):
        wanted = {"decode_ns"} if margins[0] > 1 else set()
        wanted |= {"step_times.verify_ns"} if margins[1] < 1 else set()
        assert set(refused(TRACK, None, *raced)) == wanted


@given(factor=st.floats(1.5, 1e4), slower=st.booleans())
def test_a_forged_factor_on_an_honest_race_is_refused_once_it_beats_the_blocks(factor: float, slower: bool) -> None:
    """The drafter's times divided, or the baseline's multiplied: the same lie."""
    up, down = (factor, 1.0) if slower else (1.0, 1 / factor)
    raced = (
        timing("autoregressive", 1e6 * up),
        timing("control", 1e6 * up),
        timing("speculative", 1.2e6 * down, 4e5 * down),
    )
    honest = 3 / 1.6
    wanted = honest * factor > 3 / (1 - CLOCK_SLACK)
    if abs(honest * factor * (1 - CLOCK_SLACK) / 3 - 1) > 1e-3:
        assert ("decode_ns" in refused(TRACK, None, *raced)) == wanted


def test_a_track_whose_own_verifier_reads_many_tokens_faster_allows_as_much() -> None:
    """Some kernels for one row are slower than those for five: the track's own run says how much."""
    raced = timing("autoregressive", 1e6), timing("control", 1e6), timing("speculative", 0.8e6)
    assert refused(TRACK, None, *raced) == ["decode_ns", "step_times.verify_ns"]
    race = TrackRace(prompts=1, rounds=2, verify_ratio=0.8, step_ns=1e6)
    assert refused(TRACK.model_copy(update={"race": race}), None, *raced) == []


def test_no_step_is_faster_than_the_memory_or_ten_of_the_tracks_machines() -> None:
    def raced(step: float) -> list[Timing]:
        return [timing(mode, step, step) for mode in ("autoregressive", "control", "speculative")]

    assert read_ns(8 * 10**9) == pytest.approx(8e9 * 0.5 / 32 / 20_000)
    assert refused(TRACK, 8 * 10**9, *raced(7_000.0)) == []
    assert refused(TRACK, 8 * 10**9, *raced(6_000.0)) == ["step_times.verify_ns"]
    race = TrackRace(prompts=1, rounds=2, verify_ratio=1.2, step_ns=1e6)
    assert refused(TRACK.model_copy(update={"race": race}), None, *raced(1.1e5)) == []
    assert refused(TRACK.model_copy(update={"race": race}), None, *raced(0.9e5)) == ["step_times.verify_ns"]
