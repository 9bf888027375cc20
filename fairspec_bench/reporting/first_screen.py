"""The first screen of a report, at most 80 columns: the pair, one finding a suite, a bar a language, what to beware of.

`tables` shows everything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.console import Group, RenderableType

from fairspec_bench.metrics import speed
from fairspec_bench.metrics.comparison import Comparison
from fairspec_bench.reporting.tables import MARK, line
from fairspec_bench.schemas import generation_settings
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport, TaskReport

WIDTH = 80
BAR = 16
RANKED = "acceptance"
ACCEPTED = (RANKED, "acceptance_observed")
NONE = Estimate()
PERCENTAGE = re.compile(r" [0-9.]+ %")


def render_first(report: Report) -> RenderableType:
    """The first screen as lines of text; figures have three significant digits and their 95 % interval."""
    lines = [headline(report.config), *_where(report)]
    for suite in report.suites:
        lines += ["", *_suite(suite, report.race_verdict.quiet)]
    lines += ["", *_wrapped(f"Race: {speed.race_sentence(report.race_verdict)}.")]
    for warning in _warnings(report.config):
        lines += _wrapped(f"Note: {warning}")
    return Group(*map(line, lines))


def render_change(change: Comparison) -> RenderableType:
    """What changed from the first run to the second: acceptance by language, U, each with its interval."""
    lines = []
    for suite in change.suites:
        differences = suite.differences["acceptance"]
        more = [task for task, each in differences.items() if each.low is not None and each.low > 0]
        less = [task for task, each in differences.items() if each.high is not None and each.high < 0]
        rest = [task for task in differences if task not in (*more, *less)]
        said = [
            f"{word} in {', '.join(Task(task).language for task in tasks)}"
            for word, tasks in (("more", more), ("fewer", less), ("undecided", rest))
            if tasks
        ]
        lines += ["", *_wrapped(f"{suite.suite}, after − before: drafts accepted: {'; '.join(said)}.")]
        lines += [f"{Task(task).language:<6}{interval(each)}" for task, each in differences.items()]
        lines.append(f"Unfairness U {interval(suite.unfairness)} nats²")
    return Group(*map(line, lines))


def headline(config: RunConfig) -> str:
    """The pair, γ and how tokens are chosen."""
    drafter = config.drafter.name if config.drafter else "no drafter"
    chosen = "greedy" if config.sampling.greedy else f"temperature {config.sampling.temperature:g}"
    return f"{config.verifier.name} ← {drafter}, γ = {config.gamma}, {chosen}"


def _where(report: Report) -> list[str]:
    if not report.environments:
        return []
    first = report.environments[0]
    return _wrapped(f"{first.started[:10]}, {first.device_name or first.processor}, {first.threads} threads")


def _warnings(config: RunConfig) -> tuple[str, ...]:
    """What a run said when it began: how its texts end, renamed ids, settings that are not followed."""
    unfollowed = generation_settings.warning(config.verifier.name, config.generation_config_not_followed)
    return (*config.end_warnings, *config.vocabulary_warnings, *([unfollowed] if unfollowed else []))


def _suite(suite: SuiteReport, quiet: bool) -> Iterator[str]:
    name = next((each for each in ACCEPTED if any(_value(task, each) is not None for task in suite.tasks)), None)
    counts = sorted({task.prompts for task in suite.tasks})
    yield f"{suite.suite}, {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} prompts a language"
    if name is None:
        yield "No acceptance: nothing was drafted."
        return
    tasks = sorted(suite.tasks, key=lambda task: (_of(task, name).value is None, -(_of(task, name).value or 0)))
    yield from _wrapped(_finding(suite, tasks, name))
    yield f"{'':<6}{'accepted':<{BAR + 23}}{'tokens/call':<12}speed-up"
    for task in tasks:
        yield _row(task, name)
    slower = [task.language for task in tasks if speed.speed_verdict(_of(task, "speedup"), quiet) == "slower"]
    if slower:
        yield from _wrapped(f"Slower than without a drafter: {', '.join(slower)}.")
    unfairness = suite.across.get("unfairness", NONE)
    if unfairness.value is not None:
        floor = "" if suite.noise_floor is None else f", noise floor {digits(suite.noise_floor)}"
        yield f"Unfairness U {interval(unfairness)} nats²{floor}"
    for flag, languages in _flags(suite).items():
        yield from _wrapped(f"{MARK} {', '.join(languages) if len(languages) < len(tasks) else 'all'}: {flag}")


def _finding(suite: SuiteReport, tasks: Sequence[TaskReport], name: str) -> str:
    """The highest and lowest acceptance of the ranked, with all that do not differ significantly from them."""
    known = [task for task in tasks if _value(task, name) is not None and (task.task in suite.ranks or name != RANKED)]
    if len(known) < 2:
        return "No comparison: fewer than two languages are ranked."
    first, last = known[0], known[-1]
    best = [each for each in known[1:] if suite.ranks.get(each.task, (0, 0))[0] == 1]
    worst = [each for each in known[:-1] if suite.ranks.get(each.task, (0, 0))[1] == len(suite.ranks)]
    return f"Drafts accepted: most in {_end(first, best, name)}; fewest in {_end(last, worst, name)}."


def _end(task: TaskReport, ties: Sequence[TaskReport], name: str) -> str:
    also = f" (not significantly different: {', '.join(each.language for each in ties)})" if ties else ""
    calls = _of(task, "verifier_calls_per_answer")
    calls_told = "" if calls.value is None else f", {interval(calls)} verifier calls an answer"
    return f"{task.language}, {interval(_of(task, name))}{also}{calls_told}"


def _flags(suite: SuiteReport) -> dict[str, list[str]]:
    """The languages that have each flag; those that differ in a percentage only are told as one."""
    found: dict[str, list[str]] = {}
    for task in suite.tasks:
        for flag in task.flags:
            found.setdefault(PERCENTAGE.sub("", flag), []).append(task.language)
    return found


def _row(task: TaskReport, name: str) -> str:
    shown = _of(task, name)
    filled = 0 if shown.value is None else round(max(0.0, min(1.0, shown.value)) * BAR)
    mark = MARK if task.flags else ""
    tokens = _of(task, "block_efficiency_uncut").value
    per_call = "–" if tokens is None else digits(tokens)
    code = f"{task.language[:4]}{mark}"
    bar = "█" * filled + "·" * (BAR - filled)
    return f"{code:<6}{bar} {interval(shown):<22}{per_call:<12}{interval(_of(task, 'speedup'))}".rstrip()


def _of(task: TaskReport, name: str) -> Estimate:
    return task.measures.get(name, NONE)


def _value(task: TaskReport, name: str) -> float | None:
    return _of(task, name).value


def interval(figure: Estimate) -> str:
    """`0.714 [0.690, 0.738]`, or `–` for no data."""
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return digits(figure.value)
    return f"{digits(figure.value)} [{digits(figure.low)}, {digits(figure.high)}]"


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.2f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, subsequent_indent="  ")
