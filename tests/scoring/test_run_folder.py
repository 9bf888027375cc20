"""The run folder by itself: resume, refusal, lock, full disk, merge. Its lines are made up here, no model runs."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fairspec_bench.schemas.base import Record, RecordError
from fairspec_bench.schemas.config import Environment, ModelConfig, RunConfig, SamplingParams, SuiteConfig
from fairspec_bench.schemas.io import lines_text
from fairspec_bench.schemas.lines import Answer, Block, Dropped, Reference, Replay, StepTimes, Timing
from fairspec_bench.schemas.resumable import FolderError, difference
from fairspec_bench.schemas.stages import Unit, race_keys, units
from fairspec_bench.scoring import run_folder
from fairspec_bench.scoring.executors.base import UnitResult
from fairspec_bench.scoring.merge import merge
from fairspec_bench.scoring.run import execute
from fairspec_bench.scoring.run_folder import RunFolder, writing

LANGUAGES = ("en", "te")
HERE = Environment(
    platform="Linux", python="3.11", processor="p", cores=2, threads=1, device="cpu", device_name="x86_64",
    packages={}, commit=None, dirty=None, started="2026-01-01T00:00:00+00:00",
)  # fmt: skip
DROPPED = (Dropped(key="toy/te/9", reason="too long"),)


def make_config(**changes: object) -> RunConfig:
    keys = {language: tuple(f"toy/{language}/{number}" for number in range(6)) for language in LANGUAGES}
    chunks = {f"toy/{lang}/{n:03d}": mine[2 * n : 2 * n + 2] for lang, mine in keys.items() for n in range(3)}
    suite = SuiteConfig(
        name="toy",
        version="1",
        languages=LANGUAGES,
        limit=6,
        num_fewshot=0,
        max_new_tokens=3,
        data_sha256={},
        prompts_sha256={},
    )
    config = RunConfig(
        verifier=ModelConfig(name="v", revision="1"),
        drafter=ModelConfig(name="d", revision="2"),
        suites=(suite,),
        tokenizer_sha256="t",
        sampling=SamplingParams(),
        gamma=2,
        seed=0,
        batch_size=2,
        dtype="float32",
        device="cpu",
        race_prompts=3,
        race_rounds=2,
        chunks=chunks,
        clusters={key: f"toy/{key[-1]}" for mine in keys.values() for key in mine},
    )
    return config.model_copy(update=changes)


def lines_of(config: RunConfig, unit: Unit) -> Iterator[Record]:
    """Plausible lines that depend on nothing but the unit."""
    keys = race_keys(config)[unit.chunk] if unit.stage == "race" else config.chunks[unit.chunk]
    for key in keys:
        ids = (int(key[-1]) + 1, 2, 3)
        if unit.stage == "reference":
            yield Reference(key=key, prompt_sha=key, ids=ids, finish="length", chunk=unit.chunk)
        elif unit.stage == "replay":
            yield Replay(
                key=key, prompt_sha=key, contexts=2, alpha=1.0, overlap=None, kl=None, cross_entropy=None,
                verifier_entropy=None, draft_ids=(2, 3), beta=None, chunk=unit.chunk,
            )  # fmt: skip
        elif unit.stage == "race":
            yield Timing(
                key=key, prompt_sha=key, mode="speculative", round=0, order=0, context=4, tokens=3, prefill_ns=1,
                drafter_prefill_ns=1, decode_ns=1, step_times=StepTimes(),
                blocks=(Block(accepted=1, emitted=2, raw_accepted=1),), chunk=unit.chunk,
            )  # fmt: skip
        else:
            yield Answer(key=key, correct=True, language="en", looping=False, chars=1, bytes=1)


def fill(path: Path, config: RunConfig, environment: Environment = HERE, stop_after: int | None = None) -> None:
    """A whole run, or one that dies in an exception after so many lines."""
    count = 0

    def lines(unit: Unit) -> Iterator[Record]:
        nonlocal count
        for line in lines_of(config, unit):
            if count == stop_after:
                raise KeyboardInterrupt
            count += 1
            yield line

    with writing(path, config, environment, DROPPED) as writer:
        for unit in writer.left():
            writer.add(unit, lines(unit))


def contents(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(files)}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    fill(tmp_path / "whole", make_config())
    return tmp_path / "whole"


def lasting(path: Path) -> dict[str, bytes]:
    """What must be the same however often a run was stopped: all but which session did what."""
    sessions = ("environments.jsonl", "chunks.jsonl")
    return {name: body for name, body in contents(path).items() if name not in sessions}


def one_line(caught: pytest.ExceptionInfo[RecordError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------- what a run is


def test_units_follow_the_stages_with_races_last() -> None:
    made = units(make_config())
    assert [unit.stage for unit in made[:4]] == ["reference", "answer", "replay", "drafter_answer"]
    assert len(made) == 6 * 4 + 4
    assert {unit.chunk for unit in made[24:]} == {"toy/en/000", "toy/en/001", "toy/te/000", "toy/te/001"}
    assert {unit.stage for unit in units(make_config(drafter=None))} == {"reference", "answer"}
    lookup = ModelConfig(name="lookup", kind="lookup", proper=False, answers=False)
    assert {unit.stage for unit in units(make_config(drafter=lookup))} == {"reference", "answer", "replay", "race"}


def test_race_takes_the_first_prompts_of_every_task() -> None:
    raced = race_keys(make_config())
    assert raced["toy/en/000"] == ("toy/en/0", "toy/en/1")
    assert raced["toy/en/001"] == ("toy/en/2",)
    assert "toy/te/002" not in raced
    assert race_keys(make_config(race_prompts=None))["toy/te/002"] == ("toy/te/4", "toy/te/5")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_parts_partition_the_units(count: int) -> None:
    parts = [unit for first in range(1, count + 1) for unit in units(make_config(shard=(first, count)))]
    assert len(parts) == len(set(parts))
    assert set(parts) == set(units(make_config()))


def test_difference_names_the_field() -> None:
    config = make_config()
    assert difference(config, config) is None
    assert difference(config, make_config(gamma=4)) == "gamma: 2 there, 4 here"
    other = make_config(verifier=ModelConfig(name="v", revision="9"))
    assert difference(config, other) == "verifier.revision: the revision differs: 1 there, 9 here"


# --------------------------------------------------------------------------- going on


@pytest.mark.parametrize("stop_after", [0, 1, 3, 8, 11, 37, 50])
def test_an_interrupted_run_ends_with_the_same_bytes(whole: Path, tmp_path: Path, stop_after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "run", make_config(), stop_after=stop_after)
    fill(tmp_path / "run", make_config())
    assert lasting(tmp_path / "run") == lasting(whole)
    assert RunFolder(tmp_path / "run").complete


def test_cut_at_any_byte_it_ends_with_the_same_bytes(whole: Path) -> None:
    """A power cut leaves any beginning of the marks, and of the lines that are not yet marked."""
    wanted, last, marks = lasting(whole), whole / "race.jsonl", whole / "chunks.jsonl"
    full = marks.read_bytes()
    for cut in range(full.rstrip(b"\n").rfind(b"\n") + 1, len(full), 7):
        marks.write_bytes(marks.read_bytes()[:cut])
        last.write_bytes(last.read_bytes()[: -1 - cut % 97])
        fill(whole, make_config())
        assert lasting(whole) == wanted
        assert RunFolder(whole).complete


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = contents(whole)
    fill(whole, make_config(), HERE.model_copy(update={"started": "later"}))
    assert contents(whole) == before


@pytest.mark.parametrize("stage", ["reference", "replay", "race"])
def test_a_deleted_stage_is_redone_alone(whole: Path, stage: str) -> None:
    wanted, done = lasting(whole), []
    (whole / f"{stage}.jsonl").unlink()
    with writing(whole, make_config(), HERE, DROPPED) as writer:
        for unit in writer.left():
            done.append(unit)
            writer.add(unit, lines_of(make_config(), unit))
    assert lasting(whole) == wanted
    assert done == [unit for unit in units(make_config()) if unit.stage == stage]
    assert RunFolder(whole).complete


def test_the_remedy_of_a_damaged_line_works(whole: Path) -> None:
    wanted = lasting(whole)
    rewrite("answer.jsonl", swap)(whole)
    with pytest.raises(FolderError, match=r"delete \S*answer\.jsonl and run again: only that stage is redone"):
        fill(whole, make_config())
    (whole / "answer.jsonl").unlink()
    fill(whole, make_config())
    assert lasting(whole) == wanted


def test_every_file_is_read_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From resuming to the report: the lines that are there already, and none that were just written."""
    (whole / "race.jsonl").unlink()
    opened: Counter[str] = Counter()
    real = run_folder.read_lines

    def counted(path: Path, kind: type[Record]) -> Iterator[Record]:
        opened[path.name] += 1
        return real(path, kind)

    monkeypatch.setattr(run_folder, "read_lines", counted)

    class Made:
        config, dropped, notes, environments = make_config(), DROPPED, (), (HERE,)

        def make(self, left: list[Unit], known: object, on_progress: object) -> Iterator[UnitResult]:
            return (UnitResult(unit, lines_of(self.config, unit), HERE) for unit in left)

    execute(Made(), whole)
    lines = {name: count for name, count in opened.items() if name in ("chunks.jsonl", *LINE_FILES)}
    assert lines == dict.fromkeys((*LINE_FILES - {"race.jsonl"}, "chunks.jsonl"), 1)


LINE_FILES = {f"{name}.jsonl" for name in ("reference", "answer", "replay", "drafter_answer", "race")}


def test_a_gzipped_run_is_read_and_not_continued(whole: Path) -> None:
    lines = RunFolder(whole).lines("replay", Replay)
    for path in [*whole.glob("*.json*")]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    folder = RunFolder(whole)
    folder.check()
    assert folder.lines("replay", Replay) == lines
    with pytest.raises(FolderError, match=r"is gzipped, so this run is only read"):
        fill(whole, make_config())
    (whole / "replay.jsonl.gz").write_bytes((whole / "replay.jsonl.gz").read_bytes()[:-30])
    with pytest.raises(RecordError, match=r"replay\.jsonl\.gz: cannot be read") as caught:
        RunFolder(whole).check()
    one_line(caught)


def test_a_run_of_the_first_version_is_refused_with_what_to_do(whole: Path) -> None:
    rewrite("run.json", lambda b: b.replace(b'"schema_version": 2', b'"schema_version": 1'))(whole)
    with pytest.raises(RecordError, match=r"run\.json schema_version: .*made by 0\.1; score again with this version"):
        RunFolder(whole)


def test_texts_go_on_only_on_the_same_hardware_and_timings_only_on_the_same_machine(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, make_config(), stop_after=20)
    gpu = HERE.model_copy(update={"device_name": "H100"})
    with pytest.raises(FolderError, match=r"reference lines .* \(device_name: x86_64 there, H100 here\)") as caught:
        fill(tmp_path, make_config(), gpu)
    one_line(caught)
    other = HERE.model_copy(update={"processor": "q"})
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, make_config(), other, stop_after=30)
    assert [mark for unit, mark in RunFolder(tmp_path).done.items() if unit.stage == "race"]
    with pytest.raises(FolderError, match=r"race lines .* \(processor: q there, p here\)"):
        fill(tmp_path, make_config())
    fill(tmp_path, make_config(), other)
    assert RunFolder(tmp_path).complete


# --------------------------------------------------------------------------- what is refused, with nothing changed


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / name
        file.write_bytes(change(file.read_bytes()))

    return damage


def swap(body: bytes) -> bytes:
    first, second, *rest = body.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def foreign(body: bytes) -> bytes:
    return (
        body + lines_text([Reference(key="other/en/0", prompt_sha="", ids=(1,), finish="length", chunk="s")]).encode()
    )


REFERENCE = "reference.jsonl"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "lost line": (rewrite(REFERENCE, lambda b: b[b.index(b"\n") + 1 :]), r"reference\.jsonl: 11 whole lines where 12"),
    "torn finished line": (rewrite(REFERENCE, lambda b: b[:-1]), r"reference\.jsonl: 11 whole lines where 12"),
    "half a line": (rewrite(REFERENCE, lambda b: b[:40] + b[60:]), r"reference\.jsonl:1 "),
    "not JSON": (rewrite(REFERENCE, lambda b: b"\x00\xff" + b), r"reference\.jsonl:1 "),
    "swapped lines": (rewrite(REFERENCE, swap), r"reference\.jsonl:1 toy/en/1: not toy/en/000's line"),
    "foreign line": (rewrite(REFERENCE, foreign), r"reference\.jsonl:13 other/en/0: no line of this run"),
    "unknown field": (rewrite(REFERENCE, lambda b: b.replace(b'"key"', b'"cle"', 1)), r"reference\.jsonl:1 "),
    "wrong type": (rewrite(REFERENCE, lambda b: b.replace(b"[1,2,3]", b'["1",2,3]')), r"reference\.jsonl:1 ids\.0"),
    "another text": (
        rewrite(REFERENCE, lambda b: b.replace(b"[1,2,3]", b"[1,2]", 1)),
        r"toy/en/0 replay: contexts is 2, not 1 as its reference",
    ),
    "another prompt": (
        rewrite(REFERENCE, lambda b: b.replace(b'"prompt_sha":"', b'"prompt_sha":"x')),
        r"toy/en/0 replay: prompt_sha is toy/en/0, not xtoy/en/0",
    ),
    "a flipped digit": (
        rewrite("race.jsonl", lambda b: b.replace(b'"context":', b'"context":1', 1)),
        r"race\.jsonl: toy/en/000 is not as it was written",
    ),
    "emptied file": (rewrite(REFERENCE, lambda b: b""), r"reference\.jsonl: 0 whole lines"),
    "lost timing": (
        rewrite("race.jsonl", lambda b: b.replace(b'"key":"toy/en/1"', b'"key":"toy/en/0"')),
        r"timings of toy/en/000 are missing",
    ),
    "damaged marks": (rewrite("chunks.jsonl", lambda b: b"{}\n" + b), r"chunks\.jsonl:1 "),
    "foreign mark": (rewrite("chunks.jsonl", lambda b: b.replace(b"/en/", b"/fr/", 1)), r"chunks\.jsonl:1 .*no step"),
    "double mark": (rewrite("chunks.jsonl", lambda b: b[: b.index(b"\n") + 1] + b), r"chunks\.jsonl:2 .*twice"),
    "lost environments": (rewrite("environments.jsonl", lambda b: b""), r"environments\.jsonl has no line 0"),
    "damaged config": (rewrite("run.json", lambda b: b[:100]), r"run\.json "),
    "empty config": (rewrite("run.json", lambda b: b""), r"run\.json "),
    "infinite config": (rewrite("run.json", lambda b: b.replace(b'"gamma": 2', b'"gamma": 1e999')), r"run\.json gamma"),
    "no config": (lambda path: (path / "run.json").unlink(), r"not empty, and not a run folder"),
    "foreign drops": (rewrite("dropped.jsonl", lambda b: b.replace(b"long", b"short")), r"not what this run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_and_nothing_is_touched(whole: Path, damage: str) -> None:
    do, message = DAMAGES[damage]
    do(whole)
    before = contents(whole)
    with pytest.raises(RecordError, match=message) as caught:
        fill(whole, make_config())
    one_line(caught)
    assert contents(whole) == before


def test_another_configuration_is_refused_by_the_name_of_the_field(whole: Path) -> None:
    before = contents(whole)
    changes = {
        "gamma": 3, "seed": 1, "dtype": "bfloat16", "device": "cuda", "batch_size": 4, "tokenizer_sha256": "u",
        "sampling": SamplingParams(temperature=1.0), "race_rounds": 5, "shard": (1, 2),
    }  # fmt: skip
    for field, value in changes.items():
        with pytest.raises(FolderError, match=rf"holds another run \({field}") as caught:
            fill(whole, make_config(**{field: value}))
        one_line(caught)
    other_weights = ModelConfig(name="v", revision="weights-sha256:other")
    with pytest.raises(FolderError, match=r"holds another run \(verifier\.revision"):
        fill(whole, make_config(verifier=other_weights))
    assert contents(whole) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FolderError, match="not empty, and not a run folder"):
        fill(tmp_path, make_config())
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("place", ["file/run", "/proc/nowhere", "file"])
def test_an_unwritable_place_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderError, match="cannot be written") as caught:
        fill(tmp_path / place, make_config())
    one_line(caught)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(whole: Path, tmp_path: Path) -> None:
    """Full at many sizes of a file, then with a little more room, then with enough: what was finished before stays."""
    largest = max(map(len, contents(whole).values()))
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    reached = set()
    for size in range(100, largest - 100, 131):
        path, finished = tmp_path / f"run{size}", 0
        for limit in (size, size + 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, room[1]))
            try:
                with pytest.raises(RecordError, match=r"cannot be written \(File too large\)") as caught:
                    fill(path, make_config())
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, room)
            one_line(caught)
            done = len(RunFolder(path).done) if (path / "run.json").exists() else 0
            assert done >= finished
            finished = done
            reached.add(done)
        fill(path, make_config())
        assert lasting(path) == lasting(whole)
    assert len(reached) > 3


# --------------------------------------------------------------------------- two writers


def test_a_second_writer_is_refused_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    begun, config = fork.Event(), make_config()

    def hold() -> None:
        with writing(tmp_path / "run", config, HERE, DROPPED):
            begun.set()
            signal.pause()

    writer = fork.Process(target=hold)
    writer.start()
    assert begun.wait(20)
    with pytest.raises(FolderError, match="another process is writing here") as caught:
        fill(tmp_path / "run", config)
    one_line(caught)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert (tmp_path / "run/.lock").exists()
    fill(tmp_path / "run", config)
    assert RunFolder(tmp_path / "run").complete


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with (
        writing(tmp_path, make_config(), HERE),
        pytest.raises(FolderError, match="another process"),
        writing(tmp_path, make_config(), HERE),
    ):
        pass


# --------------------------------------------------------------------------- merge


def parts(root: Path, count: int, **changes: object) -> list[Path]:
    made = []
    for first in range(1, count + 1):
        config = make_config(shard=(first, count), **changes)
        fill(root / f"part{first}", config, HERE.model_copy(update={"started": str(first)}))
        made.append(root / f"part{first}")
    return made


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_merged_parts_are_the_whole_run(whole: Path, tmp_path: Path, count: int) -> None:
    merged = merge(tmp_path / "merged", list(reversed(parts(tmp_path, count))))
    assert merged.complete
    assert lasting(merged.path) == lasting(whole)
    marks = [mark.model_copy(update={"environment": 0}) for mark in merged.done.values()]
    assert marks == list(RunFolder(whole).done.values())
    started = {merged.environments[mark.environment].started for mark in merged.done.values()}
    assert started == {str(first) for first in range(1, count + 1) if units(make_config(shard=(first, count)))}


def test_merge_refuses_gaps_overlaps_and_others_by_name(whole: Path, tmp_path: Path) -> None:
    one, two, three = parts(tmp_path / "a", 3)
    other = parts(tmp_path / "b", 3, seed=7)[2]
    halves = parts(tmp_path / "c", 2)
    out = tmp_path / "merged"
    refusals = {
        r"shard 3/3 is missing": [one, two],
        r"shard 2/3 again, after .*part2": [one, two, two, three],
        r"another run than .*part1 \(seed: 0 there, 7 here\)": [one, two, other],
        r"one of 2 shards, .*part1 one of 3": [one, two, three, halves[0]],
        r"a whole run, not a shard": [one, two, three, whole],
        r"run\.json: no such file": [one, two, tmp_path / "nowhere"],
        r"no shards given": [],
    }
    for message, given in refusals.items():
        with pytest.raises(RecordError, match=message) as caught:
            merge(out, given)
        one_line(caught)
        assert not out.exists()


def test_merge_refuses_an_unfinished_or_damaged_part_and_mixed_timings(tmp_path: Path) -> None:
    one, two = parts(tmp_path, 2)
    marks, body = two / "chunks.jsonl", (two / "chunks.jsonl").read_bytes()
    marks.write_bytes(body[: body.rstrip(b"\n").rfind(b"\n") + 1])
    with pytest.raises(FolderError, match=r"part2: unfinished \(\d+ of \d+ steps done\)"):
        merge(tmp_path / "m", [one, two])
    marks.write_bytes(body)
    environments = two / "environments.jsonl"
    environments.write_bytes(environments.read_bytes().replace(b'"threads":1', b'"threads":2'))
    with pytest.raises(FolderError, match=r"timed on another machine than .*part1 \(threads: 1 there, 2 here\)"):
        merge(tmp_path / "m", [one, two])
    environments.write_bytes(environments.read_bytes().replace(b'"threads":2', b'"threads":1'))
    reference = two / "reference.jsonl"
    reference.write_bytes(reference.read_bytes()[:-5])
    with pytest.raises(FolderError, match="whole lines where"):
        merge(tmp_path / "m", [one, two])


def test_an_interrupted_merge_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fairspec_bench.scoring.run_folder import RunWriter

    given = parts(tmp_path, 2)
    wanted = contents(merge(tmp_path / "whole", given).path)
    add, left = RunWriter.add, 5

    def dying(self: RunWriter, *arguments: object) -> list[Record]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return add(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path / "merged", given)
    assert contents(merge(tmp_path / "merged", given).path) == wanted


# --------------------------------------------------------------------------- planted bugs


def test_a_resume_that_trusts_the_interrupted_unit_would_be_seen(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairspec_bench.scoring.run_folder._cut", lambda folder: None)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "run", make_config(), stop_after=9)
    fill(tmp_path / "run", make_config())
    assert contents(tmp_path / "run")[REFERENCE] != contents(whole)[REFERENCE]


def test_a_merge_in_the_order_of_parts_would_be_seen(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = parts(tmp_path, 2)
    monkeypatch.setattr(
        "fairspec_bench.scoring.run_folder.RunWriter.left",
        lambda self: [u for part in (1, 2) for u in units(self.folder.config.model_copy(update={"shard": (part, 2)}))],
    )
    assert contents(merge(tmp_path / "merged", given).path)[REFERENCE] != contents(whole)[REFERENCE]
