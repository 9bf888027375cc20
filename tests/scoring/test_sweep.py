"""Sweeps: everything in every round on the reference ids, a step counted once, and a kill that leaves no trace."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from tiny_models import encode, family, noised, prompts
from tiny_pair import lasting, save_pair

from fairspec_bench.api.options import run_options
from fairspec_bench.cli.parameters import parse_numbers
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.engine.speculative import Decoded, Decoder
from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.base import FairspecError, RecordError
from fairspec_bench.schemas.config import RunConfig, SamplingParams
from fairspec_bench.schemas.lines import Reference, Throughput
from fairspec_bench.schemas.options import RunOptions, check, model_spec
from fairspec_bench.schemas.stages import Unit, halves, sweep_keys, units
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring.plan import plan_run
from fairspec_bench.scoring.prepare import RunContext, prepare
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run import Progress, run
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.scoring.sweep import sweep

VERIFIER = wrap(family("gpt2"), "verifier")
ENCODED = encode(prompts(7, 3, 12), max_new_tokens=12)
TEXTS = prompts(7, 4, 12, seed=8)
TRACES = [
    Reference(key=e.key, prompt_sha=e.sha, ids=tuple(ids), finish="length", chunk="s")
    for e, ids in zip(ENCODED, TEXTS, strict=True)
]


def made(rounds: int = 2) -> list[Throughput]:
    drafter = ModelDrafter(noised(VERIFIER, 0.05), VERIFIER)
    return list(
        sweep(
            VERIFIER, drafter, ENCODED, TRACES, sampling=SamplingParams(), gammas=(1, 3), batch_sizes=(1, 3), seed=0,
            rounds=rounds, chunk="toy/en/000",
        )
    )  # fmt: skip


def test_everything_is_decoded_once_a_round_in_an_order_of_its_own() -> None:
    lines = made(rounds=3)
    assert Counter((each.half, each.batch_size, each.gamma, each.round) for each in lines) == Counter(
        (half, batch, gamma, number)
        for half in (0, 1)
        for batch in (1, 3)
        for gamma in (0, 1, 3)
        for number in range(3)
    )
    assert [each.order for each in lines] == [*range(12)] * 3
    orders = [[(x.half, x.batch_size, x.gamma) for x in lines if x.round == number] for number in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders == [[(x.half, x.batch_size, x.gamma) for x in made(3) if x.round == number] for number in range(3)]
    for each in lines:
        mine = TRACES[each.half :: 2]
        assert (each.prompts, each.tokens) == (len(mine), sum(len(reference.ids) for reference in mine))
        assert each.prefill_ns > 0 < each.decode_ns


def test_the_time_of_a_batch_counts_each_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed over its rows, a batch of 3 would seem to take 2 to 3 times as long as it did."""
    calls: list[tuple[int, list[Decoded], int]] = []
    real = Decoder.decode

    def spy(self: Decoder, *args: object) -> Iterator[Decoded]:
        started, done = time.perf_counter_ns(), list(real(self, *args))
        calls.append((self.batch_size, done, time.perf_counter_ns() - started))
        return iter(done)

    monkeypatch.setattr(Decoder, "decode", spy)
    lines = made(1)
    for line, (size, done, wall) in zip(lines, calls[-len(lines) :], strict=True):
        assert size == line.batch_size
        assert max(each.decode_ns for each in done) <= line.decode_ns <= wall - line.prefill_ns
        assert (line.decode_ns == sum(each.decode_ns for each in done)) == (size == 1)


def test_a_sweep_that_leaves_the_reference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda self, asked, texts: real(self, asked))
    with pytest.raises(FairspecError, match="left the reference ids"):
        made()


def test_halves_take_turns() -> None:
    assert halves("abcde") == ("ace", "bd")
    assert halves("a") == ("a",)


# --------------------------------------------------------------------------- as a run's last stage


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def ask(pair: tuple[Path, Path]) -> RunOptions:
    return RunOptions(
        verifier=model_spec("v", str(pair[0])),
        drafter=drafter_spec("d", str(pair[1])),
        suites=("embedded_math",),
        languages=("en", "te"),
        limit=5,
        max_new_tokens=12,
        gamma=2,
        gammas=(1, 2),
        batch_size=2,
        batch_sizes=(1,),
        race_prompts=4,
        race_rounds=3,
    )


@pytest.fixture(scope="module")
def prepared(ask: RunOptions) -> RunContext:
    """Shards of two prompts: a sweep is of the prompts of two of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "CHUNK_LEAST", 2)
        patch.setattr(preparing, "CHUNK_BATCHES", 1)
        yield prepare(ask)
    torch.set_num_threads(threads)


@pytest.fixture
def whole(prepared: RunContext, tmp_path: Path) -> Path:
    run(prepared, tmp_path / "whole")
    return tmp_path / "whole"


def test_a_run_sweeps_each_task_last_and_reports_it(prepared: RunContext, whole: Path) -> None:
    config, folder = prepared.config, RunFolder(whole)
    assert (config.gammas, config.batch_sizes, config.gamma, config.batch_size) == ((1, 2), (1, 2), 2, 2)
    assert units(config)[-2:] == (Unit("embedded_math/en/000", "sweep"), Unit("embedded_math/te/000", "sweep"))
    assert {chunk: len(keys) for chunk, keys in sweep_keys(config).items()} == {
        "embedded_math/en/000": 4,
        "embedded_math/te/000": 4,
    }
    assert len(folder.lines("sweep", Throughput)) == 2 * 2 * 2 * 3 * 3
    sweeps = make_report(folder).suites[0].sweep
    assert sweeps is not None
    assert (sweeps.rounds, len(sweeps.cells), len(sweeps.payoffs), len(sweeps.best)) == (3, 12, 4, 2)
    assert all(set(each.speedup) == {"embedded_math/en", "embedded_math/te"} for each in sweeps.best)


@pytest.mark.slow
def test_killed_inside_a_sweep_it_goes_on_to_the_same(prepared: RunContext, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"

    def die(progress: Progress) -> None:
        lines = out / "sweep.jsonl"
        if (
            progress.unit == Unit("embedded_math/te/000", "sweep")
            and lines.exists()
            and lines.read_bytes().count(b"\n") > 2 * 2 * 3 * 3 + 4
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    child = get_context("fork").Process(target=lambda: run(prepared, out, watch=die))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    before = RunFolder(out)
    assert before.done.keys() == set(units(prepared.config)[:-1])
    first = before.lines("sweep", Throughput)
    assert len(first) == 2 * 2 * 3 * 3
    with (out / "sweep.jsonl").open("a") as torn:
        torn.write('{"chunk": "embedded_math/te/000", "ha')
    run(prepared, out)
    after = RunFolder(out).lines("sweep", Throughput)
    assert after[: len(first)] == first
    still = {"prefill_ns": 0, "decode_ns": 0}
    undisturbed = RunFolder(whole).lines("sweep", Throughput)
    assert [x.model_copy(update=still) for x in after] == [x.model_copy(update=still) for x in undisturbed]
    assert lasting(out) == lasting(whole)


@pytest.mark.parametrize("fault", ["missing", "twice", "foreign", "tokens"])
def test_lines_that_do_not_belong_are_damage(whole: Path, fault: str) -> None:
    path = whole / "sweep.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if fault == "missing":
        lines = lines[1:]
    elif fault == "twice":
        lines[1] = lines[0]
    elif fault == "foreign":
        lines[0] = lines[0].replace('"batch_size":1', '"batch_size":5').replace('"batch_size":2', '"batch_size":5')
    else:
        lines[0] = lines[0].replace('"tokens":', '"tokens":1')
    path.write_text("".join(lines))
    with pytest.raises(RecordError, match=r"sweep\.jsonl|sweep: tokens is"):
        RunFolder(whole).check()


def test_a_plan_counts_it(ask: RunOptions) -> None:
    plan = plan_run(ask)
    assert plan.hours is not None
    assert plan.hours["sweep"] > 0
    assert plan.disk_bytes > plan_run(replace(ask, gammas=(), batch_sizes=())).disk_bytes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shard": (1, 2)}, "a sweep: needs the whole race"),
        ({"race_rounds": 0}, "race_rounds=0: a sweep is timed"),
        ({"drafter": None}, "Name a drafter"),
        ({"gammas": (0, 1)}, "gamma=0"),
        ({"gammas": (65,)}, "gamma=65"),
        ({"batch_sizes": (-1,)}, "batch_size=-1"),
        ({"batch_sizes": tuple(range(1, 20))}, "19 values. At most 16"),
        ({"gammas": (), "batch_sizes": (), "shard": (1, 2), "race_width": 0.05}, "race_width: needs the whole race"),
        ({"race_budget": 0.0}, "race_budget=0: must be more"),
        ({"race_width": -0.1}, "race_width=-0.1"),
    ],
)
def test_what_cannot_be_swept_is_refused(ask: RunOptions, changes: dict[str, object], said: str) -> None:
    with pytest.raises(FairspecError, match=said):
        check(replace(ask, **changes))


def test_a_batch_that_half_of_the_prompts_cannot_fill_is_refused(ask: RunOptions) -> None:
    with pytest.raises(FairspecError, match=r"batch_size=3: half of the 4 raced prompts of embedded_math/en"):
        prepare(replace(ask, batch_sizes=(1, 3)))


# --------------------------------------------------------------------------- how it is asked for


def test_the_first_of_several_is_the_runs_own() -> None:
    asked = run_options("v", "lookup", ["s"], gamma=(4, 1, 2), batch_size=8)
    assert (asked.gamma, asked.gammas, asked.batch_size, asked.batch_sizes) == (4, (1, 2), 8, ())
    assert asked.sweeps
    assert not run_options("v", "lookup", ["s"], gamma=(4,), batch_size=(8, 8)).sweeps
    assert parse_numbers("gamma", "4,1,2") == (4, 1, 2)
    with pytest.raises(FairspecError, match="--gamma 4,x: not whole numbers"):
        parse_numbers("gamma", "4,x")


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 0.03),
        ({"race_width": 0.1}, 0.1),
        ({"race_width": 0.0}, None),
        ({"race_rounds": 0}, None),
        ({"shard": (1, 2)}, None),
    ],
)
def test_a_race_ends_at_three_percent_unless_told_or_in_part(changes: dict[str, object], width: float | None) -> None:
    assert replace(run_options("v", "lookup", ["s"]), **changes).race_ends_at == width


def test_a_run_without_any_of_it_is_written_as_before(prepared: RunContext) -> None:
    plain = prepared.config.model_copy(update={"gammas": (), "batch_sizes": (), "race_width": None})
    told = plain.model_dump_json()
    assert not any(name in told for name in ("gammas", "batch_sizes", "race_width", "race_budget"))
    assert RunConfig.model_validate_json(told) == plain
    assert sweep_keys(plain) == {}


def test_a_lookup_drafter_can_be_swept() -> None:
    lines = sweep(
        VERIFIER, LookupDrafter(), ENCODED[:2], TRACES[:2], sampling=SamplingParams(), gammas=(2,), batch_sizes=(1,),
        seed=0, rounds=1, chunk="s",
    )  # fmt: skip
    assert len(list(lines)) == 4
