"""Blocks against hand counts, brute force and live dice; the measures that rest on them against their definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_run import make_prompt

from fairspec_bench.metrics import acceptance
from fairspec_bench.metrics.acceptance import blocks_from_matches, chances, expected_blocks
from fairspec_bench.schemas.lines import Block


def block(accepted: int, emitted: int) -> Block:
    return Block(accepted=accepted, emitted=emitted, raw_accepted=accepted)


@pytest.mark.parametrize(
    ("matches", "gamma", "expected"),
    [
        ("", 3, []),
        ("1", 1, [(1, 1)]),
        ("0", 1, [(0, 1)]),
        ("11", 1, [(1, 2)]),
        ("111", 1, [(1, 2), (1, 1)]),
        ("0000", 2, [(0, 1)] * 4),
        ("1111", 3, [(3, 4)]),
        ("11111", 3, [(3, 4), (1, 1)]),
        ("1110", 3, [(3, 4)]),  # the bonus is the verifier's: what the drafter thought there is not asked
        ("110111", 3, [(2, 3), (3, 3)]),  # the text ends with the last draft: no bonus inside it
        ("110110", 3, [(2, 3), (2, 3)]),
        ("11011", 4, [(2, 3), (2, 2)]),
    ],
)
def test_blocks_by_hand(matches: str, gamma: int, expected: list[tuple[int, int]]) -> None:
    assert blocks_from_matches([hit == "1" for hit in matches], gamma) == tuple(block(*each) for each in expected)


def slow_blocks(hits: list[bool], gamma: int) -> list[tuple[int, int]]:
    """Token by token, as a live loop would: draft γ, verify, commit what lies inside the text."""
    found, place = [], 0
    while place < len(hits):
        accepted = 0
        while accepted < gamma and (place + accepted >= len(hits) or hits[place + accepted]):
            accepted += 1
        inside = min(accepted + 1, len(hits) - place)
        found.append((min(accepted, inside), inside))
        place += inside
    return found


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 9))
def test_blocks_are_those_of_a_live_loop(hits: list[bool], gamma: int) -> None:
    blocks = blocks_from_matches(hits, gamma)
    assert [(each.accepted, each.emitted) for each in blocks] == slow_blocks(hits, gamma)
    assert sum(each.emitted for each in blocks) == len(hits)
    assert sum(each.accepted for each in blocks) <= sum(hits)


@given(st.lists(st.lists(st.booleans(), max_size=30), min_size=1, max_size=4), st.integers(1, 6))
def test_recursion_is_exact_for_certain_chances(prompts: list[list[bool]], gamma: int) -> None:
    expected = expected_blocks([[float(hit) for hit in hits] for hits in prompts], gamma)
    for row, hits in enumerate(prompts):
        blocks = blocks_from_matches(hits, gamma)
        assert expected.blocks[row] == len(blocks)
        assert expected.accepted[row].sum() == sum(each.accepted for each in blocks)
        assert expected.tested[row].sum() == sum(min(each.emitted, gamma) for each in blocks)
        for j in range(gamma):
            assert expected.accepted[row, j] == sum(each.accepted > j for each in blocks)


@pytest.mark.parametrize("gamma", [1, 2, 3, 7])
def test_recursion_is_the_sum_over_all_outcomes(gamma: int) -> None:
    beta = np.array([0.9, 0.3, 0.5, 1.0, 0.0, 0.7, 0.8, 0.2])
    blocks, tested, accepted = 0.0, np.zeros(gamma), np.zeros(gamma)
    for hits in product([False, True], repeat=len(beta)):
        weight = float(np.prod(np.where(hits, beta, 1 - beta)))
        for each in blocks_from_matches(hits, gamma):
            blocks += weight
            tested += weight * (np.arange(gamma) < min(each.emitted, gamma))
            accepted += weight * (np.arange(gamma) < each.accepted)
    found = expected_blocks([beta], gamma)
    assert found.blocks[0] == pytest.approx(blocks)
    np.testing.assert_allclose(found.tested[0], tested)
    np.testing.assert_allclose(found.accepted[0], accepted)


def test_recursion_meets_live_dice() -> None:
    generator = np.random.default_rng(0)
    beta = generator.beta(4, 2, 60)
    counts = [len(blocks_from_matches((generator.random(60) < beta).tolist(), 4)) for _ in range(4000)]
    error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - expected_blocks([beta], 4).blocks[0]) < 3.5 * error


def test_a_recursion_that_tests_the_bonus_would_be_caught() -> None:
    """The mistake of counting γ + 1 tested positions a block differs already on a certain text."""
    certain = expected_blocks([[1.0] * 8], 3)
    assert certain.tested[0].sum() == 6
    assert certain.blocks[0] == 2


def test_chances_are_matches_under_the_greedy_rule() -> None:
    reference, replay = make_prompt("toy/en/0", [True, False, True])
    assert chances(replay, reference) == (1.0, 0.0, 1.0)
    assert chances(replay.model_copy(update={"beta": (0.1, 0.2, 0.3)}), reference) == (0.1, 0.2, 0.3)


# --------------------------------------------------------------------------- uncut


def test_uncut_by_hand() -> None:
    found = acceptance.uncut(*map(np.float64, (8, 4, 1)), *map(np.float64, (10, 8, 4)))
    assert found == pytest.approx(1 + 0.8 + 0.8 * 0.5 + 0.8 * 0.5 * 0.25)


def test_uncut_of_unreached_and_unreachable_positions() -> None:
    zero = np.float64(0)
    assert acceptance.uncut(zero, zero, np.float64(5), zero) == 1  # all rejected at once
    assert np.isnan(acceptance.uncut(np.float64(3), zero, np.float64(5), zero))  # texts too short to know


def test_uncut_is_free_of_the_last_block() -> None:
    """Texts of 10 tokens and of 400 at one chance of acceptance: the realised efficiency falls, the uncut does not."""
    gamma, chance = 4, 0.8
    figures = {}
    for length in (10, 400):
        found = expected_blocks([[chance] * length], gamma)
        figures[length] = (
            length / found.blocks[0],
            float(acceptance.uncut(*found.accepted[0], *found.tested[0])),
        )
    truth = (1 - chance ** (gamma + 1)) / (1 - chance)
    assert figures[400][1] == pytest.approx(truth)
    assert figures[10][1] == pytest.approx(truth)
    assert figures[10][0] < 0.93 * figures[400][0]


def test_names_are_unique_and_every_gamma_is_swept() -> None:
    names = [measure.name for measure in acceptance.measures(3)]
    assert len(names) == len(set(names))
    assert acceptance.swept_gammas(12) == (*range(1, 9), 12)
