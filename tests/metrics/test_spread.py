"""U and variances over tasks: by hand, unbiased, their intervals and floors in made-up worlds, and changes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fairspec_bench.metrics import spread
from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.measure import Joint
from fairspec_bench.metrics.spread import Spread
from fairspec_bench.schemas.report import Estimate


def test_spreads_by_hand() -> None:
    misfit = np.array([1.0, 2.0, 4.0])
    assert spread.unfairness(misfit) == pytest.approx((0 + 1 + 9) / 3)
    assert spread.variance(misfit) == pytest.approx(14 / 9)
    assert spread.unfairness(np.full(5, 7.0)) == 0


def test_unfairness_is_variance_and_squared_distance_of_the_mean_from_the_best() -> None:
    for misfit in np.random.default_rng(0).random((50, 6)):
        expected = misfit.var() + (misfit.mean() - misfit.min()) ** 2
        assert spread.unfairness(misfit) == pytest.approx(expected)


def test_tasks_are_the_first_axis() -> None:
    many = np.random.default_rng(0).random((6, 5, 4))
    for kind in (spread.unfairness, spread.variance):
        assert kind(many)[2, 3] == pytest.approx(float(kind(many[:, 2, 3])))


# --------------------------------------------------------------------------- worlds

TRUTHS = {
    "zero": np.full(11, 0.5),
    "small": np.array([0.5] * 8 + [0.52, 0.53, 0.55]),
    "ties": np.array([0.4] * 4 + [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.6]),
    "one best": np.array([0.3] + [0.7] * 5 + [0.8] * 5),
    "two, equal": np.array([0.5, 0.5]),
    "two": np.array([0.5, 0.7]),
}
COUNTS = (12, 40, 100)


def world(rng: np.random.Generator, means: Array, count: int, draws: int = 300) -> tuple[Joint, Array]:
    """Misfits lognormal over problems, which move all tasks alike in part; joint replicates `[R, m]`."""
    values = means * problems(rng, count) * lognormal(rng, 0.5, (count, len(means)))
    return joint(values), values.mean(axis=0) + weights(rng, count, draws) @ joint(values).influence


def problems(rng: np.random.Generator, count: int) -> Array:
    return lognormal(rng, 0.3, (count, 1))


def lognormal(rng: np.random.Generator, sigma: float, shape: tuple[int, int]) -> Array:
    return np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2)


def joint(values: Array) -> Joint:
    """The means of values `[problems, m]`."""
    count, tasks = values.shape
    names = tuple(map(str, range(tasks)))
    mean = values.mean(axis=0)
    return Joint(names, mean, (values - mean) / count, np.zeros(count, dtype=np.int64), count)


def weights(rng: np.random.Generator, count: int, draws: int) -> Array:
    return rng.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def holds(figure: Estimate, truth: float) -> bool:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low - 1e-12 <= truth <= figure.high


def coverage(kind: Spread, means: Array, count: int, worlds: int) -> float:
    generators = np.random.default_rng(0).spawn(worlds)
    truth = float(kind(means))
    return float(np.mean([holds(spread.estimate(kind, *world(rng, means, count)), truth) for rng in generators]))


@pytest.mark.parametrize("count", [12, 40])
@pytest.mark.parametrize("truth", TRUTHS)
def test_unfairness_is_held(truth: str, count: int) -> None:
    """At 0 only one side can miss."""
    assert coverage(spread.unfairness, TRUTHS[truth], count, 60) >= 0.87


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("truth", TRUTHS)
def test_unfairness_is_held_in_a_thousand_worlds(truth: str, count: int) -> None:
    found = coverage(spread.unfairness, TRUTHS[truth], count, 1000)
    # Where several tie for the best the least of them looks better than it is: the lower end is then a little too high.
    assert found >= (0.89 if truth == "ties" else 0.92)
    if truth in ("one best", "two") and count > 12:
        assert found <= 0.97


@pytest.mark.parametrize("count", [12, 60])
def test_the_variance_is_held(count: int) -> None:
    assert 0.9 <= coverage(spread.variance, TRUTHS["ties"], count, 100) <= 0.99


def test_the_plain_figure_with_its_percentiles_would_be_caught() -> None:
    missed = 0
    for rng in np.random.default_rng(0).spawn(50):
        _, replicates = world(rng, TRUTHS["zero"], 40)
        missed += bool(np.quantile(spread.unfairness(replicates.T), 0.025) > 0)
    assert missed == 50


def to_the_best(made: Joint) -> float:
    """Without cross-fitting: the gaps to the task that looks best on the same problems."""
    return float(spread._on_parts(made, np.ones((1, len(made.strata)))).to_each[0, made.value.argmin()])


@pytest.mark.parametrize(("truth", "count"), [("zero", 12), ("zero", 40), ("small", 40), ("ties", 40), ("two", 40)])
def test_the_estimate_is_unbiased_and_choosing_the_best_on_the_same_problems_is_not(truth: str, count: int) -> None:
    means = TRUTHS[truth]
    found, same = [], []
    for rng in np.random.default_rng(2).spawn(200):
        made, _ = world(rng, means, count, 1)
        found.append(spread.unbiased(spread.unfairness, made))
        same.append(to_the_best(made))
    wrong, error = np.mean(found) - float(spread.unfairness(means)), np.std(found) / np.sqrt(len(found))
    assert abs(wrong) < 3 * error
    if truth != "two":
        assert np.mean(same) - np.mean(found) > 3 * error
    if truth == "zero":
        assert min(found) < 0


def test_the_variance_is_unbiased() -> None:
    found = [
        spread.unbiased(spread.variance, world(rng, TRUTHS["ties"], 12, 1)[0])
        for rng in np.random.default_rng(2).spawn(400)
    ]
    assert abs(np.mean(found) - spread.variance(TRUTHS["ties"])) < 3 * np.std(found) / 20


def test_two_tasks_by_hand() -> None:
    """U of two tasks is half the squared difference, whichever is better; the noise is that of the difference."""
    values = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 3.0], [2.0, 5.0]])
    difference = values[:, 1] - values[:, 0]
    expected = (difference.mean() ** 2 - difference.var(ddof=1) / 4) / 2
    assert spread.unbiased(spread.unfairness, joint(values)) == pytest.approx(expected)


def test_the_digits_are_those_that_halving_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = world(np.random.default_rng(0), TRUTHS["ties"], 40, 1)
    figure = spread.unbiased(spread.unfairness, made)
    assert len(f"{figure:.12g}".lstrip("-0.")) <= 4
    again = np.random.default_rng(1)
    monkeypatch.setattr(spread.np.random, "default_rng", lambda seed: again)
    assert spread.unbiased(spread.unfairness, made) == pytest.approx(figure, rel=0.1)


def test_strata_are_halved_apart_and_too_small_ones_not_at_all() -> None:
    made, _ = world(np.random.default_rng(0), TRUTHS["small"], 40, 1)
    assert (spread._halves(np.repeat([0, 2], 20))[:, :20].sum(axis=1) == 10).all()
    few = replace(made, influence=made.influence[:3], strata=np.zeros(3, dtype=np.int64))
    assert spread.unbiased(spread.unfairness, few) == to_the_best(few)


@pytest.mark.parametrize(("truth", "count"), [("zero", 12), ("zero", 40), ("zero", 100), ("two, equal", 40)])
def test_the_floor_is_exceeded_in_one_of_twenty_worlds_without_unfairness(truth: str, count: int) -> None:
    exceeded = []
    for rng in np.random.default_rng(3).spawn(300):
        made, replicates = world(rng, TRUTHS[truth], count)
        floor = spread.noise_floor(spread.unfairness, made, replicates)
        assert floor is not None
        exceeded.append(spread.unbiased(spread.unfairness, made) > floor)
    assert np.mean(exceeded) <= 0.08


def test_the_floor_does_not_see_the_means() -> None:
    made, replicates = world(np.random.default_rng(0), TRUTHS["ties"], 40)
    moved = replace(made, value=made.value + np.arange(11.0))
    first = spread.noise_floor(spread.unfairness, made, replicates)
    assert spread.noise_floor(spread.unfairness, moved, replicates + np.arange(11.0)) == pytest.approx(first)
    assert spread.noise_floor(spread.unfairness, made, np.full((9, 11), np.nan)) is None
    assert spread.noise_floor(spread.unfairness, replace(made, fewest=1), replicates) is None
    assert spread.estimate(spread.unfairness, replace(made, fewest=1), replicates) == Estimate()


# --------------------------------------------------------------------------- changes

CHANGES = {
    "none": ("zero", "zero"),
    "ties": ("ties", "ties"),
    "to zero": ("one best", "zero"),
    "less": ("one best", "ties"),
    "two": ("two", "two, equal"),
}


def changed(rng: np.random.Generator, before: Array, after: Array, count: int) -> tuple[list[Joint], list[Array]]:
    """Two drafters on the same problems, alike in part."""
    shared = problems(rng, count) * lognormal(rng, 0.4, (count, len(before)))
    values = [means * shared * lognormal(rng, 0.3, (count, len(before))) for means in (before, after)]
    drawn, made = weights(rng, count, 300), [joint(each) for each in values]
    return made, [one.value + drawn @ one.influence for one in made]


def change_coverage(name: str, count: int, worlds: int) -> tuple[float, float]:
    """Of the change and of the relative one, which must not be given where U before is 0."""
    before, after = (TRUTHS[each] for each in CHANGES[name])
    first, second = float(spread.unfairness(before)), float(spread.unfairness(after))
    plain, relative = [], []
    for rng in np.random.default_rng(4).spawn(worlds):
        pair = changed(rng, before, after, count)
        plain.append(holds(spread.change(spread.unfairness, *pair), second - first))
        ratio = spread.change(spread.unfairness, *pair, relative=True)
        relative.append(ratio.value is None or (first > 0 and holds(ratio, second / first - 1)))
    return float(np.mean(plain)), float(np.mean(relative))


@pytest.mark.parametrize("count", [12, 40])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_held(name: str, count: int) -> None:
    plain, relative = change_coverage(name, count, 60)
    assert plain >= 0.88
    assert relative >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_held_in_a_thousand_worlds(name: str, count: int) -> None:
    plain, relative = change_coverage(name, count, 1000)
    assert plain >= (0.9 if count == 12 else 0.92)
    assert relative >= 0.88
