"""A fair comparison of remedies: the same texts, steps and tuning for all, several trainings, judged on fresh prompts.

Knows which jobs that takes and how the table reads. The rate of each method is the best of one small grid by held-out
cost, on the first drafter and seed; all figures are of test prompts that no choice has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from fairspec_bench.measure.trainings import Change, Run, Trainings, over_trainings
from fairspec_bench.mitigation.methods import METHODS, Fitted
from fairspec_bench.mitigation.trainer import Recipe
from fairspec_bench.records import Estimate, Record, write_atomic, write_record
from fairspec_bench.score.prepare import ModelAsk
from fairspec_bench.studies.workshop import Job, Outcome, Workshop, best_rate

BUDGET = Recipe(steps=40, per_task=2, evaluate=20)
"""What every trained method gets, its rate apart: short, because 12 methods × 9 trainings must fit an hour."""
RATES = (1e-3, 2e-3, 4e-3)
CHOSEN = tuple(name for name in METHODS if name != "natural")
SEEDS = (0, 1, 2)
REFERENCE = "s-cdf"
RESULT, PAGE, PLANE = "rivals.json", "rivals.md", "rivals.svg"


class Rival(Record):
    """One method: its rate, what it did, and s-CDF against it (s-CDF − this method, paired by drafter and seed)."""

    method: str
    title: str
    task_aware: bool
    rate: float | None
    tuning: dict[str, float]
    change: Trainings
    against: Trainings | None


class Rivals(Record):
    """The whole comparison; `drafters` are the bases in order, `recipe` what all trained methods share but the rate."""

    verifier: str
    drafters: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    rates: tuple[float, ...]
    limit: int
    rivals: tuple[Rival, ...]
    front: tuple[str, ...]


def run_rivals(
    out: Path,
    *,
    verifier: ModelAsk,
    drafters: Mapping[str, Path],
    cache: Path,
    suite: str = "embedded_math",
    chosen: Sequence[str] = CHOSEN,
    seeds: Sequence[int] = SEEDS,
    rates: Sequence[float] = RATES,
    recipe: Recipe = BUDGET,
    limit: int = 40,
    training_limit: int = 80,
    languages: tuple[str, ...] | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> Rivals:
    """Compare the methods on every drafter and seed; results, table and plane are written into `out`. Resumable."""
    shop = Workshop(verifier, (suite,), out, cache, limit, training_limit, languages)
    tuned = _tune(shop, next(iter(drafters.items())), chosen, seeds[0], rates, recipe, suite, workers, say)
    jobs = {f"{name}/base": Job(drafter=str(folder)) for name, folder in drafters.items()}
    for method in chosen:
        jobs |= _jobs(method, drafters, seeds, tuned.get(method), recipe, suite)
    shop.do_all(jobs, workers, say)
    found = tuple(_rival(shop, method, list(drafters), seeds, tuned, suite) for method in chosen)
    result = Rivals(
        verifier=verifier.name,
        drafters=tuple(drafters),
        seeds=tuple(seeds),
        recipe=recipe,
        rates=tuple(rates),
        limit=limit,
        rivals=found,
        front=front(found),
    )
    write_record(out / RESULT, result)
    write_atomic(out / PAGE, page(result))
    write_atomic(out / PLANE, plane(result))
    return result


def _tune(
    shop: Workshop,
    drafter: tuple[str, Path],
    chosen: Sequence[str],
    seed: int,
    rates: Sequence[float],
    recipe: Recipe,
    suite: str,
    workers: int,
    say: Callable[[str], None],
) -> dict[str, tuple[float, dict[str, float]]]:
    """By trained method: the best rate, and every rate's held-out cost."""
    name, folder = drafter
    grid = [(method, rate) for method in chosen if not isinstance(METHODS[method], Fitted) for rate in rates]
    jobs = {_name(name, m, seed, rate): _job(folder, m, seed, rate, recipe, suite) for m, rate in grid}
    outcomes = shop.do_all(jobs, workers, say)
    found = {}
    for method in dict.fromkeys(m for m, _ in grid):
        tried: list[tuple[float, Outcome]] = [(rate, outcomes[_name(name, method, seed, rate)]) for rate in rates]
        costs = {f"{rate:g}": outcome.after.cost for rate, outcome in tried if outcome.after}
        found[method] = best_rate(tried), costs
    return found


def _jobs(
    method: str,
    drafters: Mapping[str, Path],
    seeds: Sequence[int],
    tuned: tuple[float, dict[str, float]] | None,
    recipe: Recipe,
    suite: str,
) -> dict[str, Job]:
    """Every drafter × seed; a fit has no seed."""
    if tuned is None:
        return {
            f"{name}/{method}": Job(drafter=str(folder), method=method, prompts=(suite,))
            for name, folder in drafters.items()
        }
    rate = tuned[0]
    return {
        _name(name, method, seed, rate): _job(folder, method, seed, rate, recipe, suite)
        for name, folder in drafters.items()
        for seed in seeds
    }


def _job(folder: Path, method: str, seed: int, rate: float, recipe: Recipe, suite: str) -> Job:
    return Job(
        drafter=str(folder),
        method=method,
        recipe=recipe.model_copy(update={"seed": seed, "rate": rate}),
        prompts=(suite,),
    )


def _name(drafter: str, method: str, seed: int, rate: float) -> str:
    return f"{drafter}/{method}/seed{seed}-rate{rate:g}"


def _after(method: str, drafters: Sequence[str], seeds: Sequence[int], rate: float | None) -> list[str]:
    """Names of a method's jobs by drafter and seed; a fit, which has no seed, stands once for each of them."""
    return [
        f"{name}/{method}" if rate is None else _name(name, method, seed, rate) for name in drafters for seed in seeds
    ]


def _rival(
    shop: Workshop,
    method: str,
    drafters: Sequence[str],
    seeds: Sequence[int],
    tuned: Mapping[str, tuple[float, dict[str, float]]],
    suite: str,
) -> Rival:
    rate, tuning = tuned.get(method, (None, {}))
    many = seeds if method in tuned else seeds[:1]
    mended = _after(method, drafters, many, rate)
    bases = [f"{name}/base" for name in drafters for _ in many]
    against = None
    if REFERENCE in tuned and method != REFERENCE:
        ours = _after(REFERENCE, drafters, many, tuned[REFERENCE][0])
        against = over_trainings(_runs(shop, mended, ours), suite)
    return Rival(
        method=method,
        title=METHODS[method].title,
        task_aware=METHODS[method].task_aware,
        rate=rate,
        tuning=tuning,
        change=over_trainings(_runs(shop, bases, mended), suite),
        against=against,
    )


def _runs(shop: Workshop, before: Sequence[str], after: Sequence[str]) -> list[tuple[Run, Run]]:
    return [(shop.run(one), shop.run(other)) for one, other in zip(before, after, strict=True)]


def front(rivals: Sequence[Rival]) -> tuple[str, ...]:
    """The methods that no other beats in both mean acceptance and U, by their point figures."""
    points = {
        rival.method: (one["mean_acceptance"].after, one["unfairness"].after)
        for rival in rivals
        if "unfairness" in (one := rival.change.across)
    }
    return tuple(
        method
        for method, (mean, u) in points.items()
        if not any(m >= mean and v <= u and (m, v) != (mean, u) for m, v in points.values())
    )


# --------------------------------------------------------------------------- the page


def page(result: Rivals) -> str:
    """The comparison as Markdown."""
    first = result.rivals[0].change
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
    )
    rows = [_row(rival, rival.method in result.front) for rival in result.rivals]
    tasks = list(first.acceptance)
    by_task = [
        [rival.method, *(f"{_signed(rival.change.acceptance[task].change, 3)}" for task in tasks)]
        for rival in result.rivals
    ]
    against = [_against(rival) for rival in result.rivals if rival.against]
    drafters, seeds = ", ".join(result.drafters), ", ".join(map(str, result.seeds))
    rates = ", ".join(f"{rate:g}" for rate in result.rates)
    return f"""# Remedies compared on the same budget

Verifier `{result.verifier}`; drafters {drafters}; seeds {seeds}: {trainings} trainings a method
(a fit has no seed: one a drafter). {result.recipe.steps} steps of {result.recipe.per_task} texts a task; rate from
{{{rates}}} by held-out cost on the first drafter and seed. Scored by replay on {result.limit} test prompts a task,
which no choice has seen. The drafters differ in which languages they were trained on most.

Figures are means over trainings, after the method; in brackets the 95 % interval of the *change*, which covers other
problems and other trainings. U and variances are corrected for noise. **Front**: no other method has both a higher mean
and a lower U. *Task-aware* methods must be told each prompt's task when used. ↓ lists tasks that surely fell on average
over drafters; which task is served best differs by drafter, so read *best* beside it: where it falls, a drafter's
best-served language paid.

*Gap* is the best task's block efficiency (tokens per verifier call, γ = 4) minus the worst's: what is left of the
spread of speed-ups before any clock. Noise alone would give a U of {_floors(result)} nats²; within it nothing is
ranked.

![Mean acceptance and U of every remedy](rivals.svg)

{_table([*head, "levelled down ↓"], rows)}

## Change of acceptance by task, simultaneous intervals within a row

{_table(["method", *(task.rpartition("/")[2] for task in tasks)], by_task)}

## s-CDF against each: s-CDF − other, paired by drafter and seed

{_table(["other", "mean acceptance", "U (nats²)", "variance of acceptance", "verdict"], against)}
"""


def _floors(result: Rivals) -> str:
    known = [rival.change.noise_floor for rival in result.rivals if rival.change.noise_floor is not None]
    return f"{min(known):.4f} to {max(known):.4f}" if known else "–"


def _row(rival: Rival, on_front: bool) -> list[str]:
    across, names = rival.change.across, ("mean_acceptance", "unfairness", "acceptance_variance")
    mean, u, variance = (across.get(name) for name in names)
    label = f"**{rival.method}** (front)" if on_front else rival.method
    return [
        label + " · task-aware" * rival.task_aware,
        "–" if rival.rate is None else f"{rival.rate:g}",
        _figure(mean, 3),
        _figure(u, 3),
        "–" if u is None else _signed(u.relative, 2, percent=True),
        _figure(variance, 4),
        _figure(across["worst_acceptance"], 3),
        _figure(across["best_acceptance"], 3),
        _figure(across["block_efficiency_gap"], 2),
        ", ".join(task.rpartition("/")[2] for task in rival.change.levelled_down) or "none",
    ]


def _against(rival: Rival) -> list[str]:
    assert rival.against is not None
    across = rival.against.across
    mean, u = across["mean_acceptance"].change, across["unfairness"].change if "unfairness" in across else None
    variance = across["acceptance_variance"].change
    return [rival.method, _signed(mean, 3), _signed(u, 3), _signed(variance, 4), verdict(mean, u)]


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --------------------------------------------------------------------------- the plane

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 460, 60, 150, 20, 50


def plane(result: Rivals) -> str:
    """Mean acceptance across, U down on a logarithmic scale, the Pareto front joined; an SVG that stands alone."""
    drawn = {r.method: r.change for r in result.rivals if "unfairness" in r.change.across}
    points = {name: _point(change) for name, change in drawn.items()}
    base = next(iter(drawn.values()))
    points["before"] = (base.across["mean_acceptance"].before, base.across["unfairness"].before)
    xs, ys = ([point[axis] for point in points.values()] for axis in (0, 1))
    left, right = min(xs) - 0.01, max(xs) + 0.01
    floor = max((change.noise_floor or 0.0 for change in drawn.values()), default=0.0)
    low, high = math.log10(max(min([*ys, floor or min(ys)]) * 0.8, 1e-6)), math.log10(max(ys) * 1.25)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - left) / (right - left)
        share = (math.log10(max(point[1], 10**low)) - low) / (high - low)
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    front = sorted((points[name] for name in result.front), reverse=True)
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, front))
    y = place((left, floor))[1]
    body = [
        f'<polyline points="{joined}" fill="none" stroke="currentColor" stroke-dasharray="4 3" opacity=".5"/>',
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#b45309"/>',
        f'<text x="{LEFT + 4}" y="{y - 4:.1f}" fill="#b45309">noise floor</text>',
    ]
    free = -math.inf
    for name, point in sorted(points.items(), key=lambda item: place(item[1])[1]):
        x, y = place(point)
        free = max(y, free + 13)
        fill = "#0369a1" if name in result.front else "none"
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="#0369a1"><title>{escape(name)}: mean '
            f"acceptance {point[0]:.3f}, U {point[1]:.3f} nats²</title></circle>"
            f'<line x1="{x + 5:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT + 4}" y2="{free:.1f}" stroke="currentColor" '
            f'opacity=".2"/><text x="{WIDTH - RIGHT + 6}" y="{free + 4:.1f}">{escape(name)}</text>'
        )
    body += _scales(left, right, low, high, place)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="12" '
        'font-family="system-ui, sans-serif" fill="currentColor"><title>Mean acceptance and U of every remedy</title>'
        "<desc>Right is faster, down is fairer. Filled: no other is both. Figures and intervals stand in the table."
        f"</desc>{''.join(body)}</svg>\n"
    )


def _point(change: Trainings) -> tuple[float, float]:
    return change.across["mean_acceptance"].after, change.across["unfairness"].after


def _scales(
    left: float, right: float, low: float, high: float, place: Callable[[tuple[float, float]], tuple[float, float]]
) -> list[str]:
    bottom = HEIGHT - BOTTOM
    ticks = [step / 50 for step in range(math.ceil(left * 50), math.floor(right * 50) + 1)]
    parts = [
        f'<text x="{place((tick, 1.0))[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.2f}</text>'
        for tick in ticks
    ]
    for power in range(math.ceil(low), math.floor(high) + 1):
        y = place((left, 10.0**power))[1]
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">mean acceptance</text>')
    parts.append(f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})">U, nats² (log)</text>')
    return parts
