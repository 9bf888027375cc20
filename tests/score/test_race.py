"""Races: the same ids in every mode, all three modes in every round, blocks that add up, warm-up unrecorded."""

from __future__ import annotations

from collections import Counter

import pytest
from tiny_models import EOS, encode, family, noised, prompts

from fairspec_bench.engine.drafters import Drafter, LookupDrafter, ModelDrafter, OracleDrafter
from fairspec_bench.engine.loop import Decoded
from fairspec_bench.engine.model import wrap
from fairspec_bench.records import FairspecError, Rule, Timing, Trace
from fairspec_bench.score import race as module
from fairspec_bench.score.race import MODES, race

VERIFIER = wrap(family("gpt2"), "verifier")
GREEDY = Rule()
ENCODED = encode(prompts(5, 3, 12), cap=12)
TEXTS = prompts(5, 12, 12, seed=8)
"""Not what the verifier would say: a race commits the reference whatever the models think."""
TRACES = [
    Trace(key=e.key, prompt_sha=e.sha, ids=(*ids[:-1], EOS), finish="eos", shard="s")
    for e, ids in zip(ENCODED, TEXTS, strict=True)
]


def timings(drafter: Drafter, rule: Rule = GREEDY, rounds: int = 2) -> list[Timing]:
    return list(race(VERIFIER, drafter, ENCODED, TRACES, rule=rule, gamma=3, seed=0, rounds=rounds, shard="s"))


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    """Everything that was decoded in races, warm-up included."""
    seen: list[Decoded] = []
    real = module.decode

    def spy(*args: object, **options: object) -> object:
        for done in real(*args, **options):
            seen.append(done)
            yield done

    monkeypatch.setattr(module, "decode", spy)
    return seen


@pytest.mark.parametrize("rule", [GREEDY, Rule(temperature=1.0)])
@pytest.mark.parametrize("kind", ["model", "lookup", "oracle"])
def test_every_mode_commits_the_reference_ids(kind: str, rule: Rule, committed: list[Decoded]) -> None:
    drafter = {
        "model": ModelDrafter(noised(VERIFIER, 0.05), VERIFIER),
        "lookup": LookupDrafter(),
        "oracle": OracleDrafter(0.8, VERIFIER),
    }[kind]
    lines = timings(drafter, rule)
    text = {trace.key: trace.ids for trace in TRACES}
    assert len(committed) == len(MODES) * (1 + 2 * len(ENCODED))
    assert all(done.ids == text[done.key] for done in committed)
    for line in lines:
        assert (line.tokens, line.context) == (12, len(next(e.ids for e in ENCODED if e.key == line.key)))
        assert line.decode_ns > 0 < line.prefill_ns
        pieces = line.pieces
        parts = pieces.draft_first_ns + pieces.draft_next_ns + pieces.verify_ns + pieces.rest_ns
        assert parts == line.decode_ns
        if line.mode == "speculative":
            assert sum(block.emitted for block in line.blocks) == line.tokens - 1
            assert pieces.verify == len(line.blocks)
            assert line.drafter_prefill_ns > 0
            assert kind == "oracle" or pieces.draft_next == 2 * pieces.draft_first == 2 * len(line.blocks)
        else:
            assert line.blocks == ()
            assert pieces.verify == 11
            assert pieces.draft_first == pieces.draft_next == 0
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
    control = {line.pieces.verify for line in lines if line.mode == "control"}
    assert control == {line.pieces.verify for line in lines if line.mode == "autoregressive"} == {11}
    assert [line.round for line in lines] == sorted(line.round for line in lines)


def test_the_oracle_is_accepted_as_set_even_on_a_text_the_verifier_disowns() -> None:
    lines = timings(OracleDrafter(1.0, VERIFIER), rounds=1)
    blocks = [block for line in lines if line.mode == "speculative" for block in line.blocks]
    assert all(block.accepted == min(3, block.emitted) for block in blocks)


def test_a_race_that_leaves_the_reference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.decode
    monkeypatch.setattr(module, "decode", lambda *args, reference, **options: real(*args, **options))
    with pytest.raises(FairspecError, match="left the reference ids"):
        timings(LookupDrafter())


def test_foreign_traces_are_refused() -> None:
    with pytest.raises(FairspecError, match="no reference trace"):
        list(race(VERIFIER, LookupDrafter(), ENCODED, TRACES[1:], rule=GREEDY, gamma=3, seed=0, rounds=1, shard="s"))
