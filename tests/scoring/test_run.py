"""A run from prompts to report on a tiny pair: its stages, its parts, its cache, what it drops and what it plans."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_pair import lasting, save_pair
from transformers import AutoModelForCausalLM, PreTrainedModel

from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Answer, Reference, Replay, Timing
from fairspec_bench.schemas.options import RunOptions, model_spec, sampling_params
from fairspec_bench.schemas.prompts import Prompt
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring import reference
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.merge import merge
from fairspec_bench.scoring.plan import plan_run
from fairspec_bench.scoring.prepare import RunContext, chunks, drop, prepare
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run import Progress, run
from fairspec_bench.scoring.run_folder import RunFolder

CAP = 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> RunOptions:
    return RunOptions(
        verifier=model_spec("v", str(pair[0])),
        drafter=drafter_spec("d", str(pair[1])),
        suites=("embedded_math", "embedded_story"),
        languages=("en", "te"),
        limit=5,
        max_new_tokens=CAP,
        gamma=2,
        batch_size=2,
        race_prompts=1,
        race_rounds=2,
        race_width=0.0,
    )


@pytest.fixture(scope="module")
def small_shards() -> None:
    """Shards of two prompts, so that five make three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "CHUNK_LEAST", 2)
        patch.setattr(preparing, "CHUNK_BATCHES", 1)
        yield


@pytest.fixture(scope="module")
def prepared(ask: RunOptions, small_shards: None) -> RunContext:
    return prepare(ask)


@pytest.fixture(scope="module")
def whole(prepared: RunContext, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(prepared, out)
    return RunFolder(out)


def test_texts_are_the_verifiers_own(whole: RunFolder, prepared: RunContext, pair: tuple[Path, Path]) -> None:
    stock = AutoModelForCausalLM.from_pretrained(pair[0], dtype=torch.float32)
    references = whole.lines("reference", Reference)
    assert [reference.key for reference in references] == list(prepared.questions.encoded)
    for line in references[::4]:
        prompt = torch.tensor([prepared.questions.encoded[line.key].ids])
        out = stock.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=CAP)
        wanted = tuple(out[0, prompt.shape[1] :].tolist())
        assert line.ids == wanted[: len(line.ids)]
        assert line.finish == "stop" or line.ids == wanted


def test_every_stage_has_its_lines(whole: RunFolder) -> None:
    assert whole.complete
    count = {name: body.count(b"\n") for name, body in lasting(whole.path).items() if name.endswith("jsonl")}
    assert count == {
        "dropped.jsonl": 0,
        **{f"{stage}.jsonl": 2 * 2 * 5 for stage in ("reference", "answer", "replay", "drafter_answer")},
    }
    timings = whole.lines("race", Timing)
    assert len(timings) == 4 * 1 * 2 * 3
    assert {timing.key.rpartition("/")[2] for timing in timings} == {"0"}
    assert {answer.text for answer in whole.lines("answer", Answer)} == {None}


def test_reference_texts_are_judged_by_each_model_alone(
    whole: RunFolder, prepared: RunContext, pair: tuple[Path, Path]
) -> None:
    """Against one plain pass over prompt and target encoded as one; an answer's target is no reference text."""
    for stage, folder in (("answer", pair[0]), ("drafter_answer", pair[1])):
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        answers = whole.lines(stage, Answer)
        nats, size = 0.0, 0
        for answer in answers:
            prompt = prepared.questions.prompts[answer.key]
            if prompt.suite == "embedded_math":
                assert (answer.target_nats, answer.target_bytes) == (None, None)
                continue
            told, slow = slow_nats(stock, prepared, prompt)
            assert answer.target_nats == pytest.approx(slow, rel=1e-5)
            assert answer.target_bytes == len(told.encode())
            if prompt.language == "te":
                nats, size = nats + slow, size + len(told.encode())
        report = make_report(whole)
        model = "verifier" if stage == "answer" else "drafter"
        telugu = next(task for suite in report.suites for task in suite.tasks if task.task == "embedded_story/te")
        assert telugu.measures[f"{model}_bits_per_byte"].value == pytest.approx(nats / math.log(2) / size, rel=1e-5)
        assert report.suites[0].tasks[0].measures[f"{model}_bits_per_byte"].value is None


def slow_nats(stock: PreTrainedModel, prepared: RunContext, prompt: Prompt) -> tuple[str, float]:
    """The target of a prompt and −ln p of it, one token after the other, by a pass without a cache."""
    before, target = list(prepared.questions.encoded[prompt.key].ids), prompt.target or ""
    whole = list(prepared.codec.encode(prompt.model_copy(update={"text": f"{prompt.text}{target}"})).ids)
    assert whole[: len(before)] == before
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor([whole]), use_cache=False).logits[0].double()
    return target, -sum(float(logits[at - 1].log_softmax(-1)[whole[at]]) for at in range(len(before), len(whole)))


def test_the_report_is_derived_to_the_byte(whole: RunFolder) -> None:
    path = whole.path / "report.json"
    before = path.read_bytes()
    path.unlink()
    report = make_report(whole)
    assert path.read_bytes() == before
    figures = {task.task: task.measures["acceptance"].value for suite in report.suites for task in suite.tasks}
    replays = whole.lines("replay", Replay)
    for task, value in figures.items():
        mine = [replay for replay in replays if replay.key.startswith(f"{task}/")]
        assert value == pytest.approx(sum(r.alpha for r in mine) / sum(r.contexts for r in mine), rel=1e-6)


def test_a_finished_run_is_not_done_again(
    whole: RunFolder, prepared: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (whole.path / name).stat().st_mtime_ns for name in lasting(whole.path)}
    monkeypatch.setattr("fairspec_bench.scoring.stages.continuations", lambda *a, **k: pytest.fail("decoded again"))
    run(prepared, whole.path)
    assert {name: (whole.path / name).stat().st_mtime_ns for name in lasting(whole.path)} == before


def test_merged_parts_are_the_whole_run(ask: RunOptions, whole: RunFolder, small_shards: None, tmp_path: Path) -> None:
    parts = []
    for first in (1, 2):
        part = prepare(replace(ask, shard=(first, 2)))
        report = run(part, tmp_path / f"part{first}")
        flags = [flag for suite in report.suites for task in suite.tasks for flag in task.flags]
        assert any(flag.startswith("incomplete") for flag in flags)
        assert not (tmp_path / f"part{first}/report.json").exists()
        parts.append(tmp_path / f"part{first}")
    merged = merge(tmp_path / "merged", parts)
    assert lasting(merged.path) == lasting(whole.path)
    make_report(merged)
    assert (merged.path / "report.json").exists()


def test_references_come_from_the_cache(
    ask: RunOptions, prepared: RunContext, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(prepared, config=prepared.config.model_copy(update={"race_rounds": 0}))
    run(quick, tmp_path / "first", cache=tmp_path / "cache")
    asked: list[object] = []
    monkeypatch.setattr(reference, "decode", lambda model, drafter, requests, **_: iter(asked.extend(requests) or ()))
    run(quick, tmp_path / "second", cache=tmp_path / "cache")
    assert asked == []
    wanted = lasting(whole.path)
    wanted.pop("run.json")
    for name in ("first", "second"):
        mine = lasting(tmp_path / name)
        mine.pop("run.json")
        assert mine == wanted


@pytest.mark.parametrize("drafter", ["lookup", "lookup:2", "oracle:0.5", None])
def test_any_drafter_and_none(ask: RunOptions, tmp_path: Path, drafter: str | None) -> None:
    wanted = replace(
        ask,
        drafter=drafter_spec(drafter) if drafter else None,
        suites=("embedded_math",),
        languages=("en",),
        limit=3,
        race_rounds=1,
    )
    report = run(prepare(wanted), tmp_path)
    folder = RunFolder(tmp_path)
    assert folder.complete
    stages = {unit.stage for unit in folder.units}
    assert stages == ({"reference", "answer", "replay", "race"} if drafter else {"reference", "answer"})
    acceptance = report.suites[0].tasks[0].measures["acceptance"].value
    assert (acceptance is None) == (drafter is None)
    if drafter == "oracle:0.5":
        assert report.config.drafter is not None
        assert report.config.drafter.options == {"acceptance": 0.5}


def test_a_sampled_run_depends_on_its_seed_alone(ask: RunOptions, tmp_path: Path) -> None:
    one = replace(
        ask,
        sampling=sampling_params(1.0, 0, 0.9),
        suites=("embedded_math",),
        languages=("en",),
        limit=3,
        race_rounds=0,
    )
    references = {}
    for name, changed in (("a", one), ("b", replace(one, batch_size=1)), ("c", replace(one, seed=1))):
        run(prepare(changed), tmp_path / name)
        references[name] = [reference.ids for reference in RunFolder(tmp_path / name).lines("reference", Reference)]
    assert references["a"] == references["b"]
    assert references["a"] != references["c"]


def test_progress_grows_to_its_total(prepared: RunContext, tmp_path: Path) -> None:
    seen: list[Progress] = []
    quick = replace(prepared, config=prepared.config.model_copy(update={"race_rounds": 0}))
    run(quick, tmp_path / "run", watch=seen.append)
    shares = [progress.done / progress.total for progress in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] > 0.9


# --------------------------------------------------------------------------- what is left out


def test_prompts_that_do_not_fit_are_dropped_with_a_reason(prepared: RunContext) -> None:
    lengths = sorted(len(prompt.ids) for prompt in prepared.questions.encoded.values())
    limit = lengths[len(lengths) // 2] + CAP
    model = replace(prepared.verifier, max_positions=limit, name="short")
    dropped = drop(prepared.questions, [prepared.verifier, model])
    wanted = [key for key, prompt in prepared.questions.encoded.items() if len(prompt.ids) + CAP > limit]
    assert [line.key for line in dropped] == wanted
    assert 0 < len(dropped) < len(lengths)
    assert all(f"exceed the {limit} positions of short" in line.reason for line in dropped)
    with pytest.raises(FairspecError, match="no prompt fits"):
        drop(prepared.questions, [replace(model, max_positions=10)])


def test_dropped_prompts_are_on_record_and_not_run(ask: RunOptions, pair: tuple[Path, Path], tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(pair[0], short)
    config = json.loads((short / "config.json").read_text())
    config["max_position_embeddings"] = 150
    (short / "config.json").write_text(json.dumps(config))
    one = replace(ask, verifier=model_spec("v", str(short)), suites=("embedded_math",), race_rounds=0)
    report = run(prepare(one), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    dropped, referenced = (
        {line.key for line in folder.dropped()},
        {reference.key for reference in folder.lines("reference", Reference)},
    )
    assert dropped
    assert referenced
    assert not dropped & referenced
    assert len(dropped | referenced) == 10
    shares = [task.measures["dropped"].value for task in report.suites[0].tasks]
    assert sum(5 * (share or 0) for share in shares) == pytest.approx(len(dropped))


def test_shards_keep_order_and_never_mix_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "CHUNK_BATCHES", 4)
    keys = [f"s/{language}/{number}" for language in ("en", "te") for number in range(50)]
    cut = chunks(keys, 8)
    assert [key for mine in cut.values() for key in mine] == keys
    assert {chunk: len(mine) for chunk, mine in cut.items()} == {
        "s/en/000": 32, "s/en/001": 18, "s/te/000": 32, "s/te/001": 18
    }  # fmt: skip


def test_other_weights_under_the_same_name_are_another_run(
    ask: RunOptions, whole: RunFolder, small_shards: None, tmp_path: Path
) -> None:
    other = save_pair(tmp_path, seed=1)
    with pytest.raises(
        FairspecError, match=r"holds another run \(verifier\.revision: the weights or their dtype differ"
    ):
        run(prepare(replace(ask, verifier=model_spec("v", str(other[0])))), whole.path)


@pytest.mark.parametrize("role", ["verifier", "drafter"])
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}),
        ("config.json", {"rms_norm_eps": 0.5}),
        ("generation_config.json", {"eos_token_id": 7}),
    ],
)
def test_a_changed_configuration_is_another_run_and_is_named(
    role: str,
    file: str,
    change: dict[str, object],
    ask: RunOptions,
    whole: RunFolder,
    small_shards: None,
    tmp_path: Path,
) -> None:
    """The lines of two networks were mixed without a word."""
    folder = Path(shutil.copytree(getattr(ask, role).source, tmp_path / role))
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    other = replace(getattr(ask, role), source=str(folder))
    with pytest.raises(FairspecError, match=rf"holds another run \({role}\.revision: {file} differs"):
        run(prepare(replace(ask, **{role: other})), whole.path)


# --------------------------------------------------------------------------- beforehand


def test_plan_counts_what_the_run_has(
    ask: RunOptions, prepared: RunContext, whole: RunFolder, small_shards: None
) -> None:
    plan = plan_run(ask)
    for task in plan.tasks:
        mine = [prompt for prompt in prepared.questions.encoded.values() if prompt.group == task.task]
        assert task.prompts == len(mine)
        assert task.prompt_tokens == sum(len(prompt.ids) for prompt in mine)
        assert task.most_output_tokens == len(mine) * CAP
    assert prepared.drafter is not None
    assert prepared.drafter.model is not None
    weights = 4 * (prepared.verifier.parameters + prepared.drafter.model.parameters)
    assert plan.memory_bytes["weights"] == weights
    assert plan.memory_bytes["caches"] > 0
    written = sum(path.stat().st_size for path in whole.path.rglob("*.jsonl"))
    assert 0.5 < plan.disk_bytes / written < 4
    assert plan.hours is not None
    assert set(plan.hours) == {"reference", "answer", "replay", "drafter_answer", "race"}
    assert 0 < sum(plan.hours.values()) < 0.1


def test_plan_without_weights_has_no_hours(ask: RunOptions, pair: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in pair:
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*.safetensors"))
    bare = replace(
        ask,
        verifier=model_spec("v", str(tmp_path / "verifier")),
        drafter=drafter_spec("d", str(tmp_path / "drafter")),
    )
    with_weights, without = plan_run(ask), plan_run(bare)
    assert without.hours is None
    assert without.tasks == with_weights.tasks
    assert without.memory_bytes == with_weights.memory_bytes


# --------------------------------------------------------------------------- beside the lines


def test_environment_tells_machine_versions_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    here = describe("cpu")
    assert here.threads == torch.get_num_threads()
    assert here.packages["torch"] == torch.__version__
    answers: dict[tuple[str, ...], str | None] = {("rev-parse", "HEAD"): "abc"}
    git: Callable[..., str | None] = lambda root, *words: answers.get(words, "")  # noqa: E731
    monkeypatch.setattr("fairspec_bench.scoring.environment._git", git)
    monkeypatch.setattr("fairspec_bench.scoring.environment._checkout", lambda: Path("."))
    assert (describe("cpu").commit, describe("cpu").dirty) == ("abc", False)
    monkeypatch.setattr("fairspec_bench.scoring.environment._checkout", lambda: None)
    assert (describe("cpu").commit, describe("cpu").dirty) == (None, None)


def test_a_race_whose_time_is_spent_leaves_later_shards_empty_after_a_resume_too(
    ask: RunOptions, small_shards: None, tmp_path: Path
) -> None:
    """What an earlier session timed counts: a shard begun anew must not race again."""
    spent = prepare(replace(ask, suites=("embedded_math",), race_prompts=4, race_budget=1e-9))
    run(spent, tmp_path)
    marks = tmp_path / "chunks.jsonl"
    timed = {chunk: len(lines) for chunk, lines in raced_lines(tmp_path).items()}
    assert timed == {f"embedded_math/{code}/00{n}": 12 * (n == 0) for code in ("en", "te") for n in (0, 1)}
    kept = [line for line in marks.read_text().splitlines(keepends=True) if not ("/001" in line and "race" in line)]
    marks.write_text("".join(kept))
    run(spent, tmp_path)
    assert {chunk: len(lines) for chunk, lines in raced_lines(tmp_path).items()} == timed
    notes = make_report(RunFolder(tmp_path)).notes
    assert any("raced: embedded_math/en 2, embedded_math/te 2" in note for note in notes)


def raced_lines(path: Path) -> dict[str, tuple[Timing, ...]]:
    return {unit.chunk: lines for unit, lines in RunFolder(path).read("race", Timing).items()}
