"""A report for eyes and for pandas.

Knows the names and units of measures and how to lay them out; computes nothing. A task whose answers were cut carries
a mark on every figure, and U never stands without the mean acceptance beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fairspec_bench.measure import speed, validity
from fairspec_bench.measure.catalogue import across, measures
from fairspec_bench.measure.lines import language_of
from fairspec_bench.measure.sweep import payoff_words
from fairspec_bench.records import Estimate, Report, SuiteReport, SweepReport, TaskReport

MARK = "†"
ACCEPTANCE = ("acceptance", "block_efficiency_uncut", "misfit", "tokens_per_answer", "verifier_calls_per_answer")
SPEED = ("speedup", "speedup_predicted", "seconds_per_answer", "seconds_per_answer_autoregressive")


# --------------------------------------------------------------------------- pandas


def report_frame(report: Report) -> pd.DataFrame:
    """Every figure of the report, one a row: suite, task, language, measure, value, low, high, unit, flags, definition.

    Figures across languages have no task; "no data" is NaN.
    """
    gamma = report.config.gamma
    rows = [row for suite in report.suites for row in _suite_rows(suite, gamma)]
    columns = ["suite", "task", "language", "measure", "value", "low", "high", "unit", "flags", "definition"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"value": "float64", "low": "float64", "high": "float64"})


def _suite_rows(suite: SuiteReport, gamma: int) -> list[tuple[object, ...]]:
    return [*_task_rows(suite, gamma), *_sweep_rows(suite), *_across_rows(suite)]


def _task_rows(suite: SuiteReport, gamma: int) -> list[tuple[object, ...]]:
    table = measures(gamma)
    rows: list[tuple[object, ...]] = []
    for task in suite.tasks:
        figures = [(name, each, table[name].unit, table[name].definition) for name, each in task.measures.items()]
        for j, each in enumerate(task.acceptance_by_position, 1):
            figures.append((f"acceptance_by_position[{j}]", each, "1", "accepted / tested"))
        for j, each in enumerate(task.acceptance_joint, 1):
            figures.append((f"acceptance_joint[{j}]", each, "1", "accepted / blocks"))
        for swept, each in task.block_efficiency_by_gamma.items():
            figures.append((f"block_efficiency[γ={swept}]", each, "tokens", "tokens emitted / blocks"))
        for name, each, unit, definition in figures:
            flags = "; ".join(task.flags)
            where = (suite.suite, task.task, task.language)
            rows.append((*where, name, each.value, each.low, each.high, unit, flags, definition))
    return rows


def _sweep_rows(suite: SuiteReport) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []

    def add(task: str | None, name: str, each: Estimate, unit: str, definition: str) -> None:
        language = None if task is None else language_of(task)
        rows.append((suite.suite, task, language, name, each.value, each.low, each.high, unit, "", definition))

    for cell_ in suite.sweep.cells if suite.sweep else ():
        at = f"[batch={cell_.batch_size}, γ={cell_.gamma}]"
        add(cell_.task, f"sweep_pace{at}", cell_.tokens_per_second, "tokens/s", "tokens / seconds of decoding")
        if cell_.gamma:
            add(cell_.task, f"sweep_speedup{at}", cell_.speedup, "1", "autoregressive / speculative time, same batch")
    for best in suite.sweep.best if suite.sweep else ():
        name, meaning = f"sweep_best[batch={best.batch_size}, γ={best.gamma}]", "γ chosen on the other half, for all"
        for task, each in ((None, best.total), *best.speedup.items()):
            add(task, name, each, "1", meaning)
    return rows


def _across_rows(suite: SuiteReport) -> list[tuple[object, ...]]:
    table = across()
    where = (suite.suite, None, None)
    rows: list[tuple[object, ...]] = [
        (*where, name, each.value, each.low, each.high, table[name].unit, "", table[name].definition)
        for name, each in suite.across.items()
    ]
    floor = table["unfairness_floor"]
    rows.append((*where, "noise_floor", suite.noise_floor, None, None, floor.unit, "", floor.definition))
    return rows


# --------------------------------------------------------------------------- the terminal


def render(report: Report) -> RenderableType:
    """The report as Rich tables: each suite's languages, what holds across them, the race's verdict, notes."""
    parts: list[RenderableType] = []
    for suite in report.suites:
        parts.append(_task_table(f"{suite.suite}: what is kept", suite, ACCEPTANCE, ranks=True))
        if any(task.measures[name].value is not None for task in suite.tasks for name in SPEED):
            parts.append(_speed_table(suite, report.race_verdict))
        fitness = [
            name for name in validity.FITNESS if any(task.measures[name].value is not None for task in suite.tasks)
        ]
        parts.append(_task_table(f"{suite.suite}: what qualifies it", suite, (*validity.SHARES, *fitness)))
        if report.config.float32_check:
            left = f"{suite.suite}: where {report.config.dtype} texts leave float32's"
            parts.append(_task_table(left, suite, validity.DEPARTURE))
        if suite.sweep is not None:
            parts.extend(_sweep_tables(suite, suite.sweep, report.race_verdict.startswith(speed.QUIET)))
        parts.append(_across_table(suite))
        parts.extend(Text(f"{MARK} {task.language}: {flag}") for task in suite.tasks for flag in task.flags)
    parts.append(Text(f"Race: {report.race_verdict}."))
    parts.extend(Text(f"Note: {note}") for note in report.notes)
    parts.append(Text(f"Intervals: 95 %, {report.replicates:,} replicates of problems, seed {report.bootstrap_seed}."))
    return Group(*parts)


def _task_table(title: str, suite: SuiteReport, names: Sequence[str], *, ranks: bool = False) -> Table:
    table = plain_table(title, ["language", "n", *(["rank"] if ranks else []), *names])
    for task in suite.tasks:
        rank = suite.ranks.get(task.task)
        ranked = ["–" if rank is None else _range(rank)] if ranks else []
        figures = [cell(task.measures[name], marked=_doubted(task)) for name in names]
        table.add_row(_name(task), str(task.prompts), *ranked, *figures)
    return table


def _speed_table(suite: SuiteReport, verdict: str) -> Table:
    table = plain_table(f"{suite.suite}: what it is worth", ["language", "verdict", *SPEED])
    for task in suite.tasks:
        said = speed.speed_verdict(task.measures["speedup"], verdict.startswith(speed.QUIET))
        table.add_row(_name(task), said, *(cell(task.measures[name], marked=_doubted(task)) for name in SPEED))
    return table


def _sweep_tables(suite: SuiteReport, sweep: SweepReport, quiet: bool) -> list[Table]:
    """Speed-up by batch size and γ, where it stops paying, and the γ to take at each batch size."""
    batches = sorted({each.batch_size for each in sweep.cells})
    found = {(each.task, each.batch_size, each.gamma): each for each in sweep.cells}
    said = {(each.task, each.gamma): payoff_words(each, quiet) for each in sweep.payoffs}
    names = ["language", "γ", *(f"batch {batch}" for batch in batches), "pays"]
    by_gamma = plain_table(f"{suite.suite}: speed-up by batch size, {sweep.rounds} rounds", names)
    pace = plain_table(f"{suite.suite}: tokens a second", names[:-1])
    for task, gamma in dict.fromkeys((each.task, each.gamma) for each in sweep.cells):
        here = [found[task, batch, gamma] for batch in batches]
        called = (language_of(task), str(gamma) if gamma else "alone")
        pace.add_row(*called, *(cell(each.tokens_per_second) for each in here))
        if gamma:
            by_gamma.add_row(*called, *(cell(each.speedup) for each in here), said[task, gamma])
    tasks = list(dict.fromkeys(each.task for each in sweep.cells))
    title = f"{suite.suite}: one γ for all, chosen on half of the prompts and shown on the other"
    best = plain_table(title, ["batch", "γ", "chosen by", "all", *map(language_of, tasks)])
    for each in sweep.best:
        shown = (each.chosen, each.total, *(each.speedup.get(task, Estimate()) for task in tasks))
        best.add_row(str(each.batch_size), str(each.gamma), *map(cell, shown))
    return [by_gamma, pace, best]


def _across_table(suite: SuiteReport) -> Table:
    table = plain_table(f"{suite.suite}: across languages", ["figure", "value", "unit", "definition"])
    known = across()
    for name, figure in suite.across.items():
        undefined = name.startswith(("unfairness", "misfit")) and figure.value is None
        table.add_row(name, "not defined" if undefined else cell(figure), known[name].unit, known[name].definition)
        if name == "unfairness" and suite.noise_floor is not None:
            floor = known["unfairness_floor"]
            table.add_row("noise floor", cell(Estimate(value=suite.noise_floor)), floor.unit, floor.definition)
    return table


def cell(figure: Estimate, *, marked: bool = False) -> str:
    """`0.714 [0.690, 0.738]`, `–` for no data, with the mark of a task in doubt."""
    if figure.value is None:
        return "–"
    mark = f" {MARK}" if marked else ""
    if figure.low is None or figure.high is None:
        return f"{_short(figure.value)}{mark}"
    return f"{_short(figure.value)} [{_short(figure.low)}, {_short(figure.high)}]{mark}"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.3f}"


def _range(rank: tuple[int, int]) -> str:
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def _name(task: TaskReport) -> str:
    return f"{task.language} {MARK}" if task.flags else task.language


def _doubted(task: TaskReport) -> bool:
    return any(flag.startswith("truncated") for flag in task.flags)


def plain_table(title: str, names: Sequence[str]) -> Table:
    """A table whose first column reads left and whose figures stand right."""
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    return table


def markdown(shown: RenderableType) -> str:
    """The same tables and lines as Markdown, for a page kept beside its run."""
    if isinstance(shown, Group):
        return "\n".join(markdown(part) for part in shown.renderables)
    if isinstance(shown, Table):
        head = [str(column.header) for column in shown.columns]
        body = zip(*([str(cell) for cell in column.cells] for column in shown.columns), strict=True)
        rows = [head, ["---"] * len(head), *map(list, body)]
        lines = (f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows)
        return f"## {shown.title}\n\n" + "\n".join(lines) + "\n"
    return f"{shown}\n"
