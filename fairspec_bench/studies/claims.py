"""The paper's nine claims, each beside what was measured here and a verdict with its reason.

Knows reports, comparisons and the rules of judgement, all of which stand in `RULES`. Knows nothing of models: it turns
evidence into words. What the paper is made to say is marked "(reconstructed)" where its text was not at hand.

A verdict is *holds* or *does not hold* only with statistical support for it; whatever is left is *not testable here*.
Each suite gives a finding of its own, which `_concluded` joins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from scipy import stats

from fairspec_bench.measure import speed
from fairspec_bench.measure.bootstrap import TAIL, Array
from fairspec_bench.measure.bounds import Bound, bounds
from fairspec_bench.measure.compare import Comparison, SuiteComparison
from fairspec_bench.measure.show import cell
from fairspec_bench.measure.unfairness import levelled_down, spearman
from fairspec_bench.records import Estimate, Record, Report, SuiteReport, TaskReport

Verdict = Literal["holds", "does not hold", "not testable here"]
ClaimId = Literal["a", "b", "c", "d", "e", "f", "g", "h", "i"]

ACCEPTANCE_MARGIN = 0.05
"""A smaller gap of acceptance is not material: .05 moves a block's length by a tenth (γ = 4, α .70 → .75: 2.77 → 3.05
tokens, i.i.d.), which is what a race of 50 prompts × 5 rounds can just tell apart (± 3 % for each language)."""
SPEEDUP_MARGIN = 0.05
"""A smaller gap of speed-up is not material: the ± 3 % of two languages' races, and nothing a person notices."""
MATERIAL_RHO = 0.5
"""A weaker correlation of ranks is no rule a language could be told by; at 11 languages p < .05 asks for ρ ≥ .62."""
MATERIAL_FALL = 0.05
"""A smaller relative fall of a spread is not material: less than half of the 12 % that the paper reports."""
LEAST_TASKS = 5
"""With 4 tasks no order can have a permutation p below .05 (2 / 4! = .083)."""
LEVEL = 0.05
WORST_PACE = "block_efficiency_uncut"
"""What stands for the speed-up where there is no race at all."""

SAYS: Mapping[ClaimId, str] = {
    "a": "Acceptance and speed-up differ across languages.",
    "b": "Languages of low accuracy get lower acceptance (reconstructed).",
    "c": "The drafter's fitness goes with the speed-up (reconstructed).",
    "d": "The order of languages is stable across suites and pairs (reconstructed).",
    "e": "s-CDF lowers the variance of acceptance over languages, by about 20 % on average (reconstructed).",
    "f": "s-CDF lowers unfairness, by 12 % on average.",
    "g": "No language that was fast is harmed by s-CDF (reconstructed).",
    "h": "The verifier's output is unchanged.",
    "i": "Acceptance is bounded by how far drafter and verifier diverge (reconstructed; the bounds of METRICS).",
}

RULES: Mapping[ClaimId, str] = {
    "a": f"holds: the simultaneous interval of max − min acceptance lies above {ACCEPTANCE_MARGIN:g} and U above its "
    f"noise floor. does not hold: that interval, or in a quiet race that of the speed-up gap ({SPEEDUP_MARGIN:g}), "
    "lies below the margin.",
    "b": f"Spearman's ρ of the verifier's accuracy (the drafter's where the verifier's does not vary) and acceptance. "
    f"holds: permutation p < {LEVEL:g} and ρ ≥ {MATERIAL_RHO:g}. does not hold: p < {LEVEL:g} and ρ < 0, or the "
    f"interval of ρ lies below {MATERIAL_RHO:g}. Not testable with fewer than {LEAST_TASKS} languages, or where no "
    "two languages' accuracies have disjoint intervals.",
    "c": "As b, of the drafter's accuracy and the speed-up; without a quiet race, the predicted speed-up; without any "
    "race, the block efficiency.",
    "d": f"The mean Spearman's ρ over all pairs of suites and drafters, on the languages that all have; its p from "
    f"permuting each order. holds: p < {LEVEL:g} and ρ ≥ {MATERIAL_RHO:g}. does not hold: p < {LEVEL:g} and ρ < 0, "
    f"or the interval of ρ lies below {MATERIAL_RHO:g}.",
    "e": f"holds: the interval of the relative change lies below 0. does not hold: it lies above −{MATERIAL_FALL:.0%}: "
    "no material fall. Not testable where the variance before lies within its noise floor.",
    "f": "As e, of U on KL (relative to U before) and on cross-entropy: both must fall; either can refute.",
    "g": "Fast: acceptance before at or above the median. does not hold: the simultaneous interval of a fast "
    f"language's change lies below 0. holds: all of theirs lie above −{ACCEPTANCE_MARGIN:g}.",
    "h": "holds: the weights' hash and the greedy outputs are the same before and after. does not hold: one differs.",
    "i": "does not hold: any bound is broken for any language; at temperatures above 0 the block efficiency counts "
    "with the upper end of its interval, as its bound holds in expectation. holds: none is.",
}
"""How each verdict is reached. Over suites: *does not hold* where any suite refutes; *holds* where every suite with
evidence supports; else *not testable here*. Over runs (seeds, orders): the mean change, see `_averaged`."""


class Claim(Record):
    """One claim judged. `estimate` is the figure of the first suite that decided; `measured` says all, in one line."""

    id: ClaimId
    says: str
    measured: str
    estimate: Estimate | None
    verdict: Verdict
    reason: str


class Claims(Record):
    """All nine, in order."""

    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Evidence:
    """What was measured. `before` are reports of the pair, `after` of the mended one, `changes` the comparisons.

    Several reports or comparisons of one suite are runs with other seeds or orders. `others` are reports of further
    pairs, read by (d) alone. `verifier_sha` are its weights' hashes before and after mending, `outputs_equal` whether
    its greedy outputs are the same.
    """

    before: tuple[Report, ...]
    after: tuple[Report, ...] | None = None
    changes: tuple[Comparison, ...] | None = None
    others: tuple[Report, ...] = ()
    verifier_sha: tuple[str, str] | None = None
    outputs_equal: bool | None = None


Sight = Literal["for", "against", "open", "none"]
"""What one suite shows: support, support for the opposite, figures that do not decide, or no figures."""


@dataclass(frozen=True)
class Finding:
    """What one suite shows of a claim, the figures and why."""

    where: str
    sight: Sight
    why: str
    measured: str = ""
    estimate: Estimate | None = None


def judge(evidence: Evidence) -> Claims:
    """The nine claims, each judged by `RULES`."""
    return Claims(claims=tuple(_concluded(name, find(evidence)) for name, find in FINDERS.items()))


def _concluded(name: ClaimId, findings: Sequence[Finding]) -> Claim:
    by_sight: dict[Sight, list[Finding]] = {"for": [], "against": [], "open": [], "none": []}
    for finding in findings:
        by_sight[finding.sight].append(finding)
    verdict: Verdict = "not testable here"
    deciding = by_sight["open"] or by_sight["none"]
    if by_sight["against"]:
        verdict, deciding = "does not hold", by_sight["against"]
    elif by_sight["for"] and not by_sight["open"]:
        verdict, deciding = "holds", by_sight["for"] + by_sight["none"]
    return Claim(
        id=name,
        says=SAYS[name],
        measured=_sentences((each.where, each.measured) for each in findings if each.measured) or "–",
        estimate=deciding[0].estimate if deciding else None,
        verdict=verdict,
        reason=_sentences((each.where, each.why) for each in deciding) or "no evidence was given",
    )


def _sentences(parts: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{where}: {words}" if where else words for where, words in parts)


# --------------------------------------------------------------------------- a: languages differ


def _differ(evidence: Evidence) -> list[Finding]:
    return [_gap(report, suite) for report in evidence.before for suite in report.suites]


def _gap(report: Report, suite: SuiteReport) -> Finding:
    gap = suite.across.get("acceptance_gap", Estimate())
    sight = _beyond(gap, ACCEPTANCE_MARGIN)
    measured = [f"acceptance gap {cell(gap)}"]
    why = {
        "for": f"the gap is surely above {ACCEPTANCE_MARGIN:g}",
        "against": f"the gap is surely below {ACCEPTANCE_MARGIN:g}: acceptance does not differ materially",
        "open": f"the gap may lie on either side of {ACCEPTANCE_MARGIN:g}: more prompts would tell",
        "none": "the report has no interval of the gap of acceptance: too few shared problems, or an older report",
    }[sight]
    spread, floor = suite.across.get("unfairness", Estimate()), suite.noise_floor
    if spread.value is not None and floor is not None:
        measured.append(f"U {cell(spread)}, floor {floor:.2g}")
        if sight == "for" and spread.value <= floor:
            sight, why = "open", "the gap is material, but U lies within its noise floor"
    quick = _speed_gap(report, suite)
    if quick == "against":
        why = f"speed-ups surely differ by less than {SPEEDUP_MARGIN:g}" if sight == "for" else why
        sight = "against"
    elif sight == "for":
        why += {
            "for": f", that of speed-up above {SPEEDUP_MARGIN:g}",
            "open": "; that of speed-up is not decided by this race",
            "none": "; of speed-up nothing is said: no race with a verdict",
        }[quick]
    if quick != "none":
        measured.append(f"speed-up gap {cell(suite.across['speedup_gap'])}")
    return Finding(_where(report, suite), sight, why + _cut(suite), ", ".join(measured), gap)


def _speed_gap(report: Report, suite: SuiteReport) -> Sight:
    if not _quiet(report):
        return "none"
    return _beyond(suite.across.get("speedup_gap", Estimate()), SPEEDUP_MARGIN)


def _beyond(figure: Estimate, margin: float) -> Sight:
    if figure.low is None or figure.high is None:
        return "none"
    if figure.low > margin:
        return "for"
    return "against" if figure.high < margin else "open"


# --------------------------------------------------------------------------- b, c: fitness and what it goes with


def _accuracy(evidence: Evidence) -> list[Finding]:
    fitness = ("verifier_fitness", "drafter_fitness")
    return [_correlated(report, suite, fitness, "acceptance") for report in evidence.before for suite in report.suites]


def _fitness(evidence: Evidence) -> list[Finding]:
    findings = []
    for report in evidence.before:
        for suite in report.suites:
            pace = next(name for name in _paces(report) if name == WORST_PACE or _count(suite, name) >= LEAST_TASKS)
            found = _correlated(report, suite, ("drafter_fitness",), pace)
            instead = "" if pace == "speedup" else f"; {pace} stands for the speed-up: no race with a verdict"
            findings.append(replace(found, why=found.why + instead))
    return findings


def _paces(report: Report) -> tuple[str, ...]:
    """What may stand for the speed-up, the best first: a noisy clock's figure may not."""
    return (*(("speedup",) if _quiet(report) else ()), "speedup_predicted", WORST_PACE)


def _correlated(report: Report, suite: SuiteReport, fitness: Sequence[str], other: str) -> Finding:
    where = _where(report, suite)
    varying = [name for name in fitness if _varies([task.measures[name] for task in suite.tasks])]
    if not varying:
        return Finding(where, "none", f"no language's {' or '.join(fitness)} surely differs from another's")
    name = varying[0]
    pairs = [(task.measures[name].value, task.measures[other].value) for task in suite.tasks]
    known = np.array([(one, two) for one, two in pairs if one is not None and two is not None], dtype=np.float64)
    if len(known) < LEAST_TASKS:
        return Finding(where, "none", f"{len(known)} languages with {name} and {other}, {LEAST_TASKS} are needed")
    rho, p = spearman(known[:, 0], known[:, 1], report.replicates, report.bootstrap_seed)
    if rho is None or p is None:
        return Finding(where, "none", f"{other} is the same in all languages")
    figure = rho_interval(rho, len(known))
    measured = f"ρ({name}, {other}) = {cell(figure)}, p = {p:.2g}, {len(known)} languages"
    return Finding(where, _by_rank(figure, p), _rank_words(figure, p) + _cut(suite), measured, figure)


def _varies(figures: Iterable[Estimate]) -> bool:
    """Whether some two figures have disjoint intervals: without, a correlation would be one with noise."""
    known = [(each.low, each.high) for each in figures if each.low is not None and each.high is not None]
    return bool(known) and max(low for low, _ in known) > min(high for _, high in known)


def rho_interval(rho: float, count: int) -> Estimate:
    """Spearman's ρ over `count` tasks with its 95 % interval, by Fisher's z with Bonett and Wright's variance.

    Where |ρ| = 1 the transform has no value: the interval is then that of the nearest ρ that a swap of two ranks gives.
    """
    swap = 12 / (count * (count**2 - 1))
    inner = max(-1 + swap, min(1 - swap, rho))
    width = float(stats.norm.isf(TAIL)) * math.sqrt((1 + inner**2 / 2) / (count - 3))
    low, high = math.tanh(math.atanh(inner) - width), math.tanh(math.atanh(inner) + width)
    return Estimate(value=rho, low=min(rho, low), high=max(rho, high))


def _by_rank(rho: Estimate, p: float) -> Sight:
    if rho.value is None or rho.high is None:
        return "none"
    if p < LEVEL and rho.value >= MATERIAL_RHO:
        return "for"
    return "against" if (p < LEVEL and rho.value < 0) or rho.high < MATERIAL_RHO else "open"


def _rank_words(rho: Estimate, p: float) -> str:
    sure = p < LEVEL
    return {
        "for": "the orders agree beyond chance",
        "against": f"the orders agree less than ρ = {MATERIAL_RHO:g}, or are opposed",
        "open": f"the orders agree {'beyond chance, but not surely' if sure else 'neither surely nor surely not'} as "
        f"much as ρ = {MATERIAL_RHO:g}: more languages would tell",
        "none": "no ρ",
    }[_by_rank(rho, p)]


# --------------------------------------------------------------------------- d: a stable order


def _stable(evidence: Evidence) -> list[Finding]:
    reports = (*evidence.before, *evidence.others)
    columns = {
        (place, suite.suite): {
            task.language: task.measures["acceptance"].value
            for task in suite.tasks
            if task.measures["acceptance"].value is not None
        }
        for place, report in enumerate(reports)
        for suite in report.suites
    }
    if len(columns) < 2:
        return [Finding("", "none", "one suite of one pair: there is no second order to compare")]
    languages = sorted(set.intersection(*(set(column) for column in columns.values())))
    if len(languages) < LEAST_TASKS:
        return [Finding("", "none", f"{len(languages)} languages in common, {LEAST_TASKS} are needed")]
    values = np.array([[column[language] for language in languages] for column in columns.values()], dtype=np.float64)
    if (np.ptp(values, axis=1) == 0).any():
        return [Finding("", "none", "in one of them acceptance is the same in all languages")]
    rho, p = concordance(values, reports[0].replicates, reports[0].bootstrap_seed)
    figure = rho_interval(rho, len(languages))
    measured = f"mean ρ = {cell(figure)}, p = {p:.2g}, {len(columns)} orders of {len(languages)} languages"
    return [Finding("", _by_rank(figure, p), _rank_words(figure, p), measured, figure)]


def concordance(values: Array, replicates: int, seed: int) -> tuple[float, float]:
    """Mean Spearman's ρ over all pairs of rows of `values` `[k, m]`, and its two-sided p from permuting each row."""
    ranks = stats.rankdata(values, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    unit = centred / np.sqrt((centred**2).sum(axis=1, keepdims=True))
    rows = len(unit)

    def mean_rho(sums: Array) -> Array:
        return np.asarray(((sums**2).sum(axis=-1) - rows) / (rows * (rows - 1)))

    generator = np.random.default_rng(seed)
    sums = sum(generator.permuted(np.tile(row, (replicates, 1)), axis=1) for row in unit)
    rho = float(mean_rho(unit.sum(axis=0)))
    extreme = np.abs(mean_rho(np.asarray(sums))) >= abs(rho) - 1e-12
    return rho, float((1 + extreme.sum()) / (1 + replicates))


# --------------------------------------------------------------------------- e, f: mending makes it fairer


def _variance_falls(evidence: Evidence) -> list[Finding]:
    findings = []
    for name, runs in _runs(evidence).items():
        if _within_floor(evidence, name, "acceptance_variance"):
            findings.append(Finding(name, "none", "the variance before lies within its noise floor: nothing to lower"))
            continue
        change = _averaged([run.relative["acceptance_variance"] for run in runs])
        findings.append(_fallen(name, {"variance of acceptance": change}, len(runs), 0.20))
    return findings or [_unmended()]


def _unfairness_falls(evidence: Evidence) -> list[Finding]:
    findings = []
    for name, runs in _runs(evidence).items():
        if _within_floor(evidence, name, "unfairness"):
            findings.append(Finding(name, "none", "U before lies within its noise floor: nothing to lower"))
            continue
        changes = {
            "U on cross-entropy": _averaged([run.relative["unfairness_ce"] for run in runs]),
            "U": _averaged([run.relative["unfairness"] for run in runs]),
        }
        findings.append(_fallen(name, changes, len(runs), 0.12))
    return findings or [_unmended()]


def _fallen(where: str, changes: Mapping[str, Estimate], runs: int, paper: float) -> Finding:
    sights = {name: _fall(change) for name, change in changes.items() if _fall(change) != "none"}
    measured = ", ".join(f"{name} {_percent(change)}" for name, change in changes.items()) + f", {runs} run(s)"
    if not sights:
        return Finding(where, "none", "no interval of the change", measured)
    first = changes[next(iter(sights))]
    against = [name for name, sight in sights.items() if sight == "against"]
    if against:
        words = f"{' and '.join(against)}: surely no fall of {MATERIAL_FALL:.0%} or more"
        return Finding(where, "against", words, measured, changes[against[0]])
    if "open" in sights.values():
        undecided = [name for name, sight in sights.items() if sight == "open"]
        return Finding(where, "open", f"{' and '.join(undecided)}: the interval covers 0", measured, first)
    covers = first.low is not None and first.high is not None and first.low <= -paper <= first.high
    size = f"the interval {'covers' if covers else 'does not cover'} the paper's −{paper:.0%}"
    alone = "".join(f"; {name} is not known" for name in changes if name not in sights)
    return Finding(where, "for", f"surely lower; {size}{alone}", measured, first)


def _fall(change: Estimate) -> Sight:
    if change.low is None or change.high is None:
        return "none"
    if change.low > -MATERIAL_FALL:
        return "against"
    return "for" if change.high < 0 else "open"


# --------------------------------------------------------------------------- g: no fast language is harmed


def _unharmed(evidence: Evidence) -> list[Finding]:
    return [_harm(evidence, name, runs) for name, runs in _runs(evidence).items()] or [_unmended()]


def _harm(evidence: Evidence, where: str, runs: Sequence[SuiteComparison]) -> Finding:
    tasks = list(runs[0].differences["acceptance"])
    changes = {task: _averaged([run.differences["acceptance"].get(task, Estimate()) for run in runs]) for task in tasks}
    fast = _fast_tasks(evidence, where)
    measured = ", ".join(
        f"{_language(task)}{' (fast)' if task in fast else ''} {_signed(change)}" for task, change in changes.items()
    )
    lows = {task: low for task in fast if task in changes and (low := changes[task].low) is not None}
    if not fast or len(lows) < len(fast):
        return Finding(where, "none", "not every fast language has an acceptance before and an interval", measured)
    worst = changes[min(lows, key=lambda task: lows[task])]
    fallen = levelled_down(changes)
    single = sum(bool(set(run.levelled_down) & fast) for run in runs)
    said = f"; a fast language surely fell in {single} of {len(runs)} runs" if len(runs) > 1 else ""
    slow = [_language(task) for task in fallen if task not in fast]
    said += f"; slower ones that fell: {', '.join(slow)}" if slow else ""
    harmed = [_language(task) for task in fallen if task in fast]
    if harmed:
        return Finding(where, "against", f"{', '.join(harmed)} surely fell{said}", measured, worst)
    if min(lows.values()) > -ACCEPTANCE_MARGIN:
        words = f"every fast language loses less than {ACCEPTANCE_MARGIN:g}"
        return Finding(where, "for", words + said, measured, worst)
    doubtful = [_language(task) for task, low in lows.items() if low <= -ACCEPTANCE_MARGIN]
    words = f"{', '.join(doubtful)} may have lost {ACCEPTANCE_MARGIN:g} or more: more prompts would tell"
    return Finding(where, "open", words + said, measured, worst)


def _fast_tasks(evidence: Evidence, name: str) -> set[str]:
    """Tasks whose acceptance before, the mean over reports, is at or above the median."""
    found: dict[str, list[float]] = {}
    for suite in _suites_before(evidence, name):
        for task in suite.tasks:
            if (value := task.measures["acceptance"].value) is not None:
                found.setdefault(task.task, []).append(value)
    means = {task: float(np.mean(values)) for task, values in found.items()}
    return {task for task, mean in means.items() if mean >= np.median(list(means.values()))}


# --------------------------------------------------------------------------- h: the verifier is as it was


def _unchanged(evidence: Evidence) -> list[Finding]:
    same = None if evidence.verifier_sha is None else evidence.verifier_sha[0] == evidence.verifier_sha[1]
    parts = {"weights' hash": same, "greedy outputs": evidence.outputs_equal}
    words = {True: "the same", False: "changed", None: "not compared"}
    measured = ", ".join(f"{name} {words[part]}" for name, part in parts.items())
    if False in parts.values():
        return [Finding("", "against", "the verifier changed: its outputs are not those before mending", measured)]
    if None in parts.values():
        return [Finding("", "none", "both must be compared before and after mending", measured)]
    return [Finding("", "for", "weights and greedy outputs are identical", measured)]


# --------------------------------------------------------------------------- i: the bounds hold


def _bounded(evidence: Evidence) -> list[Finding]:
    checked: list[tuple[str, Bound]] = []
    bare: list[str] = []
    for report in (*evidence.before, *(evidence.after or ())):
        for suite in report.suites:
            for task in suite.tasks:
                found = _task_bounds(report, task)
                checked += [(task.task, bound) for bound in found]
                bare += [] if found else [task.task]
    if not checked:
        return [Finding("", "none", "no language has the figures that a bound needs")]
    broken = [f"{task}: {bound.name} ({_inequality(bound)})" for task, bound in checked if not bound.holds]
    tightest = min(checked, key=lambda pair: pair[1].figure - (pair[1].low or 0.0))
    measured = f"{len(checked)} bounds checked, {len(broken)} broken; tightest {tightest[0]}: {tightest[1].name} "
    measured += f"({_inequality(tightest[1])})"
    if broken:
        words = f"broken, so something is measured wrongly: {', '.join(broken)}"
        return [Finding("", "against", words, measured)]
    without = f"; none can be checked for {', '.join(dict.fromkeys(bare))}" if bare else ""
    return [Finding("", "for", f"no bound is broken{without}", measured)]


def _task_bounds(report: Report, task: TaskReport) -> tuple[Bound, ...]:
    """Overlap by KL and by cross-entropy, and block efficiency by acceptance."""
    value = {name: each.value for name, each in task.measures.items()}
    efficiency, blocks = task.measures["block_efficiency"], value["blocks_expected"]
    figure = efficiency.value if report.config.rule.greedy or efficiency.high is None else efficiency.high
    contexts = None if efficiency.value is None or blocks is None else efficiency.value * blocks
    return (
        *bounds(overlap=value["overlap"], misfit=value["misfit"]),
        *bounds(overlap=value["overlap"], misfit=value["misfit_ce"]),
        *bounds(block_efficiency=figure, acceptance=value["acceptance"], gamma=report.config.gamma, contexts=contexts),
    )


def _inequality(bound: Bound) -> str:
    return f"{bound.figure:.3f} against at least {bound.low:.3f}"


FINDERS: Mapping[ClaimId, Callable[[Evidence], Sequence[Finding]]] = {
    "a": _differ,
    "b": _accuracy,
    "c": _fitness,
    "d": _stable,
    "e": _variance_falls,
    "f": _unfairness_falls,
    "g": _unharmed,
    "h": _unchanged,
    "i": _bounded,
}


# --------------------------------------------------------------------------- shared


def _quiet(report: Report) -> bool:
    return report.race_verdict.startswith(speed.QUIET)


def _where(report: Report, suite: SuiteReport) -> str:
    drafter = report.config.drafter
    return f"{suite.suite} ({drafter.name})" if drafter else suite.suite


def _cut(suite: SuiteReport) -> str:
    doubted = [task.language for task in suite.tasks if any(flag.startswith("truncated") for flag in task.flags)]
    return f" (answers were cut in {', '.join(doubted)})" if doubted else ""


def _count(suite: SuiteReport, name: str) -> int:
    return sum(task.measures[name].value is not None for task in suite.tasks)


def _language(task: str) -> str:
    return task.rpartition("/")[2]


def _runs(evidence: Evidence) -> dict[str, list[SuiteComparison]]:
    found: dict[str, list[SuiteComparison]] = {}
    for change in evidence.changes or ():
        for suite in change.suites:
            found.setdefault(suite.suite, []).append(suite)
    return found


def _unmended() -> Finding:
    return Finding("", "none", "no mended drafter was compared")


def _suites_before(evidence: Evidence, name: str) -> list[SuiteReport]:
    return [suite for report in evidence.before for suite in report.suites if suite.suite == name]


def _mean_before(evidence: Evidence, name: str, figure: str) -> float | None:
    values = [suite.across.get(figure, Estimate()).value for suite in _suites_before(evidence, name)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _within_floor(evidence: Evidence, name: str, figure: str) -> bool:
    """Whether a spread before mending is no larger than what noise alone gives."""
    value = _mean_before(evidence, name, figure)
    floors = [
        suite.noise_floor if figure == "unfairness" else suite.across.get(f"{figure}_floor", Estimate()).value
        for suite in _suites_before(evidence, name)
    ]
    known = [floor for floor in floors if floor is not None]
    return value is not None and bool(known) and value <= max(known)


def _averaged(figures: Sequence[Estimate]) -> Estimate:
    """The mean over runs with other seeds or orders on the same prompts, with an interval for new runs and prompts.

    The runs' own half-widths are averaged, as if prompts moved all runs alike; Student's interval of the runs is added
    in quadrature. Both are at least as wide as need be.
    """
    known = [(e.value, e.low, e.high) for e in figures if e.value is not None and e.low is not None]
    whole = np.array([(v, low, high) for v, low, high in known if high is not None], dtype=np.float64)
    if not len(whole) or len(whole) < len(figures):
        return Estimate()
    value, low, high = whole.mean(axis=0)
    runs = len(whole)
    between = float(stats.t.isf(TAIL, runs - 1) * whole[:, 0].std(ddof=1) / math.sqrt(runs)) if runs > 1 else 0.0
    return Estimate(
        value=float(value),
        low=float(value - math.hypot(value - low, between)),
        high=float(value + math.hypot(high - value, between)),
    )


def _percent(change: Estimate) -> str:
    if change.value is None or change.low is None or change.high is None:
        return "–"
    return f"{change.value:+.0%} [{change.low:+.0%}, {change.high:+.0%}]"


def _signed(change: Estimate) -> str:
    if change.value is None or change.low is None or change.high is None:
        return "–"
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


# --------------------------------------------------------------------------- for eyes


def render_claims(judged: Claims) -> RenderableType:
    """A table, one claim a row. For machines: `judged.model_dump_json()`."""
    table = Table(title="The paper's claims, beside what was measured here", title_justify="left", show_lines=True)
    for name in ("", "the paper says", "measured here", "verdict", "why"):
        table.add_column(name, overflow="fold")
    styles = {"holds": "green", "does not hold": "red", "not testable here": "dim"}
    for claim in judged.claims:
        verdict = Text(claim.verdict, style=styles[claim.verdict])
        table.add_row(claim.id, Text(claim.says), Text(claim.measured), verdict, Text(claim.reason))
    return table
