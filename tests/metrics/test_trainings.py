"""A change over several trainings: figures by hand, and intervals that cover the truth though trainings differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from made_up_run import make_config, make_prompt

from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.metrics.trainings import Run, _changes, _Figures, over_trainings
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.report import Estimate

LANGUAGES = ("aa", "bb", "cc")
PROMPTS = 30
LENGTH = 20


def made(rates: Mapping[str, float], rng: np.random.Generator, ease: np.ndarray, *, kl: bool = True) -> Run:
    """A run whose acceptance in each language is its rate, problems being easy or hard in all runs alike."""
    references, replays = [], []
    for language in LANGUAGES:
        for k in range(PROMPTS):
            hits = rng.random(LENGTH) < rates[language] + ease[k]
            misfit = max(0.0, 2 * (1 - rates[language] - ease[k])) if kl else None
            reference, replay = make_prompt(f"toy/{language}/{k}", list(hits), kl=misfit)
            references.append(reference)
            replays.append(replay)
    return make_config(LANGUAGES, PROMPTS), Lines(references=references, replays=replays)


BEFORE = {"aa": 0.8, "bb": 0.6, "cc": 0.4}
AFTER = {"aa": 0.78, "bb": 0.75, "cc": 0.6}


def trainings(count: int, seed: int, spread: float = 0.02) -> list[tuple[Run, Run]]:
    """`count` trainings that end each a little elsewhere, from one base."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 0.05, PROMPTS)
    base = made(BEFORE, rng, ease)
    found = []
    for _ in range(count):
        luck = dict(zip(LANGUAGES, rng.normal(0, spread, 3), strict=True))
        found.append((base, made({name: AFTER[name] + luck[name] for name in LANGUAGES}, rng, ease)))
    return found


def test_figures_are_means_over_trainings() -> None:
    pairs = trainings(3, 1)
    found = over_trainings(pairs, "toy", replicates=200)
    means = [
        [np.mean([r.alpha / r.contexts for r in run[1].replays if r.key.split("/")[1] == name]) for name in LANGUAGES]
        for pair in pairs
        for run in pair
    ]
    before, after = np.array(means[0::2]), np.array(means[1::2])
    mean = found.across["mean_acceptance"]
    assert mean.before == pytest.approx(before.mean())
    assert mean.after == pytest.approx(after.mean())
    assert mean.change.value == pytest.approx(after.mean() - before.mean())
    logs = np.log(after.mean(axis=1) / before.mean(axis=1))
    assert mean.relative.value == pytest.approx(np.expm1(logs.mean()))
    assert found.across["worst_acceptance"].after == pytest.approx(after.min(axis=1).mean())
    assert found.runs["mean_acceptance"] == pytest.approx(after.mean(axis=1) - before.mean(axis=1))
    assert found.acceptance["toy/cc"].change.value == pytest.approx((after - before)[:, 2].mean())
    assert (found.trainings, found.drafters, found.problems) == (3, 1, 30)


RATIOS = {"drafters": (0.26, 0.003), "both": (0.05, 0.01), "problems": (0.0, 0.01)}
"""The spread between drafters and between their seeds, beside problems that move all by .016; the first is as found for
ΔU of s-CDF over three drafters and three seeds."""
SEEDS = 3


def nested(ratio: str, drafters: int, worlds: int, figures: int = 1, *, by_run: bool = False) -> float:
    """The share of worlds whose intervals hold the mean change .1 of all figures; `by_run`: seeds as drafters."""
    between, within = RATIOS[ratio]
    covered = 0
    for rng in np.random.default_rng(0).spawn(worlds):
        problems = rng.normal(0, 0.1, (40, 1, 1, figures)) + rng.normal(0, 0.1, (40, drafters, SEEDS, figures))
        trained = rng.normal(0, between, (drafters, 1, figures)) + rng.normal(0, within, (drafters, SEEDS, figures))
        changes = (0.1 + problems + trained).reshape(40, drafters * SEEDS, figures)
        weights = rng.multinomial(40, np.full(40, 1 / 40), 200) / 40
        samples = np.tensordot(weights, changes, axes=1)
        before = _Figures(np.full(changes.shape[1:], 0.5), np.full_like(samples, 0.5))
        units = np.arange(drafters * SEEDS) // (1 if by_run else SEEDS)
        found = _changes(before, _Figures(0.5 + changes.mean(axis=0), 0.5 + samples), units, 40)
        covered += all(_holds(each.change, 0.1) for each in found)
    return covered / worlds


@pytest.mark.parametrize("drafters", [3, 8])
@pytest.mark.parametrize("ratio", RATIOS)
def test_intervals_cover_other_problems_and_other_drafters(ratio: str, drafters: int) -> None:
    assert 0.92 <= nested(ratio, drafters, 200) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("drafters", [3, 8])
@pytest.mark.parametrize("ratio", RATIOS)
def test_intervals_cover_in_a_thousand_worlds(ratio: str, drafters: int) -> None:
    assert 0.93 <= nested(ratio, drafters, 1000) <= 0.98


@pytest.mark.parametrize("drafters", [3, 8])
def test_all_languages_are_covered_at_once(drafters: int) -> None:
    assert nested("drafters", drafters, 200, figures=11) >= 0.92


def test_seeds_taken_for_drafters_would_be_caught() -> None:
    assert nested("drafters", 3, 200, by_run=True) < 0.8


def test_harm_is_found_though_few_seeds_agree() -> None:
    """Three trainings of one drafter, all of which lower every language by .065 (standard error .006 over problems)."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(100):
        trained = -0.065 + rng.normal(0, 0.006, 11) + rng.normal(0, 0.001, (3, 11))
        samples = trained + rng.normal(0, 0.006, (200, 1, 11))
        before = _Figures(np.full((3, 11), 0.5), np.full_like(samples, 0.5))
        fallen = _changes(before, _Figures(0.5 + trained, 0.5 + samples), np.arange(3), 40)
        found += all(each.change.high is not None and each.change.high < 0 for each in fallen)
    assert found >= 95


def test_the_relative_change_is_that_of_drafters_of_any_scale() -> None:
    """U falls to a tenth, give or take a tenth of that, in drafters whose U before differs threefold."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        before = np.array([[0.3], [0.4], [0.8], [0.9]])
        after = before / 10 * np.exp(rng.normal(0, 0.1, (4, 1)))
        samples = [np.broadcast_to(each, (100, 4, 1)) for each in (before, after)]
        (found,) = _changes(_Figures(before, samples[0]), _Figures(after, samples[1]), np.arange(4), 40)
        covered += _holds(found.relative, -0.9)
        assert _holds(found.change, 0.0) or _holds(found.change, -0.54)
        assert found.relative.high is not None
        assert found.relative.high < -0.8
    assert 0.92 <= covered / 200 <= 0.98


def _holds(figure: Estimate, truth: float) -> bool:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low <= truth <= figure.high


def test_one_training_has_no_interval_and_a_fallen_task_is_named() -> None:
    assert over_trainings(trainings(1, 1), "toy", replicates=50).across["unfairness"].change.low is None
    found = over_trainings([(after, before) for before, after in trainings(6, 2, spread=0.005)], "toy", replicates=200)
    assert found.levelled_down == ("toy/bb", "toy/cc")


def test_a_drafter_without_q_has_no_unfairness() -> None:
    rng = np.random.default_rng(0)
    ease = np.zeros(PROMPTS)
    pairs = [(made(BEFORE, rng, ease), made(AFTER, rng, ease, kl=False)) for _ in range(2)]
    found = over_trainings(pairs, "toy", replicates=50)
    assert "unfairness" not in found.across
    assert "acceptance_variance" in found.across


def test_runs_of_other_prompts_are_refused() -> None:
    (before, after), *_ = trainings(1, 1)
    fewer = after[0], Lines(references=after[1].references, replays=after[1].replays[1:])
    with pytest.raises(FairspecError, match="not of the same prompts"):
        over_trainings([(before, fewer)], "toy", replicates=20)
    with pytest.raises(FairspecError, match="no suite other"):
        over_trainings([(before, after)], "other", replicates=20)
    with pytest.raises(FairspecError, match="no trainings"):
        over_trainings([], "toy")
