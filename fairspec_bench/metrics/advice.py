"""Whether a drafter is worth it, language by language, at so many requests at once.

A verdict needs a whole interval: *pays* where the speed-up's lies above 1, *does not pay* where it lies below, *not
known* otherwise. Choices between drafters and γ are made on one half of the problems and judged on the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from fairspec_bench.metrics import bootstrap, speed, validity
from fairspec_bench.metrics.measure import estimate, published
from fairspec_bench.metrics.run_data import RunData, race_sheet
from fairspec_bench.metrics.sweep import AUTOREGRESSIVE, CHOOSES, REPORTS, Cells, sweep_cells
from fairspec_bench.metrics.sweep import speedup as swept_speedup
from fairspec_bench.schemas.base import FairspecError, NotebookRecord, Record
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport

Advised = Literal["pays", "does not pay", "not known"]
OFF = Estimate(value=1, low=1, high=1)
"""The speed-up of decoding without a drafter."""


class TaskAdvice(Record):
    """One language: the verdict and the speed-up that it follows from; `why` says what a verdict lacks."""

    task: str
    verdict: Advised
    speedup: Estimate
    why: str = ""

    @property
    def language(self) -> str:
        return Task(self.task).language

    @property
    def without(self) -> Estimate:
        """What switching the drafter off gains: 1 / speed-up."""
        return inverse(self.speedup)


class Route(Record):
    """What a router takes for one language, chosen on half of its problems; `speedup` is of the other half.

    `drafter` is the name of its run, `None`: no drafter.
    """

    task: str
    drafter: str | None
    gamma: int
    speedup: Estimate


class Routing(Record):
    """A router over several drafters, no drafter among them, against the best single choice for all languages.

    `single` is that choice, `None` for no drafter. `gain` is the geometric mean over languages of the speed-up by the
    router / by `single`, on problems that had no part in either choice.
    """

    single: str | None
    single_gamma: int
    routes: tuple[Route, ...]
    gain: Estimate


class SuiteAdvice(Record):
    """The languages of one suite. `gain`: of the languages that do not pay, the mean gain of switching the drafter off.

    `gamma` is the γ to take, one for all languages.
    """

    suite: str
    gamma: int
    tasks: tuple[TaskAdvice, ...]
    gain: Estimate
    routing: Routing | None = None

    def languages(self, verdict: Advised) -> tuple[str, ...]:
        return tuple(each.language for each in self.tasks if each.verdict == verdict)


class Advice(NotebookRecord):
    """What a run says to someone who serves its pair to `requests` requests at once."""

    config: RunConfig
    requests: int
    suites: tuple[SuiteAdvice, ...]


# --------------------------------------------------------------------------- one run


def advise(report: Report, requests: int | None = None) -> Advice:
    """The advice at so many requests at once; `None`: at the fewest that were timed.

    Raises `FairspecError` for a run without a drafter or without a race, or none at so many requests.
    """
    timed = loads(report)
    if not timed:
        raise FairspecError(
            "advise: the run timed nothing with a drafter. Run the pair again without --race_rounds 0, and with "
            "--batch_size 1,4,16 for the loads that you serve."
        )
    if requests is None:
        requests = timed[0]
    if requests not in timed:
        known = ", ".join(map(str, timed))
        raise FairspecError(
            f"--requests {requests}: the run timed {known} at once. Take one of these, or run again with "
            f"--batch_size {','.join(map(str, sorted({*timed, requests})))}."
        )
    suites = (_suite_advice(suite, report, requests) for suite in report.suites)
    return Advice(config=report.config, requests=requests, suites=tuple(each for each in suites if each is not None))


def loads(report: Report) -> list[int]:
    """The numbers of requests at once that the run timed with a drafter, ascending."""
    return sorted({load for suite in report.suites for load in _loads(suite)})


def _loads(suite: SuiteReport) -> set[int]:
    raced = any(task.measures.get("speedup", Estimate()).value is not None for task in suite.tasks)
    swept = {cell.batch_size for cell in suite.sweep.cells if cell.gamma} if suite.sweep else set()
    return swept | ({1} if raced else set())


def _suite_advice(suite: SuiteReport, report: Report, requests: int) -> SuiteAdvice | None:
    if requests not in _loads(suite):
        return None
    gamma, speedups = _speedups(suite, report.config.gamma, requests)
    doubted = {task.task for task in suite.tasks if validity.is_mostly_bad(task.measures)}
    tasks = tuple(
        task_advice(each.task, speedups.get(each.task, Estimate()), report.race_verdict.quiet, each.task in doubted)
        for each in suite.tasks
    )
    off = [each.without for each in tasks if each.verdict == "does not pay"]
    return SuiteAdvice(suite=suite.suite, gamma=gamma, tasks=tasks, gain=published(geometric_mean(off)))


def _speedups(suite: SuiteReport, gamma: int, requests: int) -> tuple[int, Mapping[str, Estimate]]:
    """The γ to take and each language's speed-up with it.

    From a sweep at this load if there is one: of several γ the best of all languages, on problems that did not choose
    it. Else from the race, one request at a time.
    """
    cells = [cell for cell in suite.sweep.cells if cell.batch_size == requests and cell.gamma] if suite.sweep else []
    if not cells or suite.sweep is None:
        return gamma, {task.task: task.measures.get("speedup", Estimate()) for task in suite.tasks}
    if len({cell.gamma for cell in cells}) == 1:
        return cells[0].gamma, {cell.task: cell.speedup for cell in cells}
    best = next((best for best in suite.sweep.best if best.batch_size == requests), None)
    return (best.gamma, best.speedup) if best else (gamma, {})


def task_advice(task: str, speedup: Estimate, quiet: bool, doubted: bool) -> TaskAdvice:
    """The verdict that the whole interval gives; none on a noisy machine, or where most answers are of no use."""
    if speedup.value is None:
        why = "not timed"
    elif not quiet:
        why = "the A/A race gives no verdict on this machine's clock"
    elif doubted:
        why = "most answers repeat themselves or are cut"
    elif speedup.low is None or speedup.high is None:
        why = "too few prompts or rounds for an interval"
    elif speedup.low <= 1 <= speedup.high:
        why = "the interval holds 1"
    else:
        verdict: Advised = "pays" if speedup.low > 1 else "does not pay"
        return TaskAdvice(task=task, verdict=verdict, speedup=speedup)
    return TaskAdvice(task=task, verdict="not known", speedup=speedup, why=why)


# --------------------------------------------------------------------------- a router over several runs


class Arm(NamedTuple):
    """A drafter, by the name of its run, with one γ; `None`: decoding without a drafter."""

    drafter: str | None
    gamma: int


NO_DRAFTER = Arm(None, AUTOREGRESSIVE)
Judged = Mapping[Arm, Mapping[str, Estimate]]
"""The speed-up of every arm by task, on one half of the problems."""


@dataclass(frozen=True)
class TimedRun:
    """A run that a router may choose: its lines, and whether its clock can be trusted."""

    name: str
    data: RunData
    quiet: bool


def with_router(advice: Advice, runs: Sequence[TimedRun]) -> Advice:
    """The advice with a router over the drafters of all these runs, its own among them, suite by suite.

    Raises `FairspecError` where the runs cannot be compared: another verifier, engine, machine type or text.
    """
    _check_comparable(runs)
    suites = []
    for suite in advice.suites:
        tasks = [each.task for each in suite.tasks]
        halves = {half: _arms(runs, tasks, half, advice.requests) for half in (CHOOSES, REPORTS)}
        suites.append(suite.model_copy(update={"routing": route(halves[CHOOSES], halves[REPORTS])}))
    return advice.model_copy(update={"suites": tuple(suites)})


def route(chosen_by: Judged, judged_by: Judged) -> Routing | None:
    """The router that the first half chooses and the second judges; `None` where no language has both halves."""
    tasks = [
        task
        for task in dict.fromkeys(task for arm in chosen_by.values() for task in arm)
        if all(_known(arm.get(task)) for judged in (chosen_by, judged_by) for arm in judged.values())
    ]
    if not tasks or not chosen_by:
        return None
    arms = [NO_DRAFTER, *chosen_by]

    def value(judged: Judged, arm: Arm, task: str) -> Estimate:
        return OFF if arm == NO_DRAFTER else judged[arm][task]

    def log(arm: Arm, task: str) -> float:
        return math.log(value(chosen_by, arm, task).value or 1.0)

    single = max(arms, key=lambda arm: math.fsum(log(arm, task) for task in tasks))
    taken = {task: max(arms, key=lambda arm: log(arm, task)) for task in tasks}
    gains = [
        OFF if arm == single else quotient(value(judged_by, arm, task), value(judged_by, single, task))
        for task, arm in taken.items()
    ]
    return Routing(
        single=single.drafter,
        single_gamma=single.gamma,
        routes=tuple(
            Route(task=task, drafter=arm.drafter, gamma=arm.gamma, speedup=value(judged_by, arm, task))
            for task, arm in taken.items()
        ),
        gain=published(geometric_mean(gains)),
    )


def _known(figure: Estimate | None) -> bool:
    return figure is not None and figure.value is not None and figure.value > 0


def _check_comparable(runs: Sequence[TimedRun]) -> None:
    halved = ("race_prompts",) if any(run.data.throughputs for run in runs) else ()
    for first, other in pairwise(runs):
        for what in ("backend", "dtype", "device", "sampling", *halved):
            if getattr(first.data.config, what) != getattr(other.data.config, what):
                raise FairspecError(f"advise: {first.name} and {other.name} differ in {what}. Time both alike.")
        for key in first.data.references.keys() & other.data.references.keys():
            if first.data.references[key].ids != other.data.references[key].ids:
                raise FairspecError(
                    f"advise: {key} has other references in {other.name}. Give runs of one verifier, made alike."
                )
    noisy = [run.name for run in runs if not run.quiet]
    if noisy:
        raise FairspecError(
            f"advise: the race of {noisy[0]} gives no verdict on speed. Time it again on an idle machine."
        )


def _arms(runs: Iterable[TimedRun], tasks: Sequence[str], half: int, requests: int) -> dict[Arm, dict[str, Estimate]]:
    found: dict[Arm, dict[str, Estimate]] = {}
    mine = _half_of_problems(runs, half)
    for run in runs:
        cells = sweep_cells(line for line in run.data.throughputs if line.batch_size == requests)
        gammas = sorted({key[3] for key in cells} - {AUTOREGRESSIVE})
        for gamma in gammas or ([run.data.config.gamma] if requests == 1 and run.data.timings else []):
            found[Arm(run.name, gamma)] = {
                task: _swept(cells, task, half, requests, gamma) if gammas else _raced(run.data, task, mine)
                for task in tasks
            }
    return found


def _swept(cells: Cells, task: str, half: int, requests: int, gamma: int) -> Estimate:
    both = [cells.get((task, half, requests, each)) for each in (AUTOREGRESSIVE, gamma)]
    plain, drafted = both
    return published(swept_speedup([plain], [drafted])) if plain and drafted else Estimate()


def _half_of_problems(runs: Iterable[TimedRun], half: int) -> set[str]:
    """Every other problem that any of the runs raced: the same ones in all, so that none is in both halves."""
    return set(sorted({run.data.cluster(timing.key) for run in runs for timing in run.data.timings})[half::2])


def _raced(data: RunData, task: str, problems: Collection[str]) -> Estimate:
    """The race's speed-up in a task, of these problems."""
    raced = speed.race(
        timing for timing in data.timings if PromptKey(timing.key).task == task and data.cluster(timing.key) in problems
    )
    if not raced.keys:
        return Estimate()
    clusters = [data.cluster(key) for key in raced.keys]
    measure = next(each for each in speed.measures(data.config.gamma) if each.name == "speedup")
    return published(estimate(measure, race_sheet(raced, clusters, bootstrap.partition({task: clusters}), task)))


# --------------------------------------------------------------------------- ratios with intervals


def inverse(figure: Estimate) -> Estimate:
    """1 / figure."""
    return quotient(OFF, figure)


def quotient(above: Estimate, below: Estimate) -> Estimate:
    """above / below, both above 0, with the widest interval that both allow: at least 95 % however the two depend.

    Without an interval where that of `below` holds 0; no data where the quotient is no number.
    """
    if above.value is None or not below.value or not math.isfinite(above.value / below.value):
        return Estimate()
    value = above.value / below.value
    if above.low is None or above.high is None or below.low is None or below.high is None or below.low <= 0:
        return Estimate(value=value)
    low, high = above.low / below.high, above.high / below.low
    return Estimate(value=value, low=low, high=high) if math.isfinite(high) else Estimate(value=value)


def geometric_mean(figures: Sequence[Estimate]) -> Estimate:
    """The geometric mean, its bounds those of the bounds: at least 95 % for normal errors, whatever their dependence.

    No figures: no data. The standard error of a sum is at most the sum of standard errors.
    """

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None and value > 0]
        return float(np.exp(np.mean(np.log(known)))) if known and len(known) == len(values) else None

    value = mean([figure.value for figure in figures])
    low, high = mean([figure.low for figure in figures]), mean([figure.high for figure in figures])
    return Estimate(value=value) if None in (value, low, high) else Estimate(value=value, low=low, high=high)


# --------------------------------------------------------------------------- in words


def times(figure: Estimate) -> str:
    """`1.42× [1.38, 1.46]`."""
    if figure.value is None:
        return "no data"
    bounds = "" if figure.low is None or figure.high is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
    return f"{figure.value:.2f}×{bounds}"


def load_words(requests: int) -> str:
    return "one request at a time" if requests == 1 else f"{requests} requests at once"


def sentence(task: TaskAdvice) -> str:
    """What the interval of one language says."""
    if task.verdict == "pays":
        return f"{task.language} pays: {times(task.speedup)}."
    if task.verdict == "does not pay":
        return f"{task.language} does not pay: {times(task.speedup)}; without the drafter {times(task.without)}."
    known = f" ({times(task.speedup)})" if task.speedup.value is not None else ""
    return f"{task.language} is not known: {task.why}{known}."


def summary(suite: SuiteAdvice, requests: int) -> str:
    """The suite's languages by verdict, and what switching the drafter off for those that do not pay gains them."""
    said = [f"{verdict}: {', '.join(names)}" for verdict, names in _by_verdict(suite).items()]
    switch = ""
    if off := suite.languages("does not pay"):
        switch = f" Without the drafter, {', '.join(off)} {'gains' if len(off) == 1 else 'gain'} {times(suite.gain)}."
    return f"With γ = {suite.gamma} and {load_words(requests)} the drafter {'; '.join(said)}.{switch}"


def _by_verdict(suite: SuiteAdvice) -> dict[str, tuple[str, ...]]:
    verdicts: tuple[Advised, ...] = ("pays", "does not pay", "not known")
    return {
        "is not known to pay" if verdict == "not known" else verdict: names
        for verdict in verdicts
        if (names := suite.languages(verdict))
    }


def routing_sentence(routing: Routing) -> str:
    """Whether a router over the drafters gains anything, where its interval says so."""
    single = f"{routing.single} (γ = {routing.single_gamma})" if routing.single else "no drafter"
    gain = routing.gain
    if all((route.drafter, route.gamma) == (routing.single, routing.single_gamma) for route in routing.routes):
        return f"A router would take {single} for every language: it gains nothing."
    if gain.low is None or gain.high is None or gain.low <= 1 <= gain.high:
        return f"Whether a router gains over {single} for all is not known: {times(gain)}."
    return f"A router {'gains' if gain.low > 1 else 'loses'} against {single} for all: {times(gain)}."


def summaries(report: Report, suite: str) -> tuple[str, ...]:
    """A summary of one suite for every load that it was timed at; empty where it was not."""
    found = (advise(report, load) for load in loads(report))
    return tuple(summary(each, advice.requests) for advice in found for each in advice.suites if each.suite == suite)
