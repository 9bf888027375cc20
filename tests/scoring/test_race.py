"""Races: the same ids in every mode, all three modes in every round, blocks that add up, warm-up unrecorded."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from tiny_models import EOS, encode, family, noised, prompts

from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.oracle import OracleDrafter
from fairspec_bench.engine.speculative import Decoded, Decoder, Request
from fairspec_bench.metrics.race_stopping import race_decided, raced_prefix, task_speedup
from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.config import ModelConfig, RunConfig, SamplingParams
from fairspec_bench.schemas.invariants import time_faults
from fairspec_bench.schemas.lines import Reference, StepTimes, Timing
from fairspec_bench.schemas.prompts import Encoded
from fairspec_bench.schemas.stages import MODES, RACE_BATCH, race_batches
from fairspec_bench.scoring.race import race

VERIFIER = wrap(family("gpt2"), "verifier")
GREEDY = SamplingParams()
ENCODED = encode(prompts(5, 3, 12), max_new_tokens=12)
TEXTS = prompts(5, 12, 12, seed=8)
"""Not what the verifier would say: a race commits the reference whatever the models think."""
TRACES = [
    Reference(key=e.key, prompt_sha=e.sha, ids=(*ids[:-1], EOS), finish="eos", chunk="s")
    for e, ids in zip(ENCODED, TEXTS, strict=True)
]


def timings(drafter: Drafter, sampling: SamplingParams = GREEDY, rounds: int = 2) -> list[Timing]:
    return list(race(VERIFIER, drafter, ENCODED, TRACES, sampling=sampling, gamma=3, seed=0, rounds=rounds, chunk="s"))


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    """Everything that was decoded in races, warm-up included."""
    seen: list[Decoded] = []
    real = Decoder.decode

    def spy(*args: object, **options: object) -> object:
        for done in real(*args, **options):
            seen.append(done)
            yield done

    monkeypatch.setattr(Decoder, "decode", spy)
    return seen


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(temperature=1.0)])
@pytest.mark.parametrize("kind", ["model", "lookup", "oracle"])
def test_every_mode_commits_the_reference_ids(kind: str, sampling: SamplingParams, committed: list[Decoded]) -> None:
    drafter = {
        "model": ModelDrafter(noised(VERIFIER, 0.05), VERIFIER),
        "lookup": LookupDrafter(),
        "oracle": OracleDrafter(0.8, VERIFIER),
    }[kind]
    lines = timings(drafter, sampling)
    text = {reference.key: reference.ids for reference in TRACES}
    assert len(committed) == len(MODES) * (1 + 2 * len(ENCODED))
    assert all(done.ids == text[done.key] for done in committed)
    for line in lines:
        assert (line.tokens, line.context) == (12, len(next(e.ids for e in ENCODED if e.key == line.key)))
        assert line.decode_ns > 0 < line.prefill_ns
        step_times = line.step_times
        parts = step_times.draft_first_ns + step_times.draft_next_ns + step_times.verify_ns + step_times.rest_ns
        assert parts == line.decode_ns
        if line.mode == "speculative":
            assert sum(block.emitted for block in line.blocks) == line.tokens - 1
            assert step_times.verify == len(line.blocks)
            assert line.drafter_prefill_ns > 0
            assert kind == "oracle" or step_times.draft_next == 2 * step_times.draft_first == 2 * len(line.blocks)
        else:
            assert line.blocks == ()
            assert step_times.verify == 11
            assert step_times.draft_first == step_times.draft_next == 0
    if kind == "oracle":
        assert any(block.accepted for line in lines if line.mode == "speculative" for block in line.blocks)


def test_rounds_orders_and_the_control() -> None:
    lines = timings(LookupDrafter(), rounds=4)
    assert Counter((line.key, line.round, line.mode) for line in lines) == Counter(
        (prompt.key, number, mode) for prompt in ENCODED for number in range(4) for mode in MODES
    )
    by_round: dict[tuple[str, int], list[Timing]] = {}
    for line in lines:
        by_round.setdefault((line.key, line.round), []).append(line)
    assert all([line.order for line in group] == [0, 1, 2] for group in by_round.values())
    orders = {tuple(line.mode for line in group) for group in by_round.values()}
    assert len(orders) > 3
    control = {line.step_times.verify for line in lines if line.mode == "control"}
    assert control == {line.step_times.verify for line in lines if line.mode == "autoregressive"} == {11}
    assert [line.round for line in lines] == sorted(line.round for line in lines)


def test_the_oracle_is_accepted_as_set_even_on_a_text_the_verifier_disowns() -> None:
    lines = timings(OracleDrafter(1.0, VERIFIER), rounds=1)
    blocks = [block for line in lines if line.mode == "speculative" for block in line.blocks]
    assert all(block.accepted == min(3, block.emitted) for block in blocks)


def test_a_race_that_leaves_the_reference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", lambda self, asked, texts, **options: real(self, asked, **options))
    with pytest.raises(FairspecError, match="left the reference ids"):
        timings(LookupDrafter())


def test_a_recorded_block_is_timed_whole_and_its_steps_beside() -> None:
    """Of every prompt and mode: the time of the whole, the steps of a second decode, whose sum is nearly the same."""
    drafter = ModelDrafter(noised(VERIFIER, 0.05), VERIFIER)
    given = {"sampling": GREEDY, "gamma": 3, "seed": 0, "rounds": 2, "chunk": "s"}
    plain, recorded = (
        list(race(replace(VERIFIER, backend=backend), drafter, ENCODED, TRACES, **given))
        for backend in ("eager", "graph")
    )
    assert [(line.key, line.mode, line.blocks) for line in recorded] == [
        (line.key, line.mode, line.blocks) for line in plain
    ]
    for line, other in zip(recorded, plain, strict=True):
        p = line.step_times
        steps = p.draft_first_ns + p.draft_next_ns + p.verify_ns + p.rest_ns
        assert (p.draft_first, p.draft_next, p.verify) == (
            other.step_times.draft_first,
            other.step_times.draft_next,
            other.step_times.verify,
        )
        assert line.separate_steps
        assert not other.separate_steps
        assert steps != line.decode_ns
        for each in (line, other):
            assert [*time_faults(each, 3, drafts_each=True)] == []
        joined = line.model_copy(update={"separate_steps": False})
        assert [fault.field for fault in time_faults(joined, 3, drafts_each=True)] == ["decode_ns"]
        assert 0.1 < steps / line.decode_ns < 10


def test_foreign_traces_are_refused() -> None:
    with pytest.raises(FairspecError, match="no reference"):
        list(
            race(VERIFIER, LookupDrafter(), ENCODED, TRACES[1:], sampling=GREEDY, gamma=3, seed=0, rounds=1, chunk="s")
        )


# --------------------------------------------------------------------------- a race that ends early

PLAIN_NS, PAIR_NS = 1_000_000, 600_000


def made_up(**sampling: float) -> RunConfig:
    return RunConfig(
        verifier=ModelConfig(name="v"), drafter=ModelConfig(name="d"), suites=(), tokenizer_sha256="t", gamma=3, seed=0,
        batch_size=1, dtype="float32", device="cpu", race_prompts=None, race_rounds=5, chunks={}, clusters={},
        **sampling,
    )  # fmt: skip


def timed_by(monkeypatch: pytest.MonkeyPatch, noise: float, **sampling: float) -> tuple[list[Timing], RunConfig]:
    """A race of 40 prompts in two chunks, by a clock that shows a speed-up of 5/3 and scatters by `noise`."""
    keys = [f"toy/en/{number}" for number in range(40)]
    chunks = {"toy/en/000": tuple(keys[:20]), "toy/en/001": tuple(keys[20:])}
    config = made_up(**sampling).model_copy(update={"chunks": chunks})
    texts = {key: Reference(key=key, prompt_sha="0" * 64, ids=(2, EOS), finish="eos", chunk="s") for key in keys}
    asked = {key: Encoded(key=key, group="g", ids=(1, 2), sha="0" * 64, max_new_tokens=4) for key in keys}
    rng = random.Random(1)
    length = {key: rng.randrange(20, 60) for key in keys}

    def clock(
        racer: Decoder, requests: list[Request], reference: dict[str, tuple[int, ...]], **options: object
    ) -> list[Decoded]:
        key = requests[0].key
        spent = length[key] * (PAIR_NS if racer.drafter else PLAIN_NS) * math.exp(rng.gauss(0, noise))
        return [Decoded(key, reference[key], "eos", (), 1, 1, round(spent), StepTimes())]

    monkeypatch.setattr(Decoder, "decode", clock)
    timed: list[Timing] = []
    for chunk, mine in chunks.items():
        before = list(timed)
        timed += race(
            VERIFIER,
            LookupDrafter(),
            [asked[key] for key in mine],
            [texts[key] for key in mine],
            sampling=GREEDY,
            gamma=3,
            seed=0,
            rounds=5,
            chunk=chunk,
            race_batches=race_batches(config, mine),
            enough=lambda new, before=before: race_decided(config, [*before, *new]),
        )
    return timed, config


def stopped(monkeypatch: pytest.MonkeyPatch, noise: float, **sampling: float) -> list[str]:
    """The prompts that were raced; each in all rounds, and those that a checker expects from what was timed."""
    timed, config = timed_by(monkeypatch, noise, **sampling)
    assert set(Counter(timing.key for timing in timed).values()) == {5 * len(MODES)}
    raced = list(dict.fromkeys(timing.key for timing in timed))
    again = raced_prefix(config, list(config.chunks.values()), lambda key: [t for t in timed if t.key == key])
    assert again == raced
    return raced


def test_a_narrow_race_ends_after_its_first_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(monkeypatch, 0.002, race_width=0.03) == [f"toy/en/{number}" for number in range(RACE_BATCH)]


def test_a_noisy_race_goes_on_to_the_heat_that_makes_it_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Across a shard's border: what was timed in the first counts in the second."""
    timed, config = timed_by(monkeypatch, 0.065, race_width=0.03)
    raced = list(dict.fromkeys(timing.key for timing in timed))
    ends = [8, 16, 20, 28, 36, 40]
    assert len(raced) in ends[3:-1]
    widths = []
    for end in ends[: ends.index(len(raced)) + 1]:
        figure = task_speedup(config, [timing for timing in timed if timing.key in raced[:end]])
        widths.append(((figure.high or 0) - (figure.low or 0)) / 2 / (figure.value or 1))
    assert 0 < widths[-1] <= 0.03 < min(widths[:-1])


def test_a_hopeless_race_ends_with_its_prompts_and_without_a_rule_so_does_any(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(stopped(monkeypatch, 0.9, race_width=0.03)) == 40
    assert len(stopped(monkeypatch, 0.002)) == 40


def test_a_budget_ends_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 8 prompts of about 40 tokens takes 8 · 5 · (1 + 1 + .6) · 40 ms = 4 s."""
    assert len(stopped(monkeypatch, 0.5, race_budget=0.1)) == RACE_BATCH
    assert RACE_BATCH < len(stopped(monkeypatch, 0.5, race_budget=6.0)) < 40


def test_without_a_rule_a_shard_is_one_heat() -> None:
    fixed = made_up()
    assert list(race_batches(fixed, ["a"] * 20)) == [("a",) * 20]
    ruled = fixed.model_copy(update={"race_width": 0.03})
    assert [len(batch) for batch in race_batches(ruled, ["a"] * 20)] == [8, 8, 4]
