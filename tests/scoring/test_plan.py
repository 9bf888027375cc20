"""The hours of a plan: from a few short passes, and close to what the run then takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tiny_models import encode, prompts
from tiny_pair import save_pair

from fairspec_bench.engine.batch import with_prefixes
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models.model import Rows
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.schemas.stages import unit_keys
from fairspec_bench.scoring import plan
from fairspec_bench.scoring.plan import plan_run
from fairspec_bench.scoring.prepare import RunContext, chunks, prepare
from fairspec_bench.scoring.stages import UnitRunner

CAP, BATCH, SHARED = 24, 4, 300


@dataclass
class Machine:
    """A clock that only passes of a model move, and what these read: tokens, and slots they look at."""

    ns: int = 0
    tokens: int = 0
    passes: int = 0
    speed: int = 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A token takes longer the more slots a pass looks at; every pass costs something by itself."""
    found, forward = Machine(), Rows.forward

    def timed(
        self: Rows, tokens: torch.Tensor, start: torch.Tensor, slot: torch.Tensor, keep: int, row: int | None = None
    ) -> torch.Tensor:
        found.passes += 1
        found.tokens += tokens.numel()
        found.ns += found.speed * (20_000 + tokens.numel() * (1000 + 5 * len(slot)))
        return forward(self, tokens, start, slot, keep, row)

    monkeypatch.setattr(Rows, "forward", timed)
    monkeypatch.setattr("time.perf_counter_ns", lambda: found.ns)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """A run of 40 prompts of one task that share 300 tokens, on a verifier whose texts never end."""
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    made = prepare(
        RunOptions(
            verifier=model_spec("v", str(verifier)),
            drafter=drafter_spec("d", str(drafter)),
            suites=("embedded_math",),
            languages=("en",),
            limit=40,
            max_new_tokens=CAP,
            batch_size=BATCH,
            race_rounds=0,
        )
    )
    (head,) = prompts(1, SHARED, SHARED, seed=1)
    keys = list(made.questions.encoded)
    asked = with_prefixes(
        prompt.model_copy(update={"group": "embedded_math/en", "key": key})
        for key, prompt in zip(keys, encode([head + tail for tail in prompts(40, 20, 120, seed=2)], CAP), strict=True)
    )
    return replace(
        made,
        verifier=replace(made.verifier, eos_ids=frozenset()),
        questions=replace(made.questions, encoded={prompt.key: prompt for prompt in asked}),
        config=made.config.model_copy(update={"chunks": chunks(keys, BATCH)}),
    )


def models(prepared: RunContext) -> list:
    return [prepared.verifier, prepared.drafter.model]


def test_hours_are_those_of_the_run(prepared: RunContext, machine: Machine) -> None:
    """Decoding and replay by a clock that counts work: within a tenth, prefixes and attention accounted for."""
    predicted = {stage: hours * plan.NS_PER_HOUR for stage, hours in plan._hours(prepared, models(prepared)).items()}
    for model in models(prepared):
        model.prefixes.kept.clear()
    runner, spent = UnitRunner(prepared, None), dict.fromkeys(predicted, 0)
    for unit in unit_keys(prepared.config):
        begun = machine.ns
        assert len(list(runner.lines(unit))) > 0
        spent[unit.stage] += machine.ns - begun
    for stage in ("reference", "drafter_answer", "replay"):
        assert 1 / 1.5 < predicted[stage] / spent[stage] < 1.5, stage
    assert predicted["reference"] == pytest.approx(spent["reference"], rel=0.1)


def test_a_plan_that_forgot_shared_prefixes_would_be_off(prepared: RunContext, machine: Machine) -> None:
    """By more than the factor that is promised: so the test above would see it."""
    whole = {key: prompt.model_copy(update={"shared": 0}) for key, prompt in prepared.questions.encoded.items()}
    apart = replace(prepared, questions=replace(prepared.questions, encoded=whole))
    hours = [plan._hours(each, models(prepared))["reference"] for each in (prepared, apart)]
    assert hours[1] > 2 * hours[0]


@pytest.mark.parametrize("speed", [1, 10**6])
def test_what_is_timed_is_short(prepared: RunContext, machine: Machine, speed: int) -> None:
    """A slow model is timed once: 128 tokens of a prompt and a step; however long the prompts, nothing is prefilled."""
    machine.speed = speed
    plan._pace(prepared.verifier, prepared)
    once = 1 + plan.MEASURED_TOKENS + 2 * BATCH + 2 * 1
    assert machine.tokens <= (once if speed > 1 else plan.MEASUREMENTS * once)
    assert machine.passes <= (6 if speed > 1 else 3 * (plan.MEASUREMENTS + 1))
    if speed > 1:
        assert machine.tokens == once


def test_shared_prefixes_are_in_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, drafter = save_pair(tmp_path)
    ask = RunOptions(
        verifier=model_spec("v", str(verifier)),
        drafter=drafter_spec("d", str(drafter)),
        suites=("embedded_math",),
        languages=("en", "te"),
        limit=3,
        max_new_tokens=CAP,
    )
    assert plan_run(ask).memory_bytes["prefixes"] == 0
    monkeypatch.setattr("fairspec_bench.engine.batch.LEAST_SHARED", 1)
    found = plan_run(ask)
    shared = [task.shared_tokens for task in found.tasks]
    assert min(shared) > 0
    assert found.memory_bytes["prefixes"] == 2 * sum(shared) * 2 * 2 * 16 * 4
    monkeypatch.setattr(plan, "PREFIX_BYTES", 100)
    assert plan_run(ask).memory_bytes["prefixes"] == 200
