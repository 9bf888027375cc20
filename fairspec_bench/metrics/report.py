"""From a run's lines to what they mean: the typed report.

The same lines, in any order, give the same
report to the byte: figures are published to 8 significant digits, beyond which the order of a sum shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from fairspec_bench.metrics import acceptance, bootstrap, speed, unfairness, validity
from fairspec_bench.metrics.bootstrap import Array
from fairspec_bench.metrics.catalogue import measures, measures_of
from fairspec_bench.metrics.drafting import drafting_notes
from fairspec_bench.metrics.measure import Joint, StatTable, estimate, joint, published, replicate
from fairspec_bench.metrics.run_data import Lines, RunData, load_run_data, race_sheet, suite_sheets
from fairspec_bench.metrics.sweep import sweep_report
from fairspec_bench.metrics.unfairness import ACROSS, AcrossInputs
from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.config import Environment, RunConfig, SuiteConfig
from fairspec_bench.schemas.generation_settings import warning
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport, TaskReport
from fairspec_bench.schemas.stages import ends_early

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
    data = load_run_data(config, lines)
    control = control_ratio(data)
    rounds = len({timing.round for timing in data.timings})
    shared = any(model.options.get("shared") for model in (config.verifier, config.drafter) if model)
    verdict = speed.race_verdict(control, rounds, config.race_width or speed.CONTROL_MARGIN, shared=shared)
    suites = tuple(_suite_report(data, suite, verdict.quiet, replicates, seed) for suite in config.suites)
    return Report(
        config=config,
        environments=tuple(environments),
        suites=tuple(suite for suite, _ in suites),
        replicates=replicates,
        bootstrap_seed=seed,
        race_verdict=verdict,
        notes=(*_run_notes(data), *(note for _, notes in suites for note in notes)),
    )


def control_ratio(data: RunData) -> Estimate:
    """The A/A ratio over the whole race: every prompt of every task against the same baseline again.

    It is about the clock, which does not know that two prompts are one problem in two languages: prompts stand alone.
    """
    raced = speed.race(data.timings)
    parts = bootstrap.partition({"race": raced.keys})
    measure = measures(data.config.gamma)["control_ratio"]
    return published(estimate(measure, race_sheet(raced, raced.keys, parts, "race")))


def _suite_report(
    data: RunData, suite: SuiteConfig, quiet: bool, replicates: int, seed: int
) -> tuple[SuiteReport, tuple[str, ...]]:
    sheets = suite_sheets(data, suite)
    gamma = data.config.gamma
    given, joint_, swept = acceptance.position_measures(gamma, data.config.gammas)
    also = (*acceptance.output_measures().values(), *acceptance.length_measures(gamma))
    shown = (*measures_of(data.config).values(), *given, *joint_, *swept.values(), *also)
    table = {each.name: each for each in shown}
    off_race = [each for each in table.values() if not each.crossed]
    figures: dict[str, dict[str, Estimate]] = {}
    drawn: dict[str, dict[str, Array]] = {}
    for task, sheet in sheets.prompts.items():
        samples = replicate(off_race, sheet, replicates, (seed, sheets.parts.stratum[task]))
        figures[task] = {
            name: published(estimate(each, sheets.of(each)[task], samples.get(name))) for name, each in table.items()
        }
        drawn[task] = {name: samples[name] for name in SPREADS}

    @cache
    def joint_of(name: str, shared: bool) -> Joint | None:
        return joint(table[name], sheets.of(table[name]), sheets.parts, shared=shared)

    evidence = AcrossInputs(
        lambda name: joint_of(name, False), lambda name: joint_of(name, True), drawn, replicates, seed
    )
    doubted = {task for task, measured in figures.items() if validity.is_mostly_bad(measured)}
    compared = evidence.shared("acceptance")
    between = {each.name: published(each.figure(evidence, each.of[0])) for each in ACROSS}
    report = SuiteReport(
        suite=suite.name,
        tasks=tuple(_task_report(data, task, figures[task], sheet, quiet) for task, sheet in sheets.prompts.items()),
        across={name: each for name, each in between.items() if name != "unfairness_floor"},
        noise_floor=between["unfairness_floor"].value,
        ranks=unfairness.rank_ranges(compared and compared.without(doubted), replicates),
        sweep=sweep_report(data.throughputs, list(sheets.prompts), data.swept_clusters),
    )
    return report, _suite_notes(report, evidence)


def _task_report(
    data: RunData, task: str, figures: Mapping[str, Estimate], sheet: StatTable, quiet: bool
) -> TaskReport:
    given, joint_, swept = acceptance.position_measures(data.config.gamma, data.config.gammas)
    traced = sheet.only(np.isfinite(sheet.columns["tokens"]))
    prompts, tokens = len(traced.clusters), int(traced.columns["tokens"].sum())
    return TaskReport(
        task=task,
        suite=Task(task).suite,
        language=Task(task).language,
        prompts=prompts,
        clusters=len(np.unique(traced.clusters)),
        contexts=tokens - prompts,
        tokens=tokens,
        measures={name: figures[name] for name in measures_of(data.config)},
        acceptance_by_position=tuple(figures[each.name] for each in given),
        acceptance_joint=tuple(figures[each.name] for each in joint_),
        block_efficiency_by_gamma={gamma: figures[each.name] for gamma, each in swept.items()},
        flags=_flags(data, task, figures, sheet, quiet),
        acceptance_by_output={
            positions: figures[each.name]
            for positions, each in acceptance.output_measures().items()
            if figures[each.name].value is not None
        },
        accepted_lengths=tuple(figures[each.name] for each in acceptance.length_measures(data.config.gamma)),
    )


# --------------------------------------------------------------------------- what must be said beside the figures


def _flags(data: RunData, task: str, figures: Mapping[str, Estimate], sheet: StatTable, quiet: bool) -> tuple[str, ...]:
    flags = list(validity.flags(figures))
    planned, seen = data.planned.get(task, 0), len(sheet.clusters)
    traced, replayed = (int(np.isfinite(sheet.columns[name]).sum()) for name in ("tokens", "contexts"))
    if seen < planned:
        flags.append(f"incomplete: {seen} of {planned} prompts")
    if data.config.drafter is not None and not data.config.served and replayed < traced:
        flags.append(f"incomplete: {replayed} of {traced} prompts replayed")
    if not quiet and figures["speedup"].value is not None:
        flags.append("race: no verdict on speed")
    return tuple(flags)


def _run_notes(data: RunData) -> tuple[str, ...]:
    notes = []
    drafter = data.config.drafter
    if drafter is not None and data.replays and all(replay.kl is None for replay in data.replays.values()):
        notes.append(
            f"misfit and U are not defined for a drafter without a proper q ({drafter.kind}): "
            "compare on acceptance and speed-up."
        )
    elif data.replays:
        notes.append(
            "unfairness_ce is probably the form of arXiv 2510.02128 (reconstructed); compare with it by this one only."
        )
    config = data.config
    notes.extend((*config.end_warnings, *config.vocabulary_warnings))
    if config.dtype != "float32" and not config.sampling.greedy:
        notes.append(f"texts were sampled in {config.dtype}; where greedy ones leave float32's was not asked.")
    elif config.dtype != "float32" and not config.float32_check:
        notes.append(f"texts are the {config.dtype} verifier's; where they leave float32's was not asked.")
    if data.timings:
        notes.append(
            "speedup_iid assumes i.i.d. acceptance and a verifier step of constant cost; it is no measurement."
        )
    if config.served:
        notes.append(_served(data))
        notes.extend(drafting_notes(data.timings, data.throughputs, config.gamma))
    elif data.timings and config.backend != "eager":
        notes.append(f"blocks were run by the {config.backend} backend: compare times within one backend only.")
    if data.timings and ends_early(config):
        notes.append(_race_end(data))
    if unfollowed := warning(config.verifier.name, config.generation_config_not_followed):
        notes.append(unfollowed)
    return tuple(notes)


def _served(data: RunData) -> str:
    """What a serving engine does not show, and how often its texts left the reference."""
    raced = {timing.key for timing in data.timings}
    left = {
        name: sorted({timing.key for timing in data.timings if timing.diverged_at is not None and timing.mode in modes})
        for name, modes in (("with drafts", ("speculative",)), ("without", ("autoregressive", "control")))
    }
    counts = ", ".join(f"{len(keys)} of {len(raced)} {name}" for name, keys in left.items())
    return (
        f"decoded by {BACKENDS[data.config.backend].title}, which shows no logits: no replay, no misfit, no U; "
        "acceptance_observed is by its own counts. "
        f"Raced texts that left the reference, each timed for as many tokens: {counts}."
    )


def _race_end(data: RunData) -> str:
    """By what rule races ended, and after how many prompts."""
    config, raced = data.config, Counter(PromptKey(key).task for key in {timing.key for timing in data.timings})
    rules = []
    if config.race_width is not None:
        rules.append(f"its speed-up is known to ±{config.race_width:g} of itself")
    if config.race_budget is not None:
        rules.append(f"{config.race_budget:g} s are timed")
    counts = ", ".join(f"{task} {count}" for task, count in sorted(raced.items()))
    return f"the race of a language ends once {' or '.join(rules)}, at the latest with its prompts; raced: {counts}."


def _suite_notes(report: SuiteReport, evidence: AcrossInputs) -> tuple[str, ...]:
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
