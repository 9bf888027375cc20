"""From a run's lines to what they mean: the typed report.

Knows which room answers what and which words must stand beside a figure. The same lines, in any order, give the same
report to the byte: figures are published to 8 significant digits, beyond which the order of a sum shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from fairspec_bench.measure import acceptance, bootstrap, enough, speed, unfairness, validity
from fairspec_bench.measure.bootstrap import Array
from fairspec_bench.measure.catalogue import measures, measures_of
from fairspec_bench.measure.compare import compare_runs
from fairspec_bench.measure.frames import report_frame
from fairspec_bench.measure.lines import Book, Lines, open_book, race_sheet, suite_of, suite_sheets, task_of
from fairspec_bench.measure.show import render
from fairspec_bench.measure.sweep import sweep_report
from fairspec_bench.measure.table import Joint, Sheet, estimate, joint, published, replicate
from fairspec_bench.measure.unfairness import ACROSS, Evidence
from fairspec_bench.records import (
    SERVED,
    Environment,
    Estimate,
    Report,
    RunConfig,
    SuiteConfig,
    SuiteReport,
    TaskReport,
)

__all__ = ["Lines", "build_report", "compare_runs", "render", "report_frame"]

SPREADS = ("misfit", "misfit_ce", "acceptance")


def build_report(
    config: RunConfig,
    environments: Sequence[Environment],
    lines: Lines,
    *,
    replicates: int = 10_000,
    seed: int = 0,
) -> Report:
    """The report of a run's lines. Raises `FairspecError` for lines that contradict each other."""
    book = open_book(config, lines)
    control = control_ratio(book)
    rounds = len({timing.round for timing in book.timings})
    quiet = speed.covers_one(control)
    suites = tuple(_suite_report(book, suite, quiet, replicates, seed) for suite in config.suites)
    return Report(
        config=config,
        environments=tuple(environments),
        suites=tuple(suite for suite, _ in suites),
        replicates=replicates,
        bootstrap_seed=seed,
        race_verdict=speed.race_verdict(control, rounds),
        notes=(*_run_notes(book), *(note for _, notes in suites for note in notes)),
    )


def control_ratio(book: Book) -> Estimate:
    """The A/A ratio over the whole race: every prompt of every task against the same baseline again.

    It is about the clock, which does not know that two prompts are one problem in two languages: prompts stand alone.
    """
    raced = speed.race(book.timings)
    parts = bootstrap.partition({"race": raced.keys})
    measure = measures(book.config.gamma)["control_ratio"]
    return published(estimate(measure, race_sheet(raced, raced.keys, parts, "race")))


def _suite_report(
    book: Book, suite: SuiteConfig, quiet: bool, replicates: int, seed: int
) -> tuple[SuiteReport, tuple[str, ...]]:
    sheets = suite_sheets(book, suite)
    gamma = book.config.gamma
    given, joint_, swept = acceptance.position_measures(gamma, book.config.gammas)
    table = {each.name: each for each in (*measures_of(book.config).values(), *given, *joint_, *swept.values())}
    off_race = [each for each in table.values() if not each.crossed]
    figures: dict[str, dict[str, Estimate]] = {}
    drawn: dict[str, dict[str, Array]] = {}
    for task, sheet in sheets.prompts.items():
        stars = replicate(off_race, sheet, replicates, (seed, sheets.parts.stratum[task]))
        figures[task] = {
            name: published(estimate(each, sheets.of(each)[task], stars.get(name))) for name, each in table.items()
        }
        drawn[task] = {name: stars[name] for name in SPREADS}

    @cache
    def law(name: str, shared: bool) -> Joint | None:
        return joint(table[name], sheets.of(table[name]), sheets.parts, shared=shared)

    evidence = Evidence(lambda name: law(name, False), lambda name: law(name, True), drawn, replicates, seed)
    between = {each.name: published(each.figure(evidence, each.of[0])) for each in ACROSS}
    report = SuiteReport(
        suite=suite.name,
        tasks=tuple(_task_report(book, task, figures[task], sheet, quiet) for task, sheet in sheets.prompts.items()),
        across={name: each for name, each in between.items() if name != "unfairness_floor"},
        noise_floor=between["unfairness_floor"].value,
        ranks=unfairness.rank_ranges(evidence.shared("acceptance"), replicates),
        sweep=sweep_report(book.throughputs, list(sheets.prompts)),
    )
    return report, _suite_notes(report, evidence)


def _task_report(book: Book, task: str, figures: Mapping[str, Estimate], sheet: Sheet, quiet: bool) -> TaskReport:
    given, joint_, swept = acceptance.position_measures(book.config.gamma, book.config.gammas)
    traced = sheet.only(np.isfinite(sheet.columns["tokens"]))
    prompts, tokens = len(traced.clusters), int(traced.columns["tokens"].sum())
    return TaskReport(
        task=task,
        suite=suite_of(task),
        language=task.rpartition("/")[2],
        prompts=prompts,
        clusters=len(np.unique(traced.clusters)),
        contexts=tokens - prompts,
        tokens=tokens,
        measures={name: figures[name] for name in measures_of(book.config)},
        acceptance_by_position=tuple(figures[each.name] for each in given),
        acceptance_joint=tuple(figures[each.name] for each in joint_),
        block_efficiency_by_gamma={gamma: figures[each.name] for gamma, each in swept.items()},
        flags=_flags(book, task, figures, sheet, quiet),
    )


# --------------------------------------------------------------------------- what must be said beside the figures


def _flags(book: Book, task: str, figures: Mapping[str, Estimate], sheet: Sheet, quiet: bool) -> tuple[str, ...]:
    flags = list(validity.flags(figures))
    planned, seen = book.planned.get(task, 0), len(sheet.clusters)
    traced, replayed = (int(np.isfinite(sheet.columns[name]).sum()) for name in ("tokens", "contexts"))
    if seen < planned:
        flags.append(f"incomplete: {seen} of {planned} prompts")
    if book.config.drafter is not None and book.config.backend != SERVED and replayed < traced:
        flags.append(f"incomplete: {replayed} of {traced} prompts replayed")
    if not quiet and figures["speedup"].value is not None:
        flags.append("race: no verdict on speed")
    return tuple(flags)


def _run_notes(book: Book) -> tuple[str, ...]:
    notes = []
    drafter = book.config.drafter
    if drafter is not None and book.replays and all(replay.kl is None for replay in book.replays.values()):
        notes.append(
            f"misfit and U are not defined for a drafter without a proper q ({drafter.kind}): "
            "compare on acceptance and speed-up."
        )
    elif book.replays:
        notes.append(
            "unfairness_ce is probably the form of arXiv 2510.02128 (reconstructed); compare with it by this one only."
        )
    config = book.config
    if config.dtype != "float32" and not config.rule.greedy:
        notes.append(f"texts were sampled in {config.dtype}; where greedy ones leave float32's was not asked.")
    elif config.dtype != "float32" and not config.float32_check:
        notes.append(f"texts are the {config.dtype} verifier's; where they leave float32's was not asked.")
    if book.timings:
        notes.append(
            "speedup_iid assumes i.i.d. acceptance and a verifier step of constant cost; it is no measurement."
        )
    if config.backend == SERVED:
        notes.append(_served(book))
    elif book.timings and config.backend != "eager":
        notes.append(f"blocks were run by the {config.backend} backend: compare times within one backend only.")
    if book.timings and enough.ends_early(config):
        notes.append(_race_end(book))
    return tuple(notes)


def _served(book: Book) -> str:
    """What a serving engine does not show, and how often its texts left the reference."""
    raced = {timing.key for timing in book.timings}
    left = {
        name: sorted({timing.key for timing in book.timings if timing.left_at is not None and timing.mode in modes})
        for name, modes in (("with drafts", ("speculative",)), ("without", ("autoregressive", "control")))
    }
    told = ", ".join(f"{len(keys)} of {len(raced)} {name}" for name, keys in left.items())
    return (
        "decoded by vLLM, which shows no logits: no replay, no misfit, no U; acceptance_observed is by its own counts. "
        f"Raced texts that left the reference, each timed for as many tokens: {told}."
    )


def _race_end(book: Book) -> str:
    """By what rule races ended, and after how many prompts."""
    config, raced = book.config, Counter(map(task_of, {timing.key for timing in book.timings}))
    rules = []
    if config.race_width is not None:
        rules.append(f"its speed-up is known to ±{config.race_width:g} of itself")
    if config.race_budget is not None:
        rules.append(f"{config.race_budget:g} s are timed")
    counts = ", ".join(f"{task} {count}" for task, count in sorted(raced.items()))
    return f"the race of a language ends once {' or '.join(rules)}, at the latest with its prompts; raced: {counts}."


def _suite_notes(report: SuiteReport, evidence: Evidence) -> tuple[str, ...]:
    notes = []
    own, shared = evidence.own("acceptance"), evidence.shared("acceptance")
    empty = [task.language for task in report.tasks if task.measures["acceptance"].value is None]
    if own is not None and empty:
        notes.append(
            f"{report.suite}: no data for {', '.join(empty)}; "
            f"figures across languages are of the other {len(own.tasks)}."
        )
    if own is not None and shared is None:
        notes.append(
            f"{report.suite}: no problem is in every language, so differences between languages have no interval."
        )
    elif own is not None and shared is not None and len(shared.strata) < len(own.strata):
        notes.append(
            f"{report.suite}: differences between languages use the {len(shared.strata)} of {len(own.strata)} "
            "problems that all have."
        )
    floor, spread = report.noise_floor, report.across["unfairness"].value
    if floor is not None and spread is not None and spread <= floor:
        notes.append(f"{report.suite}: U lies within its noise floor ({floor:.2g} nats²); nothing is ranked by it.")
    return tuple(notes)
