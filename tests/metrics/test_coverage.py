"""Do 95 % intervals hold the truth in 95 % of made-up worlds? One test a kind, each beside the mistake it must catch.

Accepted: 92–98 %, seeds fixed. Where a figure sits on the edge of what is possible (a true U of 0) only one side can
miss, so 97.5 % is nominal and more is no fault; simultaneous bounds of an extreme are conservative by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fairspec_bench.metrics import bootstrap, comparison, measure, unfairness
from fairspec_bench.metrics.bootstrap import Array, Partition
from fairspec_bench.metrics.measure import Measure, StatTable
from fairspec_bench.schemas.report import Estimate

SHARE = Measure("share", "", "1", "accepted / contexts", ("hits", "contexts"), high=1)
MEAN = Measure("mean", "", "nats", "Σ kl / contexts", ("kl", "contexts"))
RACE = Measure("speedup", "", "1", "plain / speculative", ("plain", "speculative"), crossed=True)


def holds(figure: Estimate, truth: float) -> bool:
    assert figure.low is not None
    assert figure.high is not None
    return figure.low <= truth <= figure.high


def coverage(worlds: int, world: Callable[[np.random.Generator], bool], seed: int = 0) -> float:
    generators = np.random.default_rng(seed).spawn(worlds)
    return sum(world(generator) for generator in generators) / worlds


def nominal(share: float) -> bool:
    return 0.92 <= share <= 0.98


# --------------------------------------------------------------------------- a ratio


def prompts(generator: np.random.Generator, count: int) -> StatTable:
    """Prompts of their own difficulty (mean .75) and length: contexts of one prompt are alike."""
    chance, contexts = generator.beta(6, 2, count), generator.integers(40, 120, count)
    columns = {"hits": generator.binomial(contexts, chance).astype(float), "contexts": contexts.astype(float)}
    return StatTable(np.arange(count), count, columns)


def share_holds(generator: np.random.Generator, count: int, *, percentile: bool) -> bool:
    sheet = prompts(generator, count)
    if percentile:
        low, high = bootstrap.percentile(
            measure.replicate([SHARE], sheet, 500, int(generator.integers(2**31)))["share"]
        )
        assert low is not None
        assert high is not None
        return low <= 0.75 <= high
    return holds(measure.estimate(SHARE, sheet), 0.75)


def test_ratio_of_few_clusters() -> None:
    assert nominal(coverage(1500, lambda g: share_holds(g, 6, percentile=False)))
    assert nominal(coverage(1500, lambda g: share_holds(g, 12, percentile=False)))


def test_percentiles_of_few_clusters_would_be_caught() -> None:
    assert coverage(1000, lambda g: share_holds(g, 6, percentile=True)) < 0.9


def test_ratio_of_many_clusters() -> None:
    def world(generator: np.random.Generator) -> bool:
        sheet = prompts(generator, 100)
        drawn = measure.replicate([SHARE], sheet, 500, int(generator.integers(2**31)))
        return holds(measure.estimate(SHARE, sheet, drawn["share"]), 0.75)

    assert nominal(coverage(1000, world))


def test_resampling_tokens_would_be_caught() -> None:
    def world(generator: np.random.Generator) -> bool:
        sheet = prompts(generator, 100)
        hits, contexts = sheet.columns["hits"].sum(), sheet.columns["contexts"].sum()
        drawn = generator.binomial(int(contexts), hits / contexts, 500) / contexts
        low, high = np.quantile(drawn, [0.025, 0.975])
        return bool(low <= 0.75 <= high)

    assert coverage(500, world) < 0.6


# --------------------------------------------------------------------------- a rare event, or one that never fails


def rare_holds(generator: np.random.Generator, count: int, chance: float, *, of_others: bool) -> bool:
    """`count` answers of which each has a flaw with this chance; `of_others`: the share that has none."""
    flawed = (generator.random(count) < chance).astype(float)
    hits = 1 - flawed if of_others else flawed
    sheet = StatTable(np.arange(count), count, {"hits": hits, "contexts": np.ones(count)})
    drawn = measure.replicate([SHARE], sheet, 300, int(generator.integers(2**31)))["share"]
    return holds(measure.estimate(SHARE, sheet, drawn), 1 - chance if of_others else chance)


RARE = [(12, 0.02), (12, 0.1), (60, 0.005), (60, 0.02), (60, 0.05)]


@pytest.mark.parametrize(("count", "chance"), RARE)
def test_a_share_of_nothing_or_everything_is_held(count: int, chance: float) -> None:
    for of_others in (False, True):
        assert coverage(300, lambda g, o=of_others: rare_holds(g, count, chance, of_others=o)) >= 0.92


def test_a_share_of_nothing_without_an_interval_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "unanimous", lambda clusters: 0.0)
    for count, chance in RARE[:4]:
        assert coverage(300, lambda g, n=count, c=chance: rare_holds(g, n, c, of_others=False)) < 0.75


def test_a_share_of_nothing_counts_problems_and_not_answers() -> None:
    """Six problems of ten answers each: the bound is that of 6, and values between 0 and 1 are no less bounded."""
    clusters = np.repeat(np.arange(6), 10)
    sheet = StatTable(clusters, 6, {"hits": np.zeros(60), "contexts": np.ones(60)})
    found = measure.estimate(SHARE, sheet)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 6))

    def world(generator: np.random.Generator) -> bool:
        hits = 10 * (generator.random(6) < 0.3) * generator.random(6)
        sheet = StatTable(np.arange(6), 6, {"hits": hits, "contexts": np.full(6, 10.0)})
        return bool(hits.any()) or holds(measure.estimate(SHARE, sheet), 0.15)

    assert coverage(300, world) == 1


def test_one_answer_says_nothing_of_a_share() -> None:
    sheet = StatTable(np.arange(1), 1, {"hits": np.zeros(1), "contexts": np.ones(1)})
    assert measure.estimate(SHARE, sheet) == Estimate(value=0.0)


# --------------------------------------------------------------------------- differences of two runs


def two_runs(
    generator: np.random.Generator, tasks: int, count: int
) -> tuple[dict[str, StatTable], dict[str, StatTable], Partition]:
    """Problems shared by tasks and runs; the second drafter's hits exceed the first's by .05 in every task."""
    shared = 0.6 + 0.2 * generator.random(count)
    before, after = {}, {}
    for task in map(str, range(tasks)):
        contexts = generator.integers(40, 120, count).astype(float)
        base = shared + 0.1 * generator.standard_normal(count)
        change = 0.05 + 0.03 * generator.standard_normal(count)
        before[task] = StatTable(np.arange(count), count, {"hits": base * contexts, "contexts": contexts})
        after[task] = StatTable(np.arange(count), count, {"hits": (base + change) * contexts, "contexts": contexts})
    clusters = [str(each) for each in range(count)]
    return before, after, bootstrap.partition(dict.fromkeys(before, clusters))


@pytest.mark.parametrize(("tasks", "count"), [(1, 12), (1, 60), (11, 12), (11, 60)])
def test_paired_differences_hold_together(tasks: int, count: int) -> None:
    def world(generator: np.random.Generator) -> bool:
        found = comparison._differences(SHARE, *two_runs(generator, tasks, count), 2000)
        return all(holds(figure, 0.05) for figure in found.values())

    assert nominal(coverage(400, world))


def test_one_interval_at_a_time_would_be_caught() -> None:
    def world(generator: np.random.Generator) -> bool:
        before, after, parts = two_runs(generator, 11, 60)
        found = [comparison._differences(SHARE, {t: before[t]}, {t: after[t]}, parts, 500)[t] for t in before]
        return all(holds(figure, 0.05) for figure in found)

    assert coverage(200, world) < 0.75


def test_unpaired_differences_would_be_caught() -> None:
    def world(generator: np.random.Generator) -> bool:
        before, after, _ = two_runs(generator, 1, 60)
        old, new = measure.linear(SHARE, before["0"]), measure.linear(SHARE, after["0"])
        assert old is not None
        assert new is not None
        errors = [bootstrap.spread(each.influence[:, None])[0][0] for each in (old, new)]
        return bool(abs(new.value - old.value - 0.05) <= 2 * np.hypot(*errors))

    assert coverage(300, world) > 0.98


# --------------------------------------------------------------------------- across tasks


def tasks_of(generator: np.random.Generator, means: Array, count: int) -> tuple[dict[str, StatTable], Partition]:
    """Tasks with these mean misfits over the same problems, hard ones hard in all: skewed, of uneven length."""
    shared = 0.15 * generator.standard_normal(count)
    sheets = {}
    for place, mean in enumerate(means):
        contexts = generator.integers(40, 120, count).astype(float)
        own = mean + 0.25 * (generator.gamma(2, 1, count) - 2) / np.sqrt(2) + shared
        sheets[str(place)] = StatTable(np.arange(count), count, {"kl": own * contexts, "contexts": contexts})
    clusters = [str(each) for each in range(count)]
    return sheets, bootstrap.partition(dict.fromkeys(sheets, clusters))


EQUAL = np.ones(11)
CLOSE = np.linspace(0.9, 1.05, 11)
SPREAD = np.linspace(0.8, 1.3, 11)
ONE_BEST = np.array([1.0, *[1.4] * 10])


def joint_of(generator: np.random.Generator, means: Array, count: int) -> measure.Joint:
    found = measure.joint(MEAN, *tasks_of(generator, means, count), shared=True)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [12, 60])
def test_pairwise_differences_hold_at_once(count: int) -> None:
    _, contrasts = unfairness.pairs(11)

    def world(generator: np.random.Generator) -> bool:
        bounds = joint_of(generator, SPREAD, count).bounds(contrasts, 500)
        assert bounds is not None
        truth = contrasts @ SPREAD
        return bool(((bounds[0] <= truth) & (truth <= bounds[1])).all())

    assert nominal(coverage(500, world))


def test_rank_ranges_of_tied_tasks() -> None:
    """All equal: any claim is false, and one is made in 5 % of worlds."""
    everyone = {str(place): (1, 11) for place in range(11)}
    assert nominal(coverage(500, lambda g: unfairness.rank_ranges(joint_of(g, EQUAL, 60), 500) == everyone))


def test_rank_ranges_of_distinct_tasks_hold_the_true_ranks() -> None:
    truth = {str(place): 11 - place for place in range(11)}
    narrow = []

    def world(generator: np.random.Generator) -> bool:
        found = unfairness.rank_ranges(joint_of(generator, SPREAD, 60), 500)
        narrow.append(np.mean([high - low for low, high in found.values()]))
        return all(low <= truth[task] <= high for task, (low, high) in found.items())

    assert coverage(300, world) >= 0.95
    assert np.mean(narrow) < 6


def test_ranks_from_single_intervals_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_largest", lambda *_: 1.96)
    everyone = {str(place): (1, 11) for place in range(11)}
    assert coverage(100, lambda g: unfairness.rank_ranges(joint_of(g, EQUAL, 60), 500) == everyone) < 0.75


@pytest.mark.parametrize("means", [CLOSE, SPREAD, ONE_BEST])
def test_extremes_are_held(means: Array) -> None:
    def world(generator: np.random.Generator) -> list[bool]:
        found = joint_of(generator, means, 60)
        return [
            holds(unfairness.worst(found, 500), means.min()),
            holds(unfairness.gap(found, 500), means.max() - means.min()),
            holds(unfairness.min_over_max(found, 500), means.min() / means.max()),
            holds(unfairness.max_over_min(found, 500), means.max() / means.min()),
        ]

    shares = np.mean([world(generator) for generator in np.random.default_rng(0).spawn(200)], axis=0)
    assert (shares >= 0.92).all()


# --------------------------------------------------------------------------- a race


def race_sheet(generator: np.random.Generator, count: int, rounds: int, drift: float) -> tuple[StatTable, float]:
    """Times with prompts of their own speed-up, and rounds in which a mode runs slower by `drift`; the true ratio."""
    wait = generator.gamma(9, 1 / 9, count)
    gain = 0.15 * generator.standard_normal(count)
    pace = np.exp(drift * generator.standard_normal((2, rounds)) - drift**2 / 2)
    noise = np.exp(0.03 * generator.standard_normal((2, count, rounds)) - 0.03**2 / 2)
    plain = wait[:, None] * pace[0] * noise[0]
    speculative = (wait * np.exp(gain - 0.15**2 / 2) / 1.4)[:, None] * pace[1] * noise[1]
    clusters, turns = np.divmod(np.arange(count * rounds), rounds)
    return StatTable(clusters, count, {"plain": plain.ravel(), "speculative": speculative.ravel()}, rounds, turns), 1.4


@pytest.mark.parametrize(
    ("count", "rounds", "drift"), [(50, 5, 0.05), (50, 5, 0.02), (50, 5, 0.0), (12, 5, 0.05), (50, 10, 0.05)]
)
def test_race_crosses_prompts_and_rounds(count: int, rounds: int, drift: float) -> None:
    def world(generator: np.random.Generator) -> bool:
        sheet, truth = race_sheet(generator, count, rounds, drift)
        return holds(measure.estimate(RACE, sheet), truth)

    assert nominal(coverage(800, world))


def test_a_race_of_prompts_only_would_be_caught() -> None:
    def world(generator: np.random.Generator) -> bool:
        sheet, truth = race_sheet(generator, 50, 5, 0.05)
        found = measure.linear(RACE, sheet)
        assert found is not None
        low, high = bootstrap.simultaneous(np.array([found.value]), found.influence.sum(axis=1)[:, None])
        return bool(low[0] <= truth <= high[0])

    assert coverage(300, world) < 0.85


def test_baseline_against_itself_covers_one() -> None:
    """A/A: the same loop twice, on a machine that drifts between them by 2 % a round."""

    def world(generator: np.random.Generator) -> bool:
        sheet, _ = race_sheet(generator, 50, 5, 0.05)
        pace = np.tile(np.exp(0.02 * generator.standard_normal(5)), 50)
        again = sheet.columns["plain"] * pace * np.exp(0.03 * generator.standard_normal(250))
        columns = {"plain": sheet.columns["plain"], "speculative": again}
        return holds(measure.estimate(RACE, replace(sheet, columns=columns)), 1.0)

    assert nominal(coverage(500, world))


def test_speedups_of_several_tasks_hold_at_once() -> None:
    _, contrasts = unfairness.pairs(5)

    def world(generator: np.random.Generator) -> bool:
        sheets = {str(place): race_sheet(generator, 50, 5, 0.02)[0] for place in range(5)}
        found = measure.joint(
            RACE, sheets, bootstrap.partition({task: map(str, range(50)) for task in sheets}), shared=True
        )
        assert found is not None
        bounds = found.bounds(contrasts, 500)
        assert bounds is not None
        return bool(((bounds[0] <= 0) & (bounds[1] >= 0)).all())

    assert nominal(coverage(400, world))
