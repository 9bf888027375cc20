"""A report, a comparison and a run's lines as pandas frames: tidy, typed, each column with its unit.

`COLUMNS` documents every frame. Text is `str`, "no data" null; no column is of objects, so that a frame is the same
after Parquet.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from fairspec_bench.metrics.acceptance import (
    BY_OUTPUT,
    BY_POSITION,
    JOINT,
    LENGTHS,
    chances,
    expected_blocks,
    live_drafts,
)
from fairspec_bench.metrics.catalogue import across, measures
from fairspec_bench.metrics.comparison import Comparison, SuiteComparison
from fairspec_bench.metrics.measure import Definition
from fairspec_bench.metrics.run_data import Lines, RunData, load_run_data
from fairspec_bench.reporting.escape import spreadsheet
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.columns import COUNT, FLOAT, PROMPT, TEXT, Column, columns
from fairspec_bench.schemas.config import RunConfig
from fairspec_bench.schemas.keys import PromptKey, Task
from fairspec_bench.schemas.lines import Answer
from fairspec_bench.schemas.report import Estimate, Report, SuiteReport
from fairspec_bench.schemas.stages import STAGES

Values = dict[str, object]


_FIGURE = columns(
    ("value", FLOAT, "that of `unit`", "the figure"),
    ("low", FLOAT, "that of `unit`", "lower end of its 95 % interval"),
    ("high", FLOAT, "that of `unit`", "upper end of its 95 % interval"),
    ("unit", TEXT, "", "unit of the figure, `1` for a ratio"),
)
_TASK = columns(
    ("suite", TEXT, "", "the suite"),
    ("task", TEXT, "", "`suite/language`; null for a figure across languages"),
    ("language", TEXT, "", "language, or other task; null for a figure across languages"),
)
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "report": (
        *_TASK,
        Column("measure", TEXT, "", "name of the figure, as METRICS has it"),
        *_FIGURE,
        *columns(
            ("flags", TEXT, "", "what must be said beside the task's figures"),
            ("definition", TEXT, "", "what the figure is, in words"),
            ("clusters", COUNT, "problems", "problems it rests on; null across languages"),
            ("verifier", TEXT, "", "name of the verifier"),
            ("drafter", TEXT, "", "name of the drafter"),
            ("gamma", COUNT, "tokens", "drafts in a block of the run"),
            ("version", TEXT, "", "version of the suite"),
        ),
    ),
    "comparison": (
        *_TASK,
        Column("measure", TEXT, "", "name of the figure, as METRICS has it"),
        Column("change", TEXT, "", "`difference`: second − first; `relative`: second / first − 1"),
        *_FIGURE,
        *columns(
            ("flags", TEXT, "", "`levelled down` where the task's acceptance fell significantly"),
            ("definition", TEXT, "", "what the figure is, in words"),
            ("clusters", COUNT, "problems", "problems it rests on; null across languages"),
        ),
    ),
    **{stage.name: stage.columns for stage in STAGES.values()},
    "dropped": (*PROMPT, Column("reason", TEXT, "", "why the prompt was not run")),
}
"""What each frame holds: `report`, `comparison`, and one for each stage of a run and its dropped prompts."""


LINES = (*STAGES, "dropped")
"""The kinds of a run's lines."""


def _frame(name: str, rows: Iterable[Values]) -> pd.DataFrame:
    table = COLUMNS[name]
    frame = pd.DataFrame(list(rows), columns=[column.name for column in table])
    return frame.astype({column.name: column.dtype for column in table})


# --------------------------------------------------------------------------- reports


def report_frame(report: Report) -> pd.DataFrame:
    """Every figure of the report, one a row, with its interval and unit: `COLUMNS["report"]`.

    Figures across languages have no task; "no data" is null.
    """
    config = report.config
    versions = {suite.name: suite.version for suite in config.suites}
    run = {"verifier": config.verifier.name, "drafter": config.drafter and config.drafter.name, "gamma": config.gamma}
    return _frame(
        "report",
        (
            {**row, **run, "suite": suite.suite, "version": versions[suite.suite]}
            for suite in report.suites
            for row in (*_task_rows(suite, config.gamma), *_sweep_rows(suite), *_across_rows(suite))
        ),
    )


def _figure(measure: Definition, figure: Estimate, where: str = "") -> Values:
    return _row(f"{measure.name}{where}", figure, measure.unit, measure.definition)


def _row(name: str, figure: Estimate, unit: str, definition: str) -> Values:
    return {"measure": name, **dict(figure), "unit": unit, "definition": definition}


def _place(task: str) -> Values:
    return {"task": task, "language": Task(task).language}


def _task_rows(suite: SuiteReport, gamma: int) -> list[Values]:
    table = measures(gamma)
    rows: list[Values] = []
    for task in suite.tasks:
        found = [_figure(table[name], each) for name, each in task.measures.items()]
        for j, each in enumerate(task.acceptance_by_position, 1):
            found.append(_figure(BY_POSITION, each, f"[{j}]"))
        for j, each in enumerate(task.acceptance_joint, 1):
            found.append(_figure(JOINT, each, f"[{j}]"))
        found += [_figure(BY_OUTPUT, each, f"[{positions}]") for positions, each in task.acceptance_by_output.items()]
        found += [_figure(LENGTHS, each, f"[{j}]") for j, each in enumerate(task.accepted_lengths)]
        for swept, each in task.block_efficiency_by_gamma.items():
            found.append(_figure(table["block_efficiency"], each, f"[γ={swept}]"))
        place = {**_place(task.task), "flags": "; ".join(task.flags) or None, "clusters": task.clusters}
        rows.extend({**place, **figure} for figure in found)
    return rows


def _sweep_rows(suite: SuiteReport) -> list[Values]:
    rows: list[Values] = []
    for cell in suite.sweep.cells if suite.sweep else ():
        at, place = f"[batch={cell.batch_size}, γ={cell.gamma}]", _place(cell.task)
        pace = _row(f"sweep_pace{at}", cell.tokens_per_second, "tokens/s", "tokens / seconds of decoding")
        rows.append({**place, **pace})
        for share, latency in (("p50", cell.latency_p50), ("p95", cell.latency_p95)):
            if latency is not None:
                meaning = f"{share[1:]} % of requests take at most so long"
                rows.append({**place, **_row(f"sweep_latency_{share}{at}", latency, "s", meaning)})
        if cell.acceptance_observed is not None:
            named = f"sweep_acceptance_observed{at}"
            rows.append(
                {**place, **_row(named, cell.acceptance_observed, "1", "accepted / tested drafts at this load")}
            )
        if cell.gamma:
            meaning = "autoregressive / speculative time, same batch"
            rows.append({**place, **_row(f"sweep_speedup{at}", cell.speedup, "1", meaning)})
    for best in suite.sweep.best if suite.sweep else ():
        name, meaning = f"sweep_best[batch={best.batch_size}, γ={best.gamma}]", "γ chosen on the other half, for all"
        rows.append(_row(name, best.total, "1", meaning))
        rows.extend({**_place(task), **_row(name, each, "1", meaning)} for task, each in best.speedup.items())
    return rows


def _across_rows(suite: SuiteReport) -> list[Values]:
    table = across()
    floor = table["unfairness_floor"]
    return [
        *(_figure(table[name], each) for name, each in suite.across.items()),
        _row("noise_floor", Estimate(value=suite.noise_floor), floor.unit, floor.definition),
    ]


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """Every change of the comparison, one a row, with its interval and unit: `COLUMNS["comparison"]`."""
    return _frame("comparison", (row for suite in comparison.suites for row in _comparison_rows(suite)))


def _comparison_rows(suite: SuiteComparison) -> Iterable[Values]:
    table, between = measures(gamma=1), across()
    for name, by_task in suite.differences.items():
        for task, each in by_task.items():
            yield {
                **_figure(table[name], each),
                **_place(task),
                "suite": suite.suite,
                "change": "difference",
                "flags": "levelled down" if task in suite.levelled_down else None,
                "clusters": suite.clusters[task],
            }
    spreads = [("unfairness", "difference", suite.unfairness, between["unfairness"].unit)]
    spreads += [(name, "relative", each, "1") for name, each in suite.relative.items()]
    for name, change, each, unit in spreads:
        yield {**_row(name, each, unit, between[name].definition), "suite": suite.suite, "change": change}


# --------------------------------------------------------------------------- lines


def lines_frame(config: RunConfig, lines: Lines, kind: str) -> pd.DataFrame:
    """A run's lines of one kind, in order of their keys, one a row: `COLUMNS[kind]`.

    Raises `FairspecError` for a kind that no run has, and for lines that contradict each other.
    """
    if kind not in LINES:
        raise FairspecError(f"lines {kind!r}: unknown. Known: {', '.join(LINES)}.")
    return _frame(kind, _rows(kind, load_run_data(config, lines)))


def _prompt(data: RunData, key: str) -> Values:
    task, cluster = PromptKey(key).task, data.config.clusters.get(key, key)
    return {"key": key, "suite": PromptKey(key).suite, "language": Task(task).language, "cluster": cluster}


def _plain(data: RunData, lines: Mapping[str, Any]) -> Iterable[Values]:
    return ({**dict(lines[key]), **_prompt(data, key)} for key in sorted(lines))


def _references(data: RunData) -> Iterable[Values]:
    tokens = {key: len(reference.ids) for key, reference in data.references.items()}
    return ({**row, "tokens": tokens[str(row["key"])]} for row in _plain(data, data.references))


def _answers(data: RunData, answers: Mapping[str, Answer]) -> Iterable[Values]:
    for key in sorted(answers):
        answer = answers[key]
        yield {**dict(answer), **_prompt(data, key), "answer_language": answer.language}


def _replays(data: RunData) -> Iterable[Values]:
    keys = sorted(data.replays)
    found = [data.replays[key] for key in keys]
    expected = expected_blocks([chances(each, data.references[each.key]) for each in found], data.config.gamma)
    tested, accepted = expected.tested.sum(axis=1), expected.accepted.sum(axis=1)

    for place, replay in enumerate(found):
        count = replay.contexts

        def mean(total: float | None, count: int = count) -> float | None:
            return None if total is None or not count else total / count

        yield {
            **dict(replay),
            **_prompt(data, replay.key),
            "acceptance": mean(replay.alpha),
            "overlap": mean(replay.overlap),
            "misfit": mean(replay.kl),
            "misfit_ce": mean(replay.cross_entropy),
            "verifier_entropy": mean(replay.verifier_entropy),
            "blocks": expected.blocks[place],
            "tested": tested[place],
            "accepted": accepted[place],
        }


def _timings(data: RunData) -> Iterable[Values]:
    for timing in data.timings:
        drafted = timing.mode == "speculative"
        tested, accepted = live_drafts(timing, data.config.gamma) if drafted else (None, None)
        yield {
            **dict(timing.step_times),
            **dict(timing),
            **_prompt(data, timing.key),
            "blocks": len(timing.blocks) or None,
            "tested": tested,
            "accepted": accepted,
        }


def _sweeps(data: RunData) -> Iterable[Values]:
    for line in data.throughputs:
        task = PromptKey(line.chunk).task
        yield {**dict(line), "suite": Task(task).suite, "language": Task(task).language}


_ROWS: Mapping[str, Callable[[RunData], Iterable[Values]]] = {
    "reference": _references,
    "answer": lambda data: _answers(data, data.answers),
    "replay": _replays,
    "drafter_answer": lambda data: _answers(data, data.drafter_answers),
    "race": _timings,
    "sweep": _sweeps,
    "dropped": lambda data: _plain(data, data.dropped),
}
"""The rows of a stage where they are not its lines as they are."""


def _rows(kind: str, data: RunData) -> Iterable[Values]:
    return _ROWS[kind](data) if kind in _ROWS else _plain(data, getattr(data, STAGES[kind].field))


# --------------------------------------------------------------------------- files


def csv(frame: pd.DataFrame) -> str:
    """A frame as CSV: null is an empty cell, and no text is a formula to a spreadsheet."""
    texts = (str(name) for name, column in frame.items() if column.dtype == TEXT)
    harmless = {name: frame[name].map(spreadsheet, na_action="ignore") for name in texts}
    return frame.assign(**harmless).to_csv(index=False, lineterminator="\n")


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet: the types of its columns are kept, null is null."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
