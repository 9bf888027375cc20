"""Does a remedy reach what it never saw? Mended on one suite's prompts and scored on another; or without a language.

Knows which jobs that takes and how the table reads. All scores are on test prompts; what was trained on and what was
not stands beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairspec_bench.measure.show import cell
from fairspec_bench.measure.trainings import Change, Run, Trainings, over_trainings
from fairspec_bench.mitigation.trainer import Recipe
from fairspec_bench.records import Record, write_atomic, write_record
from fairspec_bench.score.prepare import ModelAsk
from fairspec_bench.studies.rivals import BUDGET
from fairspec_bench.studies.workshop import Job, Workshop

METHODS = ("s-cdf", "uniform")
SUITES = ("embedded_math", "embedded_story")
LEFT_OUT = ("th",)
SEEDS = (0, 1, 2)
RESULT, PAGE = "transfer.json", "transfer.md"


class Across(Record):
    """Mended on `mended_on`, scored on `scored_on`."""

    method: str
    mended_on: str
    scored_on: str
    change: Trainings


class Without(Record):
    """Mended on every language but one: that language's change of acceptance, and what it is when it is there too."""

    method: str
    language: str
    left_out: Change
    there: Change


class Transfer(Record):
    """Both kinds of transfer for one drafter."""

    verifier: str
    drafter: str
    seeds: tuple[int, ...]
    recipe: Recipe
    limit: int
    across: tuple[Across, ...]
    without: tuple[Without, ...]


def run_transfer(
    out: Path,
    *,
    verifier: ModelAsk,
    drafter: Path,
    cache: Path,
    methods: Sequence[str] = METHODS,
    suites: Sequence[str] = SUITES,
    left_out: Sequence[str] = LEFT_OUT,
    seeds: Sequence[int] = SEEDS,
    recipe: Recipe = BUDGET,
    limit: int = 40,
    training_limit: int = 80,
    languages: tuple[str, ...] | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> Transfer:
    """Mend on each suite and without each language, score on all suites; written into `out`. Resumable."""
    shop = Workshop(verifier, tuple(suites), out, cache, limit, training_limit, languages)

    def job(method: str, seed: int, suite: str, without: tuple[str, ...] = ()) -> Job:
        seeded = recipe.model_copy(update={"seed": seed})
        return Job(drafter=str(drafter), method=method, recipe=seeded, prompts=(suite,), left_out=without)

    jobs = {"base": Job(drafter=str(drafter))}
    jobs |= {_name(m, on, s): job(m, s, on) for m in methods for on in suites for s in seeds}
    jobs |= {
        _name(m, suites[0], s, language): job(m, s, suites[0], (language,))
        for m in methods
        for language in left_out
        for s in seeds
    }
    shop.do_all(jobs, workers, say)

    def change(method: str, mended_on: str, scored_on: str, without: str | None = None) -> Trainings:
        pairs: list[tuple[Run, Run]] = [
            (shop.run("base"), shop.run(_name(method, mended_on, seed, without))) for seed in seeds
        ]
        return over_trainings(pairs, scored_on)

    result = Transfer(
        verifier=verifier.name,
        drafter=drafter.name,
        seeds=tuple(seeds),
        recipe=recipe,
        limit=limit,
        across=tuple(
            Across(method=m, mended_on=on, scored_on=scored, change=change(m, on, scored))
            for m in methods
            for on in suites
            for scored in suites
        ),
        without=tuple(
            Without(
                method=m,
                language=language,
                left_out=change(m, suites[0], suites[0], language).acceptance[f"{suites[0]}/{language}"],
                there=change(m, suites[0], suites[0]).acceptance[f"{suites[0]}/{language}"],
            )
            for m in methods
            for language in left_out
        ),
    )
    write_record(out / RESULT, result)
    write_atomic(out / PAGE, page(result))
    return result


def _name(method: str, suite: str, seed: int, without: str | None = None) -> str:
    return f"{method}/{suite}{f'-without-{without}' if without else ''}/seed{seed}"


def page(result: Transfer) -> str:
    """Both tables as Markdown."""
    seen = {True: "", False: " (never seen)"}
    across = [
        f"| {one.method} | {one.mended_on} | {one.scored_on}{seen[one.mended_on == one.scored_on]} "
        f"| {_both(one.change.across['mean_acceptance'])} | {_both(one.change.across['worst_acceptance'])} "
        f"| {_both(one.change.across['unfairness'])} | {_fallen(one.change)} |"
        for one in result.across
    ]
    without = [
        f"| {one.method} | {one.language} | {one.there.before:.3f} "
        f"| {cell(one.left_out.change)} | {cell(one.there.change)} |"
        for one in result.without
    ]
    lines = "\n".join
    return f"""# Does it transfer?

Verifier `{result.verifier}`, drafter `{result.drafter}`; {len(result.seeds)} seeds; {result.recipe.steps} steps, rate
{result.recipe.rate:g}; scored by replay on {result.limit} test prompts a language. Before → after, and the 95 %
interval of the change over problems and trainings. ↓ lists languages whose acceptance surely fell.

## Mended on one suite, scored on both

| method | mended on | scored on | mean acceptance | worst acceptance | U (nats²) | ↓ |
|---|---|---|---|---|---|---|
{lines(across)}

## Mended without a language

Its change of acceptance (simultaneous over the languages) when it was left out, and when it was there.

| method | language | acceptance before | left out | there |
|---|---|---|---|---|
{lines(without)}
"""


def _both(change: Change) -> str:
    return f"{change.before:.3f} → {change.after:.3f}, change {cell(change.change)}"


def _fallen(change: Trainings) -> str:
    return ", ".join(task.rpartition("/")[2] for task in change.levelled_down) or "none"
