"""The paper's eight claims, each beside what was measured here and a verdict with its reason.

From reports and comparisons, by `RULES`; no model is needed. A claim is marked "(reconstructed)" where the paper's text
was not at hand.

A verdict is *holds* or *does not hold* only where a whole interval lies on that side of a stated margin; what differs
significantly, but by less, has a verdict of its own, and whatever is left is *not testable here*. Each suite gives a
typed finding, and `_conclude` joins them. Suites of the prompts' kind that the drafter was fine-tuned on are judged
apart from others. That acceptance is bounded by the divergence is a theorem: a test, no claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from scipy import stats

from fairspec_bench.metrics.bootstrap import TAIL, Array
from fairspec_bench.metrics.comparison import Comparison, SuiteComparison
from fairspec_bench.metrics.unfairness import levelled_down, spearman
from fairspec_bench.metrics.validity import is_above_tolerated
from fairspec_bench.reporting.tables import cell
from fairspec_bench.schemas.base import Record
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport

ClaimVerdict = Literal["holds", "by less than the margin", "by levelling down", "does not hold", "not testable here"]
"""*By less than the margin*: the change or difference is significant, and its whole interval below the margin. *By
levelling down*: the spread falls while the mean acceptance falls significantly."""
ClaimId = Literal["a", "b", "c", "d", "e", "f", "g", "h"]

ACCEPTANCE_MARGIN = 0.05
"""A smaller gap of acceptance is not material: .05 moves a block's length by a tenth (γ = 4, α .70 → .75: 2.77 → 3.05
tokens, i.i.d.), which is what a race of 50 prompts × 5 rounds can just tell apart (± 3 % for each language)."""
SPEEDUP_MARGIN = 0.05
"""A smaller gap of speed-up is not material: the ± 3 % of two languages' races, and nothing a person notices."""
MATERIAL_RHO = 0.5
"""A weaker correlation of ranks is no rule to tell languages by; at 11 languages p < .05 needs ρ ≥ .62."""
MATERIAL_FALL = 0.05
"""A smaller relative fall of a spread is not material: less than half of the 12 % that the paper reports."""
LEAST_TASKS = 8
"""With 7 tasks an interval of ρ lies above .5 only for ρ ≥ .96, a swap of two neighbours at most."""
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
}

RULES: Mapping[ClaimId, str] = {
    "a": "The simultaneous interval of max − min acceptance, and in a quiet race that of speed-up. holds: it lies "
    f"above {ACCEPTANCE_MARGIN:g} and U above its noise floor. by less than the margin: it lies between 0 and the "
    "margin. does not hold: it lies below the margin and reaches 0.",
    "b": f"Spearman's ρ of the verifier's accuracy (the drafter's where the verifier's does not vary) and acceptance. "
    f"holds: its interval lies above {MATERIAL_RHO:g}. does not hold: below. by less than the margin: between 0 and "
    f"the margin. Not testable with fewer than {LEAST_TASKS} languages, or where no two accuracies differ "
    "(simultaneously over all pairs).",
    "c": "As b, of the drafter's accuracy and the speed-up; without a quiet race, the predicted speed-up; without any "
    "race, the block efficiency.",
    "d": "As b, of the mean ρ over all pairs of orders, of suites and drafters, on the languages that all have.",
    "e": f"holds: the interval of the relative change lies below −{MATERIAL_FALL:.0%} and mean acceptance does not "
    f"fall significantly; by levelling down: it does. by less than the margin: between −{MATERIAL_FALL:.0%} and 0. "
    f"does not hold: above −{MATERIAL_FALL:.0%}. Not testable where the variance before lies within its noise floor.",
    "f": "As e, of U on KL (relative to U before) and on cross-entropy: both must fall; either can refute.",
    "g": "Fast: acceptance before at or above the median. Simultaneous intervals of their changes. holds: all lie "
    f"above −{ACCEPTANCE_MARGIN:g} and none below 0. by less than the margin: all above −{ACCEPTANCE_MARGIN:g}, some "
    f"below 0. does not hold: one lies below −{ACCEPTANCE_MARGIN:g}.",
    "h": "holds: the weights' hash and the greedy outputs are the same before and after. does not hold: one differs.",
}
"""How each verdict is reached. Over suites: *does not hold* where any suite refutes; *holds* where every suite with
evidence supports; else the weakest. Over runs (seeds, orders): the mean change, see `_averaged`."""


Support = Literal["for", "smaller", "levelled", "against", "undecided", "none"]
"""What one suite shows: support, support but for less than the margin, support by levelling down, support for the
opposite, figures that do not decide, or no figures."""
JOINED: tuple[tuple[Support, ClaimVerdict], ...] = (
    ("against", "does not hold"),
    ("levelled", "by levelling down"),
    ("undecided", "not testable here"),
    ("smaller", "by less than the margin"),
    ("for", "holds"),
    ("none", "not testable here"),
)
"""The first support that a suite shows gives the verdict over suites."""


class ClaimFinding(Record):
    """What one suite shows of a claim: in which direction, why, and the figures. `where` names the suite and pair.

    `elsewhere`: the drafter was fine-tuned on prompts of another kind than this suite's.
    """

    where: str
    support: Support
    why: str
    measured: str = ""
    estimate: Estimate | None = None
    elsewhere: bool = False


class Claim(Record):
    """One claim judged; `elsewhere` on prompts of another kind than the drafter was fine-tuned on, if there are any.

    `estimate` is the figure of the first suite that decided.

    `measured` and `reason` are the sentences of `findings`, one line each: see `_conclude`.
    """

    id: ClaimId
    says: str
    measured: str
    estimate: Estimate | None
    verdict: ClaimVerdict
    elsewhere: ClaimVerdict | None
    reason: str
    findings: tuple[ClaimFinding, ...]


class Claims(Record):
    """All eight, in order."""

    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class ClaimInputs:
    """What was measured. `before` are reports of the pair, `after` of the fine-tuned one, `changes` the comparisons.

    Several reports or comparisons of one suite are runs with other seeds or orders. `others` are reports of further
    pairs, read by (d) alone. `trained_on` are the suites of whose kind the prompts of fine-tuning are; `None`: unknown.
    `verifier_sha` are its weights' hashes before and after fine-tuning, `outputs_equal` whether its greedy outputs are
    the same.
    """

    before: tuple[Report, ...]
    after: tuple[Report, ...] | None = None
    changes: tuple[Comparison, ...] | None = None
    others: tuple[Report, ...] = ()
    trained_on: tuple[str, ...] | None = None
    verifier_sha: tuple[str, str] | None = None
    outputs_equal: bool | None = None


def judge(evidence: ClaimInputs) -> Claims:
    """The eight claims, each judged by `RULES`."""
    return Claims(claims=tuple(_conclude(name, find(evidence)) for name, find in FINDERS.items()))


def _conclude(name: ClaimId, findings: Sequence[ClaimFinding]) -> Claim:
    """Join what the suites show, those that the drafter was fine-tuned for and others apart: see `JOINED`."""
    own, other = ([each for each in findings if each.elsewhere is there] for there in (False, True))
    verdict, deciding = _joined(own)
    elsewhere, decided = _joined(other) if other else (None, [])
    return Claim(
        id=name,
        says=SAYS[name],
        measured=_sentences((each.where, each.measured) for each in findings if each.measured) or "–",
        estimate=deciding[0].estimate if deciding else None,
        verdict=verdict,
        elsewhere=elsewhere,
        reason=_sentences((each.where, each.why) for each in (*deciding, *decided)) or "no evidence was given",
        findings=tuple(findings),
    )


def _joined(findings: Sequence[ClaimFinding]) -> tuple[ClaimVerdict, list[ClaimFinding]]:
    for support, verdict in JOINED:
        deciding = [each for each in findings if each.support == support]
        if deciding:
            return verdict, deciding + [each for each in findings if support == "for" and each.support == "none"]
    return "not testable here", []


def _finding(
    where: str, support: Support, why: str, measured: str = "", estimate: Estimate | None = None
) -> ClaimFinding:
    return ClaimFinding(where=where, support=support, why=why, measured=measured, estimate=estimate)


def _sentences(parts: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{where}: {words}" if where else words for where, words in parts)


# --------------------------------------------------------------------------- a: languages differ


def _differ(evidence: ClaimInputs) -> list[ClaimFinding]:
    return [_gap(report, suite) for report in evidence.before for suite in report.suites]


def _gap(report: Report, suite: SuiteReport) -> ClaimFinding:
    gap = suite.across.get("acceptance_gap", Estimate())
    support = _beyond(gap, ACCEPTANCE_MARGIN)
    measured = [f"acceptance gap {cell(gap)}"]
    why = {
        "for": f"the gap is significantly above {ACCEPTANCE_MARGIN:g}",
        "smaller": f"acceptance differs significantly, by less than {ACCEPTANCE_MARGIN:g}",
        "against": f"the gap is significantly below {ACCEPTANCE_MARGIN:g} and may be none",
        "undecided": f"the gap may lie on either side of {ACCEPTANCE_MARGIN:g}: more prompts are needed",
        "none": "the report has no interval of the gap of acceptance: too few shared problems, or an older report",
    }[support]
    spread, floor = suite.across.get("unfairness", Estimate()), suite.noise_floor
    if spread.value is not None and floor is not None:
        measured.append(f"U {cell(spread)}, floor {floor:.2g}")
        if support == "for" and spread.value <= floor:
            support, why = "undecided", "the gap is material, but U lies within its noise floor"
    quick = _speed_gap(report, suite)
    if support == "for" and quick in ("against", "smaller"):
        support, why = quick, f"{why}; that of speed-up is significantly below {SPEEDUP_MARGIN:g}"
    elif support == "for":
        why += {
            "for": f", that of speed-up above {SPEEDUP_MARGIN:g}",
            "undecided": "; that of speed-up is not decided by this race",
            "none": "; of speed-up nothing is said: no race with a verdict",
        }[quick]
    if quick != "none":
        measured.append(f"speed-up gap {cell(suite.across['speedup_gap'])}")
    return _finding(_where(report, suite), support, why + _cut(suite), ", ".join(measured), gap)


def _speed_gap(report: Report, suite: SuiteReport) -> Support:
    if not report.race_verdict.quiet:
        return "none"
    return _beyond(suite.across.get("speedup_gap", Estimate()), SPEEDUP_MARGIN)


def _beyond(figure: Estimate, margin: float) -> Support:
    """Where the interval of something that would be above the margin lies."""
    if figure.low is None or figure.high is None:
        return "none"
    if figure.low > margin:
        return "for"
    if figure.high >= margin:
        return "undecided"
    return "smaller" if figure.low > 0 else "against"


# --------------------------------------------------------------------------- b, c: fitness and what it goes with


def _accuracy(evidence: ClaimInputs) -> list[ClaimFinding]:
    fitness = ("verifier_fitness", "drafter_fitness")
    return [_correlated(report, suite, fitness, "acceptance") for report in evidence.before for suite in report.suites]


def _fitness(evidence: ClaimInputs) -> list[ClaimFinding]:
    findings = []
    for report in evidence.before:
        for suite in report.suites:
            pace = next(name for name in _paces(report) if name == WORST_PACE or _count(suite, name) >= LEAST_TASKS)
            found = _correlated(report, suite, ("drafter_fitness",), pace)
            instead = "" if pace == "speedup" else f"; {pace} stands for the speed-up: no race with a verdict"
            findings.append(found.model_copy(update={"why": found.why + instead}))
    return findings


def _paces(report: Report) -> tuple[str, ...]:
    """What may stand for the speed-up, the best first: a noisy clock's figure may not."""
    return (*(("speedup",) if report.race_verdict.quiet else ()), "speedup_predicted", WORST_PACE)


def _correlated(report: Report, suite: SuiteReport, fitness: Sequence[str], other: str) -> ClaimFinding:
    where = _where(report, suite)
    varying = [name for name in fitness if _varies([task.measures[name] for task in suite.tasks])]
    if not varying:
        return _finding(where, "none", f"no language's {' or '.join(fitness)} differs significantly from another's")
    name = varying[0]
    pairs = [(task.measures[name].value, task.measures[other].value) for task in suite.tasks]
    known = np.array([(one, two) for one, two in pairs if one is not None and two is not None], dtype=np.float64)
    if len(known) < LEAST_TASKS:
        return _finding(where, "none", f"{len(known)} languages with {name} and {other}, {LEAST_TASKS} are needed")
    rho, p = spearman(known[:, 0], known[:, 1], report.replicates, report.bootstrap_seed)
    if rho is None or p is None:
        return _finding(where, "none", f"{other} is the same in all languages")
    figure = rho_interval(rho, len(known))
    measured = f"ρ({name}, {other}) = {cell(figure)}, p = {p:.2g}, {len(known)} languages"
    return _finding(where, _beyond(figure, MATERIAL_RHO), _rank_words(figure) + _cut(suite), measured, figure)


def _varies(figures: Iterable[Estimate]) -> bool:
    """Whether some two figures differ significantly, Bonferroni over all pairs: else a correlation is one with noise.

    A figure's standard error is that of its interval; problems that two languages share make their difference surer.
    """
    known = [(e.value, e.low, e.high) for e in figures if e.value is not None and e.low is not None]
    whole = np.array([(v, low, high) for v, low, high in known if high is not None], dtype=np.float64).reshape(-1, 3)
    first, second = np.triu_indices(len(whole), 1)
    if not len(first):
        return False
    error = (whole[:, 2] - whole[:, 1]) / 2 / stats.norm.isf(TAIL)
    width = stats.norm.isf(TAIL / len(first)) * np.hypot(error[first], error[second])
    return bool((np.abs(whole[first, 0] - whole[second, 0]) > width).any())


def rho_interval(rho: float, count: int) -> Estimate:
    """Spearman's ρ over `count` tasks with its 95 % interval, by Fisher's z with Bonett and Wright's variance.

    Where |ρ| = 1 the transform has no value: the interval is then that of the nearest ρ that a swap of two ranks gives.
    """
    swap = 12 / (count * (count**2 - 1))
    inner = max(-1 + swap, min(1 - swap, rho))
    width = float(stats.norm.isf(TAIL)) * math.sqrt((1 + inner**2 / 2) / (count - 3))
    low, high = math.tanh(math.atanh(inner) - width), math.tanh(math.atanh(inner) + width)
    return Estimate(value=rho, low=min(rho, low), high=max(rho, high))


def _rank_words(rho: Estimate) -> str:
    positive = rho.low is not None and rho.low > 0
    return {
        "for": f"the orders agree significantly more than ρ = {MATERIAL_RHO:g}",
        "smaller": f"the orders agree significantly, but less than ρ = {MATERIAL_RHO:g}",
        "against": f"the orders agree less than ρ = {MATERIAL_RHO:g}, or are opposed",
        "undecided": f"the orders agree{' significantly' if positive else ''}, whether as much as ρ = "
        f"{MATERIAL_RHO:g} is not decided: more languages are needed",
        "none": "no ρ",
    }[_beyond(rho, MATERIAL_RHO)]


# --------------------------------------------------------------------------- d: a stable order


def _stable(evidence: ClaimInputs) -> list[ClaimFinding]:
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
        return [_finding("", "none", "one suite of one pair: there is no second order to compare")]
    languages = sorted(set.intersection(*(set(column) for column in columns.values())))
    if len(languages) < LEAST_TASKS:
        return [_finding("", "none", f"{len(languages)} languages in common, {LEAST_TASKS} are needed")]
    values = np.array([[column[language] for language in languages] for column in columns.values()], dtype=np.float64)
    if (np.ptp(values, axis=1) == 0).any():
        return [_finding("", "none", "in one of them acceptance is the same in all languages")]
    rho, p = concordance(values, reports[0].replicates, reports[0].bootstrap_seed)
    figure = rho_interval(rho, len(languages))
    pairs = len({report.config.drafter and report.config.drafter.name for report in reports})
    measured = f"mean ρ = {cell(figure)}, p = {p:.2g}, {len(columns)} orders of {len(languages)} languages"
    words = f"{_rank_words(figure)} (orders of {pairs} pair{'s' * (pairs > 1)})"
    return [_finding("", _beyond(figure, MATERIAL_RHO), words, measured, figure)]


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


# --------------------------------------------------------------------------- e, f: fine-tuning makes it fairer


def _variance_falls(evidence: ClaimInputs) -> list[ClaimFinding]:
    findings = []
    for name, runs in _runs(evidence).items():
        if _within_floor(evidence, name, "acceptance_variance"):
            findings.append(_finding(name, "none", "the variance before lies within its noise floor: nothing to lower"))
            continue
        change = _averaged([run.relative["acceptance_variance"] for run in runs])
        findings.append(_fallen(name, {"variance of acceptance": change}, runs, 0.20))
    return _apart(evidence, findings)


def _unfairness_falls(evidence: ClaimInputs) -> list[ClaimFinding]:
    findings = []
    for name, runs in _runs(evidence).items():
        if _within_floor(evidence, name, "unfairness"):
            findings.append(_finding(name, "none", "U before lies within its noise floor: nothing to lower"))
            continue
        changes = {
            "U on cross-entropy": _averaged([run.relative["unfairness_ce"] for run in runs]),
            "U": _averaged([run.relative["unfairness"] for run in runs]),
        }
        findings.append(_fallen(name, changes, runs, 0.12))
    return _apart(evidence, findings)


def _apart(evidence: ClaimInputs, findings: Sequence[ClaimFinding]) -> list[ClaimFinding]:
    """The findings by suite of what fine-tuning did, marked where it was on prompts of another kind."""
    known = evidence.trained_on
    return [
        each.model_copy(update={"elsewhere": known is not None and each.where not in known}) for each in findings
    ] or [_finding("", "none", "no fine-tuned drafter was compared")]


def _fallen(where: str, changes: Mapping[str, Estimate], runs: Sequence[SuiteComparison], paper: float) -> ClaimFinding:
    supports = {name: _fall(change) for name, change in changes.items() if _fall(change) != "none"}
    measured = ", ".join(f"{name} {_percent(change)}" for name, change in changes.items()) + f", {len(runs)} run(s)"
    if not supports:
        return _finding(where, "none", "no interval of the change", measured)
    support = next(each for each, _ in JOINED if each in supports.values())
    deciding = [name for name, each in supports.items() if each == support]
    figure = changes[deciding[0]]
    words = {
        "against": f"significantly no fall of {MATERIAL_FALL:.0%} or more",
        "undecided": f"whether it falls by {MATERIAL_FALL:.0%} or more is not decided",
        "smaller": f"significantly lower, by less than {MATERIAL_FALL:.0%}",
        "for": f"significantly lower by {MATERIAL_FALL:.0%} or more",
    }[support]
    why = f"{' and '.join(deciding)}: {words}"
    if support != "for":
        return _finding(where, support, why, measured, figure)
    covers = figure.low is not None and figure.high is not None and figure.low <= -paper <= figure.high
    why += f"; the interval {'covers' if covers else 'does not cover'} the paper's −{paper:.0%}"
    why += "".join(f"; {name} is not known" for name in changes if name not in supports)
    mean = _mean_change(_changes(runs))
    if mean.high is not None and mean.high < 0:
        return _finding(where, "levelled", f"{why}; but mean acceptance falls {_signed(mean)}", measured, figure)
    return _finding(where, "for", why, measured, figure)


def _fall(change: Estimate) -> Support:
    if change.low is None or change.high is None:
        return "none"
    return _beyond(Estimate(value=change.value and -change.value, low=-change.high, high=-change.low), MATERIAL_FALL)


def _changes(runs: Sequence[SuiteComparison]) -> dict[str, Estimate]:
    """The change of acceptance of each task, the mean over runs; intervals hold for all tasks at once."""
    tasks = runs[0].differences["acceptance"]
    found = {task: [run.differences["acceptance"].get(task, Estimate()) for run in runs] for task in tasks}
    return {task: _averaged(each, len(tasks)) for task, each in found.items()}


def _mean_change(changes: Mapping[str, Estimate]) -> Estimate:
    """Of the mean over tasks: bounds that hold for all tasks at once hold for their mean."""
    known = [(e.value, e.low, e.high) for e in changes.values() if e.value is not None and e.high is not None]
    whole = np.array([(v, low, high) for v, low, high in known if low is not None], dtype=np.float64)
    if not len(whole) or len(whole) < len(changes):
        return Estimate()
    value, low, high = map(float, whole.mean(axis=0))
    return Estimate(value=value, low=low, high=high)


# --------------------------------------------------------------------------- g: no fast language is harmed


def _unharmed(evidence: ClaimInputs) -> list[ClaimFinding]:
    return _apart(evidence, [_harm(evidence, name, runs) for name, runs in _runs(evidence).items()])


def _harm(evidence: ClaimInputs, where: str, runs: Sequence[SuiteComparison]) -> ClaimFinding:
    changes = _changes(runs)
    fast = _fast_tasks(evidence, where)
    measured = ", ".join(
        f"{_language(task)}{' (fast)' if task in fast else ''} {_signed(change)}" for task, change in changes.items()
    )
    lows = {task: low for task in fast if task in changes and (low := changes[task].low) is not None}
    if not fast or len(lows) < len(fast):
        return _finding(where, "none", "not every fast language has an acceptance before and an interval", measured)
    worst = changes[min(lows, key=lambda task: lows[task])]
    fallen = levelled_down(changes)
    single = sum(bool(set(run.levelled_down) & fast) for run in runs)
    said = f"; a fast language fell significantly in {single} of {len(runs)} runs" if len(runs) > 1 else ""
    slow = [_language(task) for task in fallen if task not in fast]
    said += f"; slower ones that fell: {', '.join(slow)}" if slow else ""
    harmed = [_language(task) for task in fallen if task in fast]
    much = [_language(task) for task in fast & set(fallen) if (changes[task].high or 0.0) < -ACCEPTANCE_MARGIN]
    doubtful = [_language(task) for task, low in lows.items() if low <= -ACCEPTANCE_MARGIN]
    if much:
        words = f"{', '.join(sorted(much))} fell significantly by more than {ACCEPTANCE_MARGIN:g}"
        return _finding(where, "against", words + said, measured, worst)
    if doubtful:
        words = f"{', '.join(doubtful)} may have lost {ACCEPTANCE_MARGIN:g} or more: more prompts are needed"
        words += f"; {', '.join(harmed)} fell significantly" if harmed else ""
        return _finding(where, "undecided", words + said, measured, worst)
    if harmed:
        words = f"{', '.join(harmed)} fell significantly, by less than {ACCEPTANCE_MARGIN:g}"
        return _finding(where, "smaller", words + said, measured, worst)
    words = f"every fast language loses less than {ACCEPTANCE_MARGIN:g}, none significantly"
    return _finding(where, "for", words + said, measured, worst)


def _fast_tasks(evidence: ClaimInputs, name: str) -> set[str]:
    """Tasks whose acceptance before, the mean over reports, is at or above the median."""
    found: dict[str, list[float]] = {}
    for suite in _suites_before(evidence, name):
        for task in suite.tasks:
            if (value := task.measures["acceptance"].value) is not None:
                found.setdefault(task.task, []).append(value)
    means = {task: float(np.mean(values)) for task, values in found.items()}
    return {task for task, mean in means.items() if mean >= np.median(list(means.values()))}


# --------------------------------------------------------------------------- h: the verifier is as it was


def _unchanged(evidence: ClaimInputs) -> list[ClaimFinding]:
    same = None if evidence.verifier_sha is None else evidence.verifier_sha[0] == evidence.verifier_sha[1]
    parts = {"weights' hash": same, "greedy outputs": evidence.outputs_equal}
    words = {True: "the same", False: "changed", None: "not compared"}
    measured = ", ".join(f"{name} {words[part]}" for name, part in parts.items())
    if False in parts.values():
        return [_finding("", "against", "the verifier changed: its outputs are not those before fine-tuning", measured)]
    if None in parts.values():
        return [_finding("", "none", "both must be compared before and after fine-tuning", measured)]
    return [_finding("", "for", "weights and greedy outputs are identical", measured)]


FINDERS: Mapping[ClaimId, Callable[[ClaimInputs], Sequence[ClaimFinding]]] = {
    "a": _differ,
    "b": _accuracy,
    "c": _fitness,
    "d": _stable,
    "e": _variance_falls,
    "f": _unfairness_falls,
    "g": _unharmed,
    "h": _unchanged,
}


# --------------------------------------------------------------------------- shared


def _where(report: Report, suite: SuiteReport) -> str:
    drafter = report.config.drafter
    return f"{suite.suite} ({drafter.name})" if drafter else suite.suite


def _cut(suite: SuiteReport) -> str:
    doubted = [task.language for task in suite.tasks if is_above_tolerated(task.measures.get("truncated", Estimate()))]
    return f" (answers were cut in {', '.join(doubted)})" if doubted else ""


def _count(suite: SuiteReport, name: str) -> int:
    return sum(task.measures[name].value is not None for task in suite.tasks)


def _language(task: str) -> str:
    return Task(task).language


def _runs(evidence: ClaimInputs) -> dict[str, list[SuiteComparison]]:
    found: dict[str, list[SuiteComparison]] = {}
    for change in evidence.changes or ():
        for suite in change.suites:
            found.setdefault(suite.suite, []).append(suite)
    return found


def _suites_before(evidence: ClaimInputs, name: str) -> list[SuiteReport]:
    return [suite for report in evidence.before for suite in report.suites if suite.suite == name]


def _mean_before(evidence: ClaimInputs, name: str, figure: str) -> float | None:
    values = [suite.across.get(figure, Estimate()).value for suite in _suites_before(evidence, name)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _within_floor(evidence: ClaimInputs, name: str, figure: str) -> bool:
    """Whether a spread before fine-tuning is no larger than what noise alone gives."""
    value = _mean_before(evidence, name, figure)
    floors = [
        suite.noise_floor if figure == "unfairness" else suite.across.get(f"{figure}_floor", Estimate()).value
        for suite in _suites_before(evidence, name)
    ]
    known = [floor for floor in floors if floor is not None]
    return value is not None and bool(known) and value <= max(known)


def _averaged(figures: Sequence[Estimate], ways: int = 1) -> Estimate:
    """The mean over runs with other seeds or orders on the same prompts, with an interval for new runs and prompts.

    `ways`: how many such figures the runs' own intervals, and so this, hold for at once (Bonferroni).

    The runs' own half-widths are averaged, as if prompts moved all runs alike; Student's interval of the runs is added
    in quadrature. Both are at least as wide as need be.
    """
    known = [(e.value, e.low, e.high) for e in figures if e.value is not None and e.low is not None]
    whole = np.array([(v, low, high) for v, low, high in known if high is not None], dtype=np.float64)
    if not len(whole) or len(whole) < len(figures):
        return Estimate()
    value, low, high = whole.mean(axis=0)
    runs = len(whole)
    between = float(stats.t.isf(TAIL / ways, runs - 1) * whole[:, 0].std(ddof=1) / math.sqrt(runs)) if runs > 1 else 0.0
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
        verdict = Text(claim.verdict, style=styles.get(claim.verdict, "yellow"))
        if claim.elsewhere is not None:
            verdict.append(
                f"; on prompts of another kind: {claim.elsewhere}", style=styles.get(claim.elsewhere, "yellow")
            )
        table.add_row(claim.id, Text(claim.says), Text(claim.measured), verdict, Text(claim.reason))
    return table
