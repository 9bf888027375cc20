"""A change over several trainings: figures by hand, and intervals that cover the truth though trainings differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from made_up_run import make_config, make_prompt

from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.metrics.trainings import Run, _change, _Figures, over_trainings
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
    assert mean.relative.value == pytest.approx((after.mean() - before.mean()) / before.mean())
    assert found.across["worst_acceptance"].after == pytest.approx(after.min(axis=1).mean())
    assert found.runs["mean_acceptance"] == pytest.approx(after.mean(axis=1) - before.mean(axis=1))
    assert found.acceptance["toy/cc"].change.value == pytest.approx((after - before)[:, 2].mean())
    assert (found.trainings, found.problems) == (3, 90)


def test_intervals_cover_the_truth_and_forgetting_the_trainings_does_not() -> None:
    """The mean change is .1; problems move all trainings alike (σ .02), each training its own way (σ .08)."""
    rng, laps, covered, naive = np.random.default_rng(0), 1000, 0, 0
    for _ in range(laps):
        problems, trained = rng.normal(0, 0.02), rng.normal(0, 0.08, 5)
        before = _Figures(np.full(5, 0.5), np.full((5, 300), 0.5))
        after = _Figures(0.6 + problems + trained, 0.6 + rng.normal(0, 0.02, 300) + np.zeros((5, 1)))
        found = _change(before, after, ways=1)
        covered += _holds(found.change, 0.1)
        # Of the ratio the base does not vary here: the same distribution, twice as wide.
        assert _holds(found.relative, 0.2) == _holds(found.change, 0.1)
        reach = 1.96 * np.diff(np.quantile((after.samples - before.samples).mean(axis=0), [0.1587, 0.8413]))[0] / 2
        naive += abs((after.value - before.value).mean() - 0.1) <= reach
    assert 0.92 <= covered / laps <= 0.99
    assert naive / laps < 0.85


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
