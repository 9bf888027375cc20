"""Mitigation methods compared fairly: the same data, steps and tuning for all, several trainings, fresh test prompts.

The rate of each trained method is the best of one grid by held-out cost, on the first drafter and seed; a grid whose
best lies at its edge is widened there. How many steps are kept is held-out cost's choice too. All figures are of test
prompts that no choice has seen, greedy and at temperature 1, where overlap is acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairspec_bench.experiments.job_runner import DrafterJob, JobRunner, ScoringOptions
from fairspec_bench.metrics.trainings import Change, Run, Trainings, over_trainings
from fairspec_bench.mitigation.methods import METHODS, Fitted
from fairspec_bench.mitigation.trainer import TrainingRecipe
from fairspec_bench.reporting.svg import Series, close_axis, log_axis, scatter
from fairspec_bench.reporting.tables import markdown_table
from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.io import write_atomic, write_record
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.options import ModelSpec
from fairspec_bench.schemas.report import Estimate

RECIPE = TrainingRecipe(steps=160, per_task=2, evaluate=20)
"""What every trained method gets, its rate apart: at most 160 steps, fewer where held-out cost no longer falls."""
RATES = (1e-3, 2e-3, 4e-3)
WIDENINGS = 3
"""How often a grid may be doubled or halved beyond its edge."""
ASCENTS = (0.003, 0.01, 0.03, 0.1)
"""Step sizes of group DRO's weights that are tried at its rate."""
COMPARED = tuple(name for name in METHODS if name != "natural")
SEEDS = (0,)
"""One: seeds of a drafter repeat each other closely, so that more drafters tell more."""
BASELINE = "s-cdf"
RESULT, PAGE, PLOT = "compare-methods.json", "compare-methods.md", "compare-methods.svg"


class MethodResult(Record):
    """One method: its rate, its change, and s-CDF against it (s-CDF − this method, paired by drafter and seed).

    `tuning` is the held-out cost of each rate tried; `ascent` the step size chosen for group DRO's weights.
    """

    method: str
    title: str
    task_aware: bool
    rate: float | None
    tuning: dict[str, float]
    change: Trainings
    against: Trainings | None
    ascent: float | None = None


class MethodComparison(Record):
    """The whole comparison; `drafters` are the bases in order, `recipe` what all trained methods share but the rate."""

    verifier: str
    drafters: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: TrainingRecipe
    rates: tuple[float, ...]
    limit: int
    methods: tuple[MethodResult, ...]
    front: tuple[str, ...]


def run_compare_methods(
    out: Path,
    *,
    verifier: ModelSpec,
    drafters: Mapping[str, Path],
    cache: Path,
    suite: str = "embedded_math",
    methods: Sequence[str] = COMPARED,
    seeds: Sequence[int] = SEEDS,
    rates: Sequence[float] = RATES,
    recipe: TrainingRecipe = RECIPE,
    limit: int = 40,
    training_limit: int = 80,
    languages: tuple[str, ...] | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> MethodComparison:
    """Compare the methods on every drafter and seed; figures, page and plot are written into `out`. Resumable."""
    scoring = ScoringOptions(suites=(suite,), limit=limit, training_limit=training_limit, languages=languages)
    runner = JobRunner(verifier, scoring, out, cache)
    grid = _Grid(drafters, tuple(seeds), recipe, suite)
    trained = [method for method in methods if not isinstance(METHODS[method], Fitted)]
    costs: dict[str, dict[float, float]] = {method: {} for method in trained}
    wanted = {method: list(rates) for method in trained}
    for _ in range(1 + WIDENINGS):
        _tune(runner, grid, wanted, costs, workers, say)
        wanted = {method: each for method in trained if (each := beyond(costs[method]))}
        if not wanted:
            break
    best = {method: min(found, key=found.__getitem__) for method, found in costs.items()}
    grids = dict.fromkeys(methods, grid)
    if "group-dro" in best:
        steps = {ascent: replace(grid, recipe=recipe.model_copy(update={"ascent": ascent})) for ascent in ASCENTS}
        found = {}
        for ascent, stepped in steps.items():
            cost: dict[str, dict[float, float]] = {"group-dro": {}}
            _tune(runner, stepped, {"group-dro": [best["group-dro"]]}, cost, workers, say)
            found[ascent] = cost["group-dro"][best["group-dro"]]
        grids["group-dro"] = steps[min(found, key=found.__getitem__)]
    jobs = {method: grids[method].jobs(method, best.get(method)) for method in methods}
    base = grid.base
    runner.run_all(base | {name: job for each in jobs.values() for name, job in each.items()}, workers, say)

    def change(before: Sequence[str], after: Sequence[str]) -> Trainings:
        names = [name.partition("/")[0] for name in before]
        runs: list[tuple[Run, Run]] = [
            (runner.lines(one), runner.lines(other)) for one, other in zip(before, after, strict=True)
        ]
        return over_trainings(runs, suite, drafters=names)

    results = []
    for method in methods:
        names, seeds_used = list(jobs[method]), seeds if method in best else seeds[:1]
        baseline = None
        if BASELINE in best and method != BASELINE:
            baseline = replace(grid, seeds=seeds_used).jobs(BASELINE, best[BASELINE])
        results.append(
            MethodResult(
                method=method,
                title=METHODS[method].title,
                task_aware=METHODS[method].task_aware,
                rate=best.get(method),
                tuning={f"{rate:g}": cost for rate, cost in sorted(costs.get(method, {}).items())},
                change=change([name for name in base for _ in seeds_used], names),
                against=change(names, list(baseline)) if baseline else None,
                ascent=grids[method].recipe.ascent if method == "group-dro" else None,
            )
        )
    comparison = MethodComparison(
        verifier=verifier.name,
        drafters=tuple(drafters),
        seeds=tuple(seeds),
        recipe=recipe,
        rates=tuple(rates),
        limit=limit,
        methods=tuple(results),
        front=front(results),
    )
    write_record(out / RESULT, comparison)
    write_atomic(out / PAGE, page(comparison))
    write_atomic(out / PLOT, plot(comparison))
    return comparison


def beyond(costs: Mapping[float, float]) -> list[float]:
    """The rate to try next where the best lies at an edge of those tried, twice or half of it; else none."""
    best = min(costs, key=costs.__getitem__)
    return [2 * best] * (best == max(costs)) or [best / 2] * (best == min(costs))


def _tune(
    runner: JobRunner,
    grid: _Grid,
    rates: Mapping[str, Sequence[float]],
    costs: dict[str, dict[float, float]],
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Add the held-out cost of each method's rates to `costs`."""
    tried = {(method, rate): grid.first(method, rate) for method, each in rates.items() for rate in each}
    results = runner.run_all({name: job for each in tried.values() for name, job in each.items()}, workers, say)
    for (method, rate), jobs in tried.items():
        for name in jobs:
            if after := results[name].after:
                costs[method][rate] = after.cost


@dataclass(frozen=True)
class _Grid:
    """The jobs of the comparison by name, drafter by drafter and then seed by seed."""

    drafters: Mapping[str, Path]
    seeds: Sequence[int]
    recipe: TrainingRecipe
    suite: str

    @property
    def base(self) -> dict[str, DrafterJob]:
        """Each drafter as it is."""
        return {f"{name}/base": DrafterJob(drafter=str(folder)) for name, folder in self.drafters.items()}

    def first(self, method: str, rate: float) -> dict[str, DrafterJob]:
        """A trained method on the first drafter and seed: where its rate is chosen."""
        name, folder = next(iter(self.drafters.items()))
        return replace(self, drafters={name: folder}, seeds=self.seeds[:1]).jobs(method, rate)

    def jobs(self, method: str, rate: float | None) -> dict[str, DrafterJob]:
        """Every drafter × seed. A fit, whose rate is `None`, has no seed."""
        made = {}
        for name, folder in self.drafters.items():
            job = DrafterJob(drafter=str(folder), method=method, prompts=(self.suite,))
            if rate is None:
                made[f"{name}/{method}"] = job
                continue
            for seed in self.seeds:
                recipe = self.recipe.model_copy(update={"seed": seed, "rate": rate})
                ascent = f"-ascent{recipe.ascent:g}" if method == "group-dro" else ""
                made[f"{name}/{method}/seed{seed}-rate{rate:g}{ascent}"] = job.model_copy(update={"recipe": recipe})
        return made


def front(methods: Sequence[MethodResult]) -> tuple[str, ...]:
    """The methods that no other beats in both mean acceptance and U, by their point figures."""
    points = {one.method: _point(one.change) for one in methods if "unfairness" in one.change.across}
    return tuple(
        method
        for method, (mean, u) in points.items()
        if not any(m >= mean and v <= u and (m, v) != (mean, u) for m, v in points.values())
    )


def _point(change: Trainings) -> tuple[float, float]:
    return change.across["mean_acceptance"].after, change.across["unfairness"].after


# --------------------------------------------------------------------------- the page


def page(result: MethodComparison) -> str:
    """The comparison as Markdown."""
    first = result.methods[0].change
    trainings = len(result.drafters) * len(result.seeds)
    head = (
        "method",
        "rate",
        "mean acceptance",
        "U (nats²)",
        "relative U",
        "variance of acceptance",
        "worst",
        "best",
        "gap",
        "mean at T = 1",
        "worst at T = 1",
    )
    rows = [_row(one, one.method in result.front) for one in result.methods]
    tasks = list(first.acceptance)
    by_task = [
        [one.method, *(f"{_signed(one.change.acceptance[task].change, 3)}" for task in tasks)] for one in result.methods
    ]
    against = [_against(one) for one in result.methods if one.against]
    drafters, seeds = ", ".join(result.drafters), ", ".join(map(str, result.seeds))
    rates = ", ".join(f"{rate:g}" for rate in result.rates)
    return f"""# Mitigation methods compared on the same budget

Verifier `{result.verifier}`; drafters {drafters}; seeds {seeds}: {trainings} trainings a method
(a fit has no seed: one a drafter). At most {result.recipe.steps} steps of {result.recipe.per_task} examples a task;
rate from {{{rates}}}, widened where the best lies at an edge, by held-out cost on the first drafter and seed. Scored by
replay on {result.limit} test prompts a task, which no choice has seen. The drafters differ in which languages they were
trained on most.

Figures are means over trainings, after the method; in brackets the 95 % interval of the *change*, which covers other
problems and other drafters: the seeds of a drafter are averaged first. *Relative* is the geometric mean over drafters.
U and variances are corrected for noise. **Front**: no other method has both a higher mean and a lower U, by the
figures alone. *Task-aware* methods need each prompt's task when the drafter is used. ↓ lists tasks that fell
significantly on average over drafters; the task of highest acceptance differs by drafter, so read *best* beside it:
where it falls, a drafter's best language lost. A dash: no interval.

*Gap* is the best task's block efficiency (tokens per verifier call, γ = 4) minus the worst's: what is left of the
spread of speed-ups before any clock. *At T = 1*: overlap, which is acceptance under sampling at temperature 1; the
other acceptances are greedy, where a drafter's temperature cannot act. Noise alone gives a U above {_floors(result)}
nats² in 5 % of cases; within it nothing is ranked.

![Mean acceptance and U of every method]({PLOT})

{markdown_table([*head, "levelled down ↓"], rows)}

## Change of acceptance by task, simultaneous intervals within a row

{markdown_table(["method", *(Task(task).language for task in tasks)], by_task)}

## s-CDF against each: s-CDF − other, paired by drafter and seed

{markdown_table(["other", "mean acceptance", "U (nats²)", "variance of acceptance", "verdict"], against)}
"""


def _floors(result: MethodComparison) -> str:
    known = [one.change.noise_floor for one in result.methods if one.change.noise_floor is not None]
    return f"{min(known):.4f} to {max(known):.4f}" if known else "–"


def _row(one: MethodResult, on_front: bool) -> list[str]:
    across, names = one.change.across, ("mean_acceptance", "unfairness", "acceptance_variance")
    mean, u, variance = (across.get(name) for name in names)
    label = f"**{one.method}** (front)" if on_front else one.method
    return [
        label + " · task-aware" * one.task_aware,
        "–" if one.rate is None else f"{one.rate:g}",
        _figure(mean, 3),
        _figure(u, 3),
        "–" if u is None else _signed(u.relative, 2, percent=True),
        _figure(variance, 4),
        _figure(across["worst_acceptance"], 3),
        _figure(across["best_acceptance"], 3),
        _figure(across["block_efficiency_gap"], 2),
        _figure(across.get("mean_overlap"), 3),
        _figure(across.get("worst_overlap"), 3),
        fallen(one.change),
    ]


def fallen(change: Trainings) -> str:
    """The languages that fell significantly; a dash where no interval says so."""
    if all(each.change.low is None for each in change.acceptance.values()):
        return "–"
    return ", ".join(Task(task).language for task in change.levelled_down) or "none"


def _against(one: MethodResult) -> list[str]:
    assert one.against is not None
    across = one.against.across
    mean, u = across["mean_acceptance"].change, across["unfairness"].change if "unfairness" in across else None
    variance = across["acceptance_variance"].change
    return [one.method, _signed(mean, 3), _signed(u, 3), _signed(variance, 4), verdict(mean, u)]


def verdict(mean: Estimate, u: Estimate | None) -> str:
    """What s-CDF − other says in words, by whether the intervals exclude 0."""
    words = [
        f"{name} {'better' if _sign(figure) * good > 0 else 'worse' if _sign(figure) else 'tied'}"
        for name, figure, good in (("mean", mean, 1), ("fairness", u, -1))
        if figure is not None
    ]
    return f"s-CDF: {', '.join(words)}"


def _sign(figure: Estimate) -> int:
    if figure.low is None or figure.high is None:
        return 0
    return 1 if figure.low > 0 else -1 if figure.high < 0 else 0


def _figure(change: Change | None, digits: int) -> str:
    return "–" if change is None else f"{change.after:.{digits}f} [{_interval(change.change, digits)}]"


def _interval(figure: Estimate, digits: int) -> str:
    return "no interval" if figure.low is None else f"{figure.low:+.{digits}f}, {figure.high:+.{digits}f}"


def _signed(figure: Estimate | None, digits: int, *, percent: bool = False) -> str:
    if figure is None or figure.value is None:
        return "–"
    scale, unit, digits = (100, " %", 0) if percent else (1, "", digits)
    parts = [each * scale for each in (figure.value, figure.low, figure.high) if each is not None]
    text = [f"{each:+.{digits}f}" for each in parts]
    return f"{text[0]}{unit}" + (f" [{', '.join(text[1:])}]" if len(text) == 3 else "")


# --------------------------------------------------------------------------- the plot


def plot(result: MethodComparison) -> str:
    """Mean acceptance across, U down on a logarithmic scale, the Pareto front joined; an SVG that stands alone."""
    drawn = {one.method: one.change for one in result.methods if "unfairness" in one.change.across}
    points = {name: _point(change) for name, change in drawn.items()}
    base = next(iter(drawn.values())).across
    points["before"] = (base["mean_acceptance"].before, base["unfairness"].before)
    floor = max((change.noise_floor or 0.0 for change in drawn.values()), default=0.0)
    return scatter(
        "Mean acceptance and U of every method",
        "Right is faster, down is fairer. Filled: no other is both. Figures and intervals stand in the table.",
        close_axis("mean acceptance", [mean for mean, _ in points.values()]),
        log_axis("U (nats²)", [*(u for _, u in points.values()), floor]),
        [Series(name, [point], hollow=name not in result.front) for name, point in points.items()],
        joined=sorted((points[name] for name in result.front), reverse=True),
        threshold=(floor, "noise floor"),
        height=460,
    )
