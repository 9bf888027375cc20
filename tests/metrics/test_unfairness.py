"""Spreads, extremes, correlation and ranks against hand-computed values and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fairspec_bench.metrics import measure, unfairness
from fairspec_bench.metrics.bootstrap import Array, partition
from fairspec_bench.metrics.measure import Joint, Measure, StatTable
from fairspec_bench.schemas.report import Estimate

MEAN = Measure("mean", "", "1", "", ("above", "below"))


def joint(figures: dict[str, list[float]]) -> Joint:
    sheets = {
        task: StatTable(np.arange(len(each)), len(each), {"above": np.array(each), "below": np.ones(len(each))})
        for task, each in figures.items()
    }
    parts = partition({task: map(str, range(len(each))) for task, each in figures.items()})
    found = measure.joint(MEAN, sheets, parts, shared=True)
    assert found is not None
    return found


def test_spearman_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    for count in (5, 11):
        first, second = generator.random(count), np.round(generator.random(count), 1)
        rho, p = unfairness.spearman(first, second, 4000, 0)

        def statistic(x: Array, second: Array = second) -> float:
            return float(stats.spearmanr(x, second).statistic)

        exact = np.inf if count == 5 else 1000
        expected = stats.permutation_test(
            (first,), statistic, permutation_type="pairings", n_resamples=exact, rng=generator
        )
        assert rho == pytest.approx(expected.statistic)
        assert p == pytest.approx(expected.pvalue, abs=1e-9 if count == 5 else 0.05)


def test_spearman_p_is_critical_near_point_six_two_for_eleven_tasks() -> None:
    generator = np.random.default_rng(1)
    draws = [unfairness.spearman(generator.random(11), np.arange(11.0), 1, 0)[0] for _ in range(4000)]
    assert np.quantile(np.abs(np.array(draws, dtype=float)), 0.95) == pytest.approx(0.62, abs=0.02)


def test_spearman_without_an_order() -> None:
    assert unfairness.spearman(np.ones(5), np.arange(5.0), 100, 0) == (None, None)
    assert unfairness.spearman(np.arange(2.0), np.arange(2.0), 100, 0) == (None, None)


def test_extremes_by_hand() -> None:
    found = joint({"a": [1.0, 1.2, 0.8, 1.0], "b": [2.0, 2.2, 1.8, 2.0], "c": [4.0, 4.2, 3.8, 4.0]})
    low, gap, ratio = unfairness.worst(found, 1000), unfairness.gap(found, 1000), unfairness.max_over_min(found, 1000)
    mean = unfairness.mean(found, 1000)
    error = np.std([1.0, 1.2, 0.8, 1.0], ddof=1) / 2
    assert mean.value == pytest.approx(7 / 3)
    assert mean.high == pytest.approx(7 / 3 + stats.t.isf(0.025, 3) * error)
    assert low.value == pytest.approx(1)
    assert gap.value == pytest.approx(3)
    assert gap.low == pytest.approx(3)  # the problems move all tasks alike, so the difference does not move
    assert ratio.value == pytest.approx(4)
    inverse = unfairness.min_over_max(found, 1000)
    assert inverse.value == pytest.approx(0.25)
    assert inverse.low is not None
    assert ratio.high is not None
    assert inverse.low == pytest.approx(1 / ratio.high)


def test_ratio_to_nothing_is_not_a_number() -> None:
    found = joint({"a": [0.0, 0.0], "b": [1.0, 2.0]})
    assert unfairness.max_over_min(found, 100) == Estimate()
    assert unfairness.min_over_max(found, 100) == Estimate()


def test_rank_ranges_by_hand() -> None:
    wide = [0.0, 0.4, -0.4, 0.2, -0.2, 0.0]
    figures = {
        "best": [9 + each / 9 for each in wide],
        "tie": [5 + each for each in wide],
        "tied": [5 - each for each in wide],
    }
    assert unfairness.rank_ranges(joint(figures), 2000) == {"best": (1, 1), "tie": (2, 3), "tied": (2, 3)}


def test_rank_ranges_of_one_shared_problem_claim_nothing() -> None:
    assert unfairness.rank_ranges(joint({"a": [1.0], "b": [9.0]}), 100) == {"a": (1, 2), "b": (1, 2)}
    assert unfairness.rank_ranges(None, 100) == {}


def test_differences_use_the_problems_that_all_have() -> None:
    sheets = {
        "a": StatTable(np.arange(3), 4, {"above": np.array([1.0, 1.0, 100.0]), "below": np.ones(3)}),
        "b": StatTable(np.array([0, 1, 3]), 4, {"above": np.array([2.0, 4.0, 700.0]), "below": np.ones(3)}),
    }
    parts = partition({"a": ["0", "1", "2"], "b": ["0", "1", "3"]})
    own, shared = (measure.joint(MEAN, sheets, parts, shared=each) for each in (False, True))
    assert own is not None
    assert shared is not None
    assert len(own.strata) == 4
    assert len(shared.strata) == 2
    assert shared.value.tolist() == [1.0, 3.0]


def test_tasks_of_other_strata_are_compared_apart() -> None:
    sheets = {
        task: StatTable(np.arange(4), 4, {"above": np.array(each), "below": np.ones(4)})
        for task, each in {"a": [1.0, 2.0, 3.0, 2.0], "b": [5.0, 6.0, 7.0, 6.0]}.items()
    }
    apart = measure.joint(MEAN, sheets, partition({"a": "1234", "b": "5678"}), shared=True)
    paired = measure.joint(MEAN, sheets, partition({"a": "1234", "b": "1234"}), shared=True)
    assert apart is not None
    assert paired is not None
    contrast = np.array([[1.0, -1.0]])
    wide, point = apart.bounds(contrast, 100), paired.bounds(contrast, 100)
    assert wide is not None
    assert point is not None
    assert wide[1][0] > -4 > wide[0][0]
    assert point[0][0] == pytest.approx(-4)
    assert point[1][0] == pytest.approx(-4)


def test_no_shared_problem_is_no_comparison() -> None:
    sheets = {
        task: StatTable(np.array(places), 4, {"above": np.ones(2), "below": np.ones(2)})
        for task, places in {"a": [0, 1], "b": [1, 2], "c": [2, 3]}.items()
    }
    parts = partition({"a": "01", "b": "12", "c": "23"})
    assert measure.joint(MEAN, sheets, parts, shared=True) is None
    assert measure.joint(MEAN, sheets, parts, shared=False) is not None


def test_levelled_down_needs_an_interval_below_zero() -> None:
    differences = {
        "fell": Estimate(value=-0.1, low=-0.2, high=-0.01),
        "may": Estimate(value=-0.1, low=-0.2, high=0.01),
        "unknown": Estimate(value=-0.1),
        "same": Estimate(value=0.0, low=0.0, high=0.0),
    }
    assert unfairness.levelled_down(differences) == ("fell",)
