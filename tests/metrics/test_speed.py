"""Times against a made-up clock whose every step is known, and the verdicts that a noisy machine must not get."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_run import make_prompt, make_timings
from pydantic import ValidationError

from fairspec_bench.metrics import bootstrap, speed
from fairspec_bench.metrics.acceptance import blocks_from_matches
from fairspec_bench.metrics.measure import StatTable, estimate
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Timing
from fairspec_bench.schemas.report import Estimate, RaceVerdict

GAMMA = 3
HITS = [True, True, False, True, True, True, False, True]
STEADY = np.ones((5, 3))


def timings(key: str = "toy/en/0", context: int = 100, jitter: np.ndarray = STEADY) -> list[Timing]:
    reference, replay = make_prompt(key, HITS)
    return make_timings(reference, replay, GAMMA, len(jitter), context=context, jitter=jitter)


def figure(name: str, lines: list[Timing]) -> float | None:
    raced = speed.race(lines)
    clusters = [key.rpartition("/")[2] for key in raced.keys]
    parts = bootstrap.partition({"task": clusters})
    rounds = np.array(raced.rounds)
    sheet = StatTable(parts.rows(clusters), parts.sizes[0], raced.columns, int(rounds.max()) + 1, rounds)
    measure = next(each for each in speed.measures(GAMMA) if each.name == name)
    return estimate(measure, sheet).value


BLOCKS = len(blocks_from_matches(HITS, GAMMA))
PLAIN = len(HITS) * 105
SPECULATIVE = BLOCKS * (25 + 2 * 20 + 140 + 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("speedup", PLAIN / SPECULATIVE),
        ("speedup_end_to_end", (1000 + PLAIN) / (1200 + SPECULATIVE)),
        ("control_ratio", 1.0),
        ("ttft", 1200e-9),
        ("ttft_autoregressive", 1000e-9),
        ("seconds_per_answer", (1200 + SPECULATIVE) * 1e-9),
        ("seconds_per_answer_autoregressive", (1000 + PLAIN) * 1e-9),
        ("cost_ratio", (65 / 3) / 100),
        ("verify_ratio", 1.4),
    ],
)
def test_by_hand(name: str, expected: float) -> None:
    assert figure(name, timings()) == pytest.approx(expected)


def test_totals_are_paired_before_any_ratio() -> None:
    """Σ/Σ, not the mean of ratios; a prompt without both modes in a round is in neither total."""
    slow = timings("toy/en/1", jitter=np.full((1, 3), 10.0))
    fast = timings("toy/en/0", jitter=np.array([[1.0, 2.0, 1.0]]))
    expected = 11 * PLAIN / (12 * SPECULATIVE)
    assert figure("speedup", slow + fast) == pytest.approx(expected)
    lonely = [line for line in timings("toy/en/2", jitter=np.full((1, 3), 50.0)) if line.mode != "speculative"]
    assert figure("speedup", slow + fast + lonely) == pytest.approx(expected)


def test_one_round_gives_no_interval_and_two_lines_of_one_mode_an_error() -> None:
    lines = timings(jitter=STEADY[:1])
    with pytest.raises(FairspecError, match="two autoregressive lines in round 0"):
        speed.race([*lines, lines[0]])


def predicted(lines: list[Timing], tasks: list[str]) -> np.ndarray:
    count = len(tasks)
    prompts = {"contexts": np.full(count, len(HITS), float), "blocks": np.full(count, BLOCKS, float)}
    found = speed.predicted_columns(tasks, lines, prompts, GAMMA)
    return found["predicted_plain_ns"] / found["predicted_speculative_ns"]


def test_predicted_speedup_is_the_measured_one_on_a_steady_clock() -> None:
    assert predicted(timings(), ["toy/en"])[0] == pytest.approx(PLAIN / SPECULATIVE)


def test_predicted_times_are_pooled_over_languages_of_one_length_only() -> None:
    """A language timed while one mode was slow predicts like the others; one of longer prompts has its own times."""
    slow = np.ones((5, 3)) * [1, 3, 1]
    lines = [*timings("toy/en/0"), *timings("toy/te/0", jitter=slow), *timings("toy/ja/0", context=4000, jitter=slow)]
    english, telugu, japanese, unseen = predicted(lines, ["toy/en", "toy/te", "toy/ja", "toy/sw"])
    assert english == pytest.approx(telugu)
    assert english == pytest.approx(PLAIN / (2 * SPECULATIVE))
    assert japanese == pytest.approx(PLAIN / (3 * SPECULATIVE))
    assert np.isnan(unseen)


def test_lengths_share_a_bucket_up_to_a_power_of_two() -> None:
    assert speed.length_bucket(64) == speed.length_bucket(127)
    assert speed.length_bucket(127) != speed.length_bucket(128)


def test_iid_speedup_is_the_published_formula() -> None:
    alpha, gamma, cost = np.float64(0.8), 4, np.float64(0.05)
    expected = (1 - 0.8**5) / ((1 - 0.8) * (4 * 0.05 + 1))
    assert speed.iid_speedup(alpha, gamma, cost) == pytest.approx(expected)
    assert speed.iid_speedup(np.float64(1), gamma, cost) == pytest.approx(5 / 1.2)


@pytest.mark.parametrize(
    ("control", "rounds", "said"),
    [
        (Estimate(), 0, "no race"),
        (Estimate(), 5, "no A/A control"),
        (Estimate(value=1.0), 5, "without an interval"),
        (Estimate(value=1.05, low=1.02, high=1.08), 5, "too noisy: no verdict"),
        (Estimate(value=1.025, low=0.964, high=1.087), 5, "too noisy: no verdict"),
        (Estimate(value=1.0, low=0.98, high=1.031), 5, "is not within 1 ± 0.03"),
        (Estimate(value=1.0, low=0.98, high=1.02), 5, "quiet"),
        (Estimate(value=1.0, low=0.98, high=1.02), 4, "4 rounds, 5 are needed: no verdict"),
    ],
)
def test_race_verdict(control: Estimate, rounds: int, said: str) -> None:
    verdict = speed.race_verdict(control, rounds)
    assert said in speed.race_sentence(verdict)
    assert verdict.quiet == (said == "quiet")
    assert (verdict.ratio, verdict.rounds) == (control, rounds)


def test_a_race_of_a_width_of_its_own_is_held_to_it() -> None:
    control = Estimate(value=1.0, low=0.96, high=1.04)
    assert not speed.race_verdict(control, 5).quiet
    assert speed.race_verdict(control, 5, margin=0.05).quiet


def test_a_sentence_is_no_race_verdict() -> None:
    """Whether a race was quiet was once read from how its sentence begins: `quietly noisy` was quiet."""
    fields = {"status": "quiet", "ratio": {"value": 1.0, "low": 0.98, "high": 1.02}, "rounds": 5}
    assert RaceVerdict.model_validate(fields).quiet
    for wrong in ("quiet: A/A 1.0 covers 1", fields | {"status": "quietly noisy"}):
        with pytest.raises(ValidationError):
            RaceVerdict.model_validate(wrong)


def test_speed_verdict() -> None:
    faster = Estimate(value=1.3, low=1.2, high=1.4)
    assert speed.speed_verdict(faster, True) == "faster"
    assert speed.speed_verdict(faster, False) == "no verdict"
    assert speed.speed_verdict(Estimate(value=0.8, low=0.7, high=0.9), True) == "slower"
    assert speed.speed_verdict(Estimate(value=1.0, low=0.9, high=1.1), True) == "undecided"
    assert speed.speed_verdict(Estimate(value=1.3), True) == "no verdict"
