"""Does a method reach prompts it was not trained on? Trained on one suite and scored on another; or without a language.

All scores are on test prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairspec_bench.experiments.compare_methods import RECIPE, fallen
from fairspec_bench.experiments.job_runner import DrafterJob, JobRunner, ScoringOptions
from fairspec_bench.metrics.trainings import Change, Run, Trainings, over_trainings
from fairspec_bench.mitigation.trainer import TrainingRecipe
from fairspec_bench.reporting.tables import cell, markdown_table
from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.io import write_atomic, write_record
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.options import ModelSpec

METHODS = ("s-cdf", "uniform")
SUITES = ("embedded_math", "embedded_story")
LEFT_OUT = ("th",)
SEEDS = (0, 1, 2)
RESULT, PAGE = "transfer.json", "transfer.md"


class SuiteTransfer(Record):
    """Trained on the prompts of one suite, scored on one."""

    method: str
    trained_on: str
    scored_on: str
    change: Trainings


class LanguageTransfer(Record):
    """The change of a language's acceptance when it was left out of training, and when it was included."""

    method: str
    language: str
    left_out: Change
    included: Change


class Transfer(Record):
    """Both kinds of transfer for one drafter."""

    verifier: str
    drafter: str
    seeds: tuple[int, ...]
    recipe: TrainingRecipe
    limit: int
    suites: tuple[SuiteTransfer, ...]
    languages: tuple[LanguageTransfer, ...]


def run_transfer(
    out: Path,
    *,
    verifier: ModelSpec,
    drafter: Path,
    cache: Path,
    methods: Sequence[str] = METHODS,
    suites: Sequence[str] = SUITES,
    left_out: Sequence[str] = LEFT_OUT,
    seeds: Sequence[int] = SEEDS,
    recipe: TrainingRecipe = RECIPE,
    limit: int = 40,
    training_limit: int = 80,
    languages: tuple[str, ...] | None = None,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> Transfer:
    """Train on each suite and without each language, score on all suites; written into `out`. Resumable."""
    scoring = ScoringOptions(suites=tuple(suites), limit=limit, training_limit=training_limit, languages=languages)
    runner = JobRunner(verifier, scoring, out, cache)

    def job(method: str, seed: int, suite: str, without: tuple[str, ...] = ()) -> DrafterJob:
        seeded = recipe.model_copy(update={"seed": seed})
        return DrafterJob(drafter=str(drafter), method=method, recipe=seeded, prompts=(suite,), left_out=without)

    jobs = {"base": DrafterJob(drafter=str(drafter))}
    jobs |= {_name(m, on, s): job(m, s, on) for m in methods for on in suites for s in seeds}
    jobs |= {
        _name(m, suites[0], s, language): job(m, s, suites[0], (language,))
        for m in methods
        for language in left_out
        for s in seeds
    }
    runner.run_all(jobs, workers, say)

    def change(method: str, trained_on: str, scored_on: str, without: str | None = None) -> Trainings:
        runs: list[tuple[Run, Run]] = [
            (runner.lines("base"), runner.lines(_name(method, trained_on, seed, without))) for seed in seeds
        ]
        return over_trainings(runs, scored_on)

    result = Transfer(
        verifier=verifier.name,
        drafter=drafter.name,
        seeds=tuple(seeds),
        recipe=recipe,
        limit=limit,
        suites=tuple(
            SuiteTransfer(method=m, trained_on=on, scored_on=scored, change=change(m, on, scored))
            for m in methods
            for on in suites
            for scored in suites
        ),
        languages=tuple(
            LanguageTransfer(
                method=m,
                language=language,
                left_out=change(m, suites[0], suites[0], language).acceptance[Task.of(suites[0], language)],
                included=change(m, suites[0], suites[0]).acceptance[Task.of(suites[0], language)],
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
    suites = [
        (
            one.method,
            one.trained_on,
            one.scored_on + ("" if one.trained_on == one.scored_on else " (not trained on)"),
            *(_both(one.change.across[name]) for name in ("mean_acceptance", "worst_acceptance", "unfairness")),
            fallen(one.change),
        )
        for one in result.suites
    ]
    languages = [
        (one.method, one.language, f"{one.included.before:.3f}", cell(one.left_out.change), cell(one.included.change))
        for one in result.languages
    ]
    suite_head = ("method", "trained on", "scored on", "mean acceptance", "worst acceptance", "U (nats²)", "↓")
    return f"""# Does it transfer?

Verifier `{result.verifier}`, drafter `{result.drafter}`; {len(result.seeds)} seeds; {result.recipe.steps} steps, rate
{result.recipe.rate:g}; scored by replay on {result.limit} test prompts a language. Before → after, and the 95 %
interval of the change over problems and seeds of this drafter. ↓ lists languages whose acceptance fell significantly;
a dash: no interval.

## Trained on one suite, scored on both

{markdown_table(suite_head, suites)}

## Trained without a language

The change of its acceptance (simultaneous over the languages) when it was left out, and when it was included.

{markdown_table(("method", "language", "acceptance before", "left out", "included"), languages)}
"""


def _both(change: Change) -> str:
    return f"{change.before:.3f} → {change.after:.3f}, change {cell(change.change)}"
