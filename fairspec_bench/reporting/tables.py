"""A report or a comparison as Rich tables, and tables in Markdown.

`formats` writes them in other formats. A task whose answers were cut has a mark on every figure, and U is never shown
without the mean acceptance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fairspec_bench.metrics import advice, speed, validity
from fairspec_bench.metrics.advice import Advice
from fairspec_bench.metrics.catalogue import across
from fairspec_bench.metrics.comparison import COMPARED, Comparison
from fairspec_bench.metrics.sweep import payoff_words, served_within
from fairspec_bench.reporting import escape
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.keys import Task
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport, SweepReport, TaskReport

MARK = "†"
ACCEPTANCE = ("acceptance", "block_efficiency_uncut", "misfit", "tokens_per_answer", "verifier_calls_per_answer")
SERVED_ACCEPTANCE = ("acceptance_observed", "tokens_per_answer")
COST = ("tokens_per_char", "verifier_calls_per_token", "verifier_calls_per_char")
SPEED = ("speedup", "speedup_predicted", "seconds_per_answer", "seconds_per_answer_autoregressive")


def render(report: Report) -> RenderableType:
    """The report as Rich tables: each suite's languages, what holds across them, the race's verdict, notes."""
    parts: list[RenderableType] = []
    for suite in report.suites:
        served = report.config.served
        kept = SERVED_ACCEPTANCE if served else ACCEPTANCE
        parts.append(_task_table(f"{suite.suite}: what is kept", suite, kept, ranks=not served))
        if _has(suite, "verifier_calls_per_char"):
            parts.append(_task_table(f"{suite.suite}: what the tokenizer costs, and what the drafter", suite, COST))
        parts.extend(_shape_tables(suite))
        if any(_has(suite, name) for name in SPEED):
            parts.append(_speed_table(suite, report.race_verdict.quiet))
        fitness = [name for name in validity.FITNESS if _has(suite, name)]
        parts.append(_task_table(f"{suite.suite}: what qualifies it", suite, (*validity.SHARES, *fitness)))
        if any(task.measures[name].value for task in suite.tasks for name in ("looping", "truncated")):
            both = [each for pair in validity.COMPLETE.items() for each in pair]
            whole = f"{suite.suite}: with and without answers that repeat themselves or are cut"
            parts.append(_task_table(whole, suite, [each for each in both if _has(suite, each)]))
        if report.config.float32_check:
            left = f"{suite.suite}: where {report.config.dtype} answers differ from float32's"
            parts.append(_task_table(left, suite, validity.DTYPE_DIVERGENCE))
        if suite.sweep is not None:
            parts.extend(_sweep_tables(suite, suite.sweep, report.race_verdict.quiet))
        parts.append(_across_table(suite))
        parts.extend(line(f"{MARK} {task.language}: {flag}") for task in suite.tasks for flag in task.flags)
    parts.extend(
        line(f"{suite.suite}: {said}") for suite in report.suites for said in advice.summaries(report, suite.suite)
    )
    parts.append(line(f"Race: {speed.race_sentence(report.race_verdict)}."))
    parts.extend(line(f"Note: {note}") for note in report.notes)
    parts.append(line(f"Intervals: 95 %, {report.replicates:,} replicates of problems, seed {report.bootstrap_seed}."))
    return Group(*parts)


def render_comparison(comparison: Comparison) -> RenderableType:
    """The comparison as Rich tables; a task that was levelled down says so."""
    parts: list[RenderableType] = []
    for suite in comparison.suites:
        rows = []
        for task, count in suite.clusters.items():
            verdict = "levelled down" if task in suite.levelled_down else ""
            figures = (cell(suite.differences[name][task]) for name in COMPARED)
            rows.append([Task(task).language, str(count), *figures, verdict])
        parts.append(plain_table(f"{suite.suite}: second − first", ["language", "n", *COMPARED, "verdict"], rows))
        parts.append(line(f"U, second − first: {cell(suite.unfairness)} nats²"))
        shares = (f"{name} {cell(each)}" for name, each in suite.relative.items())
        parts.append(line(f"As a share of the first: {', '.join(shares)}"))
    parts.append(line("Figures are pooled over the tokens of a language, not means of requests (METRICS.md, names)."))
    parts.append(line("Intervals: 95 %, simultaneous over the languages of a table, paired by problem."))
    return Group(*parts)


def render_advice(found: Advice) -> RenderableType:
    """The advice as Rich tables: a verdict for each language, what follows for all, what a router would take."""
    parts: list[RenderableType] = []
    for suite in found.suites:
        rows = [
            [each.language, each.verdict, cell(each.speedup), cell(each.without), each.why or "–"]
            for each in suite.tasks
        ]
        title = f"{suite.suite}: γ = {suite.gamma}, {advice.load_words(found.requests)}"
        parts.append(plain_table(title, ["language", "drafter", "speed-up", "without it", "why"], rows))
        parts.append(line(advice.summary(suite, found.requests)))
        if suite.routing is not None:
            routes = [
                [Task(each.task).language, each.drafter or "none", str(each.gamma or "–"), cell(each.speedup)]
                for each in suite.routing.routes
            ]
            title = f"{suite.suite}: a router, chosen on half of the problems and judged on the other"
            parts.append(plain_table(title, ["language", "drafter", "γ", "speed-up"], routes))
            parts.append(line(advice.routing_sentence(suite.routing)))
    parts.append(line("Intervals: 95 %, of each language by itself; a verdict needs the whole interval."))
    return Group(*parts)


def headline(config: RunConfig) -> Text:
    """The pair and γ, in one line."""
    drafter = config.drafter.name if config.drafter else "no drafter"
    return line(f"{config.verifier.name} ← {drafter}, γ = {config.gamma}")


def _has(suite: SuiteReport, name: str) -> bool:
    return any(task.measures[name].value is not None for task in suite.tasks)


def _task_table(title: str, suite: SuiteReport, names: Sequence[str], *, ranks: bool = False) -> Table:
    rows = []
    for task in suite.tasks:
        rank = suite.ranks.get(task.task)
        ranked = ["–" if rank is None else _range(rank)] if ranks else []
        figures = [cell(task.measures[name], marked=_doubted(task)) for name in names]
        rows.append([_name(task), str(task.prompts), *ranked, *figures])
    return plain_table(title, ["language", "n", *(["rank"] if ranks else []), *names], rows)


def _shape_tables(suite: SuiteReport) -> list[Table]:
    """Acceptance by output position, and how many drafts blocks accept; none for a run that has neither."""
    tables = []
    bins = list(dict.fromkeys(name for task in suite.tasks for name in task.acceptance_by_output))
    if bins:
        rows = [[_name(t), *(cell(t.acceptance_by_output.get(each, Estimate())) for each in bins)] for t in suite.tasks]
        tables.append(plain_table(f"{suite.suite}: acceptance by output position", ["language", *bins], rows))
    most = max((len(task.accepted_lengths) for task in suite.tasks), default=0)
    if any(share.value is not None for task in suite.tasks for share in task.accepted_lengths):
        rows = [[_name(task), *map(cell, task.accepted_lengths)] for task in suite.tasks]
        names = ["language", *map(str, range(most))]
        tables.append(plain_table(f"{suite.suite}: share of blocks by accepted drafts", names, rows))
    if _has(suite, "outside_draft_vocabulary"):
        title = f"{suite.suite}: what the draft vocabulary lacks"
        tables.append(_task_table(title, suite, ("outside_draft_vocabulary", "acceptance_observed")))
    return tables


def _speed_table(suite: SuiteReport, quiet: bool) -> Table:
    rows = []
    for task in suite.tasks:
        said = speed.speed_verdict(task.measures["speedup"], quiet)
        rows.append([_name(task), said, *(cell(task.measures[name], marked=_doubted(task)) for name in SPEED)])
    return plain_table(f"{suite.suite}: what it is worth", ["language", "verdict", *SPEED], rows)


def _sweep_tables(suite: SuiteReport, sweep: SweepReport, quiet: bool) -> list[Table]:
    """Speed-up by batch size and γ, where it stops paying, and the γ to take at each batch size."""
    batches = sorted({each.batch_size for each in sweep.cells})
    found = {(each.task, each.batch_size, each.gamma): each for each in sweep.cells}
    said = {(each.task, each.gamma): payoff_words(each, quiet) for each in sweep.payoffs}
    names = ["language", "γ", *(f"batch {batch}" for batch in batches), "pays"]
    by_gamma, pace, waits, best, kept = [], [], [], [], []
    for task, gamma in dict.fromkeys((each.task, each.gamma) for each in sweep.cells):
        here = [found[task, batch, gamma] for batch in batches]
        called = (Task(task).language, str(gamma) if gamma else "alone")
        pace.append([*called, *(cell(each.tokens_per_second) for each in here)])
        for share, latencies in served_within(here).items():
            waits.append([*called, share, *map(cell, latencies)])
        if any(each.acceptance_observed for each in here):
            kept.append([*called, *(cell(each.acceptance_observed or Estimate()) for each in here)])
        if gamma:
            by_gamma.append([*called, *(cell(each.speedup) for each in here), said[task, gamma]])
    tasks = list(dict.fromkeys(each.task for each in sweep.cells))
    for each in sweep.best:
        shown = (each.chosen, each.total, *(each.speedup.get(task, Estimate()) for task in tasks))
        best.append([str(each.batch_size), str(each.gamma), *map(cell, shown)])
    title = f"{suite.suite}: one γ for all, chosen on half of the prompts and shown on the other"
    return [
        plain_table(f"{suite.suite}: speed-up by batch size, {sweep.rounds} rounds", names, by_gamma),
        plain_table(f"{suite.suite}: tokens a second", names[:-1], pace),
        *([plain_table(f"{suite.suite}: seconds to an answer", _within(names), waits)] if waits else []),
        *([plain_table(f"{suite.suite}: observed acceptance under load", names[:-1], kept)] if kept else []),
        plain_table(title, ["batch", "γ", "chosen by", "all", *(Task(task).language for task in tasks)], best),
    ]


def _within(names: Sequence[str]) -> list[str]:
    return [*names[:2], "of requests", *names[2:-1]]


def _across_table(suite: SuiteReport) -> Table:
    known, rows = across(), []
    for name, figure in suite.across.items():
        undefined = name.startswith(("unfairness", "misfit")) and figure.value is None
        rows.append([name, "not defined" if undefined else cell(figure), known[name].unit, known[name].definition])
        if name == "unfairness" and suite.noise_floor is not None:
            floor = known["unfairness_floor"]
            rows.append(["noise floor", cell(Estimate(value=suite.noise_floor)), floor.unit, floor.definition])
    return plain_table(f"{suite.suite}: across languages", ["figure", "value", "unit", "definition"], rows)


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
    return validity.is_above_tolerated(task.measures.get("truncated", Estimate()))


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown without a line end after it. Every cell is written as text: no tag, link or further cell."""
    lines = [[escape.markdown(each) for each in headers], ["---"] * len(headers)]
    lines += [[escape.markdown(each) for each in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain_table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with its first column aligned left and the others right; texts are shown as they are."""
    table = Table(title=line(title), title_justify="left")
    for place, name in enumerate(names):
        table.add_column(line(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(line, row))
    return table


def line(text: str) -> Text:
    """Text without characters that a terminal would act on."""
    return Text(escape.inert(text))
