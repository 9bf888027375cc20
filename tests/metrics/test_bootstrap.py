"""The partition, the replicates and the linearised spread against slow versions. Their coverage is in test_coverage."""

from __future__ import annotations

import numpy as np
import pytest

from fairspec_bench.metrics import bootstrap
from fairspec_bench.metrics.acceptance import uncut
from fairspec_bench.metrics.bootstrap import Array, gradient, partition, resample, simultaneous, spread


def test_tasks_that_share_problems_are_one_stratum() -> None:
    parts = partition({"a": ["1", "2"], "b": ["2", "3"], "c": ["9"], "d": [], "e": ["3"]})
    assert parts.stratum["a"] == parts.stratum["b"] == parts.stratum["e"]
    assert len({parts.stratum[task] for task in "acd"}) == 3
    assert parts.sizes[parts.stratum["a"]] == 3
    assert parts.sizes[parts.stratum["d"]] == 0
    assert sorted(parts.rows(["1", "2", "3"]).tolist()) == [0, 1, 2]


def test_partition_does_not_depend_on_order() -> None:
    assert partition({"a": ["1", "2"], "b": ["2"]}) == partition({"b": ["2"], "a": ["2", "1", "1"]})


def test_replicates_do_not_depend_on_chunks_or_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.arange(40.0).reshape(20, 2)
    whole = resample(sums, 100, 7)
    monkeypatch.setattr(bootstrap, "CHUNK", 45)
    np.testing.assert_array_equal(resample(sums, 100, 7), whole)
    np.testing.assert_array_equal(resample(sums[:, :1], 100, 7), whole[:, :1])


def test_replicates_are_multinomial() -> None:
    drawn = resample(np.eye(6), 20_000, 0)
    assert (drawn.sum(axis=1) == 6).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(6) - 1 / 6, atol=0.04)


def test_gradient_is_exact() -> None:
    totals = np.array([3.0, 7.0, 2.0, 11.0])

    def value(a: Array, b: Array, c: Array, d: Array) -> Array:
        return (a / b) / (c / d)

    a, b, c, d = totals
    expected = [d / (b * c), -a * d / (b**2 * c), -a * d / (b * c**2), a / (b * c)]
    np.testing.assert_allclose(gradient(value, totals), expected, rtol=1e-14)


def test_gradient_of_uncut_survives_an_unreached_position() -> None:
    assert np.isfinite(gradient(uncut, np.array([0.0, 0.0, 5.0, 0.0]))).all()


def test_spread_is_the_textbook_ratio_estimator() -> None:
    generator = np.random.default_rng(0)
    below = generator.uniform(1, 3, 9)
    above = below * generator.random(9)
    total = above.sum() / below.sum()
    slow = sum((y - total * x) ** 2 for y, x in zip(above, below, strict=True)) * 9 / 8 / below.sum() ** 2
    error, freedom = spread(((above - total * below) / below.sum())[:, None])
    assert error[0] ** 2 == pytest.approx(slow)
    assert freedom[0] == 8


@pytest.mark.parametrize(("by_prompt", "by_round"), [(1.0, 0.5), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_spread_of_a_race_is_two_way_analysis_of_variance(by_prompt: float, by_round: float) -> None:
    """Against the mean squares of a balanced prompts × rounds table, written out; neither component is below 0."""
    generator = np.random.default_rng(1)
    table = by_prompt * generator.standard_normal((7, 1)) + by_round * generator.standard_normal((1, 4))
    table = table + generator.standard_normal((7, 4))
    influence = (table - table.mean()) / table.size
    rows, columns = table.mean(axis=1) - table.mean(), table.mean(axis=0) - table.mean()
    rest = table - table.mean() - rows[:, None] - columns
    square_rows, square_columns = 4 * (rows**2).sum() / 6, 7 * (columns**2).sum() / 3
    square_rest = (rest**2).sum() / 18
    above_rest = [max(0.0, square - square_rest) for square in (square_rows, square_columns)]
    variance_of_mean = (square_rest + sum(above_rest)) / table.size
    assert spread(influence[..., None])[0][0] ** 2 == pytest.approx(variance_of_mean)


def test_a_race_of_enough_prompts_and_rounds_always_has_an_interval() -> None:
    """Noise of the cells alone: by chance prompts vary less than their cells do, and a variance near 0 has no freedom.

    Each of the three parts is at most the total, so 1 / freedom is at most 1/(P−1) + 1/(R−1) + 1/((P−1)(R−1)).
    """
    least = 1 / (1 / 5 + 1 / 4 + 1 / 20)
    for generator in np.random.default_rng(0).spawn(300):
        noise = generator.standard_normal((6, 5))
        error, freedom = spread((noise - noise.mean())[..., None])
        assert np.isfinite(error[0])
        assert freedom[0] >= least - 1e-9


@pytest.mark.parametrize(("clusters", "expected"), [(2, 0.841886), (12, 0.264648), (50, 0.071122), (250, 0.014647)])
def test_unanimous_is_clopper_and_pearson(clusters: int, expected: float) -> None:
    """Where a share is at the bound, a sample without any comes in just 2.5 %."""
    bound = bootstrap.unanimous(clusters)
    assert bound == pytest.approx(expected, abs=1e-6)
    assert bootstrap.stats.binom.pmf(0, clusters, bound) == pytest.approx(0.025)
    published = bootstrap.stats.binomtest(0, clusters).proportion_ci(0.95, method="exact")
    assert bound == pytest.approx(published.high)


def test_strata_add_up() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.standard_normal((5, 1)), generator.standard_normal((8, 1))
    joined, freedom = spread(np.concatenate([first, second]), np.array([0] * 5 + [1] * 8))
    apart = [spread(each)[0][0] ** 2 for each in (first, second)]
    assert joined[0] ** 2 == pytest.approx(sum(apart))
    assert 4 <= freedom[0] <= 11


def test_one_member_has_no_spread() -> None:
    assert np.isnan(spread(np.zeros((1, 1)))[0][0])
    assert np.isnan(spread(np.zeros((4, 1, 1)))[0][0])
    assert np.isnan(spread(np.zeros((1, 4, 1)))[0][0])


def test_two_prompts_have_no_spread_however_often_they_are_raced() -> None:
    """One degree of freedom between prompts, which rounds cannot add to."""
    influence = np.random.default_rng(0).standard_normal((3, 40, 1))
    assert np.isfinite(spread(influence)[0][0])
    assert np.isnan(spread(influence[:2])[0][0])


def test_no_variation_gives_a_point() -> None:
    low, high = simultaneous(np.array([1.0, 1.0]), np.zeros((6, 2)))
    assert (low == 1).all()
    assert (high == 1).all()


def test_simultaneous_bounds_are_wider_than_single_ones_and_narrower_than_bonferroni() -> None:
    influence = np.random.default_rng(0).standard_normal((200, 10)) + np.random.default_rng(1).standard_normal((200, 1))
    value = np.zeros(10)
    single = np.array([simultaneous(value[:1], influence[:, [k]])[1][0] for k in range(10)])
    together = simultaneous(value, influence)[1]
    error, freedom = spread(influence)
    bonferroni = error * bootstrap.stats.t.isf(0.025 / 10, freedom)
    assert (single < together).all()
    assert (together < bonferroni).all()
