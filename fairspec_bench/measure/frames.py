"""A report, a comparison and a run's lines as pandas frames: tidy, typed, each column with its unit.

Knows columns, types and units; computes nothing but per-prompt means of sums. `COLUMNS` says what every frame holds.
Text is `str`, "no data" null; no column is of objects, so that a frame is the same after Parquet.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from fairspec_bench.measure.acceptance import chances, expected_blocks, live_drafts
from fairspec_bench.measure.catalogue import across, measures
from fairspec_bench.measure.compare import Comparison, SuiteComparison
from fairspec_bench.measure.escape import spreadsheet
from fairspec_bench.measure.lines import Book, Lines, language_of, open_book, suite_of, task_of
from fairspec_bench.records import (
    Answer,
    Departure,
    Dropped,
    Estimate,
    FairspecError,
    Report,
    RunConfig,
    SuiteReport,
    Trace,
)

Values = dict[str, object]
TEXT, FLOAT, COUNT, FLAG = "str", "float64", "Int64", "boolean"


@dataclass(frozen=True)
class Column:
    """A column of a frame: its pandas type, its unit (empty for what has none) and what it holds."""

    name: str
    dtype: str
    unit: str
    meaning: str


def _columns(*told: tuple[str, str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*each) for each in told)


_FIGURE = _columns(
    ("value", FLOAT, "that of `unit`", "the figure"),
    ("low", FLOAT, "that of `unit`", "lower end of its 95 % interval"),
    ("high", FLOAT, "that of `unit`", "upper end of its 95 % interval"),
    ("unit", TEXT, "", "unit of the figure, `1` for a ratio"),
)
_TASK = _columns(
    ("suite", TEXT, "", "the suite"),
    ("task", TEXT, "", "`suite/language`; null for a figure across languages"),
    ("language", TEXT, "", "language, or other task; null for a figure across languages"),
)
_PROMPT = _columns(
    ("key", TEXT, "", "the prompt, `suite/language/number`"),
    ("suite", TEXT, "", "its suite"),
    ("language", TEXT, "", "its language, or other task"),
    ("cluster", TEXT, "", "the problem that it shares with other languages: what intervals resample"),
)
_SHARD = _columns(("shard", TEXT, "", "the shard of the run that it was made in"))
_ANSWER = _columns(
    ("correct", FLAG, "", "whether the answer is right; null where a suite has no right answers"),
    ("answer_language", TEXT, "", "language the answer was found to be in"),
    ("looping", FLAG, "", "whether it runs in circles"),
    ("chars", COUNT, "characters", "its length"),
    ("bytes", COUNT, "bytes", "its length in UTF-8"),
    ("target_nats", FLOAT, "nats", "−ln p of the suite's reference text, where it has one"),
    ("target_bytes", COUNT, "bytes", "length of that text in UTF-8"),
)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "report": (
        *_TASK,
        Column("measure", TEXT, "", "name of the figure, as METRICS has it"),
        *_FIGURE,
        *_columns(
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
        *_columns(
            ("flags", TEXT, "", "`levelled down` where the task's acceptance surely fell"),
            ("definition", TEXT, "", "what the figure is, in words"),
            ("clusters", COUNT, "problems", "problems it rests on; null across languages"),
        ),
    ),
    "trace": (
        *_PROMPT,
        *_columns(
            ("tokens", COUNT, "tokens", "length of the verifier's text"),
            ("finish", TEXT, "", "why it ends: `eos`, `stop` or `cap`"),
        ),
        *_SHARD,
    ),
    "answer": (*_PROMPT, *_ANSWER),
    "drafter_answer": (*_PROMPT, *_ANSWER),
    "replay": (
        *_PROMPT,
        *_columns(
            ("contexts", COUNT, "tokens", "tokens after the first: those that blocks commit"),
            ("acceptance", FLOAT, "1", "mean alpha"),
            ("overlap", FLOAT, "1", "mean alpha at temperature 1 on the full softmax"),
            ("misfit", FLOAT, "nats", "mean KL(p‖q)"),
            ("misfit_ce", FLOAT, "nats", "mean cross-entropy of q under p"),
            ("verifier_entropy", FLOAT, "nats", "mean entropy of p"),
            ("blocks", FLOAT, "blocks", "verifier calls after prefill; under sampling an expectation"),
            ("tested", FLOAT, "tokens", "drafts that were tested; under sampling an expectation"),
            ("accepted", FLOAT, "tokens", "drafts that were accepted; under sampling an expectation"),
            ("departures", COUNT, "contexts", "where the verifier's own argmax, here, is likelier than the text's"),
            ("largest_gap", FLOAT, "nats", "by how much at most"),
        ),
        *_SHARD,
    ),
    "departure": (
        *_PROMPT,
        *_columns(
            ("first", COUNT, "position", "first output position, from 1, that is not float32's; null for none"),
            ("gap", FLOAT, "nats", "by how much float32's own is likelier there"),
        ),
        *_SHARD,
    ),
    "timing": (
        *_PROMPT,
        *_columns(
            ("mode", TEXT, "", "`autoregressive`, `speculative` or `control`"),
            ("round", COUNT, "", "round of the race, from 0"),
            ("order", COUNT, "", "place of this mode within its prompt and round"),
            ("context", COUNT, "tokens", "length of the prompt"),
            ("tokens", COUNT, "tokens", "length of the text"),
            ("blocks", COUNT, "blocks", "blocks of the decode; null without a drafter, or where an engine hides them"),
            ("tested", COUNT, "tokens", "drafts that were tested; null without a drafter"),
            ("accepted", COUNT, "tokens", "drafts that were accepted; null without a drafter"),
            ("left_at", COUNT, "position", "where a serving engine's text leaves the reference; null for nowhere"),
            ("prefill_ns", COUNT, "ns", "the verifier's prefill"),
            ("drafter_prefill_ns", COUNT, "ns", "the drafter's prefill"),
            ("decode_ns", COUNT, "ns", "all steps after both prefills"),
            ("draft_first_ns", COUNT, "ns", "of these, first drafter steps of blocks"),
            ("draft_first", COUNT, "steps", "how many those were"),
            ("draft_next_ns", COUNT, "ns", "further drafter steps of blocks"),
            ("draft_next", COUNT, "steps", "how many those were"),
            ("verify_ns", COUNT, "ns", "verifier steps"),
            ("verify", COUNT, "steps", "how many those were"),
            ("rest_ns", COUNT, "ns", "everything else"),
        ),
        *_SHARD,
    ),
    "sweep": _columns(
        ("suite", TEXT, "", "the suite"),
        ("language", TEXT, "", "language, or other task"),
        ("half", COUNT, "", "0: the half of the prompts that chooses γ; 1: the half that reports it"),
        ("batch_size", COUNT, "prompts", "rows decoded together"),
        ("gamma", COUNT, "tokens", "drafts in a block; 0 is autoregressive"),
        ("round", COUNT, "", "round of the sweep, from 0"),
        ("order", COUNT, "", "place within its round"),
        ("prompts", COUNT, "prompts", "prompts decoded"),
        ("tokens", COUNT, "tokens", "output tokens of all"),
        ("prefill_ns", COUNT, "ns", "both models' prefills, added up"),
        ("decode_ns", COUNT, "ns", "all steps after them"),
        ("shard", TEXT, "", "the shard of the run that it was made in"),
    ),
    "dropped": (*_PROMPT, Column("reason", TEXT, "", "why the prompt was not run")),
}
"""What each frame holds: `report`, `comparison`, and one for each kind of a run's lines."""


def _frame(name: str, rows: Iterable[Values]) -> pd.DataFrame:
    columns = COLUMNS[name]
    frame = pd.DataFrame(list(rows), columns=[column.name for column in columns])
    return frame.astype({column.name: column.dtype for column in columns})


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


def _figure(name: str, figure: Estimate, unit: str, definition: str) -> Values:
    return {"measure": name, **dict(figure), "unit": unit, "definition": definition}


def _place(task: str) -> Values:
    return {"task": task, "language": language_of(task)}


def _task_rows(suite: SuiteReport, gamma: int) -> list[Values]:
    table = measures(gamma)
    rows: list[Values] = []
    for task in suite.tasks:
        found = [_figure(name, each, table[name].unit, table[name].definition) for name, each in task.measures.items()]
        for j, each in enumerate(task.acceptance_by_position, 1):
            found.append(_figure(f"acceptance_by_position[{j}]", each, "1", "accepted / tested"))
        for j, each in enumerate(task.acceptance_joint, 1):
            found.append(_figure(f"acceptance_joint[{j}]", each, "1", "accepted / blocks"))
        for swept, each in task.block_efficiency_by_gamma.items():
            found.append(_figure(f"block_efficiency[γ={swept}]", each, "tokens", "tokens emitted / blocks"))
        place = {**_place(task.task), "flags": "; ".join(task.flags) or None, "clusters": task.clusters}
        rows.extend({**place, **figure} for figure in found)
    return rows


def _sweep_rows(suite: SuiteReport) -> list[Values]:
    rows: list[Values] = []
    for cell in suite.sweep.cells if suite.sweep else ():
        at, place = f"[batch={cell.batch_size}, γ={cell.gamma}]", _place(cell.task)
        pace = _figure(f"sweep_pace{at}", cell.tokens_per_second, "tokens/s", "tokens / seconds of decoding")
        rows.append({**place, **pace})
        for share, latency in (("p50", cell.latency_p50), ("p95", cell.latency_p95)):
            if latency is not None:
                meaning = f"{share[1:]} % of requests take at most so long"
                rows.append({**place, **_figure(f"sweep_latency_{share}{at}", latency, "s", meaning)})
        if cell.gamma:
            meaning = "autoregressive / speculative time, same batch"
            rows.append({**place, **_figure(f"sweep_speedup{at}", cell.speedup, "1", meaning)})
    for best in suite.sweep.best if suite.sweep else ():
        name, meaning = f"sweep_best[batch={best.batch_size}, γ={best.gamma}]", "γ chosen on the other half, for all"
        rows.append(_figure(name, best.total, "1", meaning))
        rows.extend({**_place(task), **_figure(name, each, "1", meaning)} for task, each in best.speedup.items())
    return rows


def _across_rows(suite: SuiteReport) -> list[Values]:
    table = across()
    floor = table["unfairness_floor"]
    return [
        *(_figure(name, each, table[name].unit, table[name].definition) for name, each in suite.across.items()),
        _figure("noise_floor", Estimate(value=suite.noise_floor), floor.unit, floor.definition),
    ]


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """Every change of the comparison, one a row, with its interval and unit: `COLUMNS["comparison"]`."""
    return _frame("comparison", (row for suite in comparison.suites for row in _comparison_rows(suite)))


def _comparison_rows(suite: SuiteComparison) -> Iterable[Values]:
    table, between = measures(gamma=1), across()
    for name, by_task in suite.differences.items():
        for task, each in by_task.items():
            yield {
                **_figure(name, each, table[name].unit, table[name].definition),
                **_place(task),
                "suite": suite.suite,
                "change": "difference",
                "flags": "levelled down" if task in suite.levelled_down else None,
                "clusters": suite.clusters[task],
            }
    spreads = [("unfairness", "difference", suite.unfairness, between["unfairness"].unit)]
    spreads += [(name, "relative", each, "1") for name, each in suite.relative.items()]
    for name, change, each, unit in spreads:
        yield {**_figure(name, each, unit, between[name].definition), "suite": suite.suite, "change": change}


# --------------------------------------------------------------------------- lines


def lines_frame(config: RunConfig, lines: Lines, kind: str) -> pd.DataFrame:
    """A run's lines of one kind, in order of their keys, one a row: `COLUMNS[kind]`.

    Raises `FairspecError` for a kind that no run has, and for lines that contradict each other.
    """
    if kind not in LINES:
        raise FairspecError(f"lines {kind!r}: unknown. Known: {', '.join(LINES)}.")
    return _frame(kind, LINES[kind](open_book(config, lines)))


def _prompt(book: Book, key: str) -> Values:
    task, cluster = task_of(key), book.config.clusters.get(key, key)
    return {"key": key, "suite": suite_of(key), "language": language_of(task), "cluster": cluster}


def _plain(book: Book, lines: Mapping[str, Trace | Departure | Dropped]) -> Iterable[Values]:
    return ({**dict(lines[key]), **_prompt(book, key)} for key in sorted(lines))


def _traces(book: Book) -> Iterable[Values]:
    tokens = {key: len(trace.ids) for key, trace in book.traces.items()}
    return ({**row, "tokens": tokens[str(row["key"])]} for row in _plain(book, book.traces))


def _answers(book: Book, answers: Mapping[str, Answer]) -> Iterable[Values]:
    for key in sorted(answers):
        answer = answers[key]
        yield {**dict(answer), **_prompt(book, key), "answer_language": answer.language}


def _replays(book: Book) -> Iterable[Values]:
    keys = sorted(book.replays)
    found = [book.replays[key] for key in keys]
    expected = expected_blocks([chances(each, book.traces[each.key]) for each in found], book.config.gamma)
    tested, accepted = expected.tested.sum(axis=1), expected.accepted.sum(axis=1)

    for place, replay in enumerate(found):
        count = replay.contexts

        def mean(total: float | None, count: int = count) -> float | None:
            return None if total is None or not count else total / count

        yield {
            **dict(replay),
            **_prompt(book, replay.key),
            "acceptance": mean(replay.alpha),
            "overlap": mean(replay.overlap),
            "misfit": mean(replay.kl),
            "misfit_ce": mean(replay.cross_entropy),
            "verifier_entropy": mean(replay.verifier_entropy),
            "blocks": expected.blocks[place],
            "tested": tested[place],
            "accepted": accepted[place],
        }


def _timings(book: Book) -> Iterable[Values]:
    for timing in book.timings:
        drafted = timing.mode == "speculative"
        tested, accepted = live_drafts(timing, book.config.gamma) if drafted else (None, None)
        yield {
            **dict(timing.pieces),
            **dict(timing),
            **_prompt(book, timing.key),
            "blocks": len(timing.blocks) or None,
            "tested": tested,
            "accepted": accepted,
        }


def _sweeps(book: Book) -> Iterable[Values]:
    for line in book.throughputs:
        task = task_of(line.shard)
        yield {**dict(line), "suite": suite_of(task), "language": language_of(task)}


LINES: Mapping[str, Callable[[Book], Iterable[Values]]] = {
    "trace": _traces,
    "answer": lambda book: _answers(book, book.answers),
    "replay": _replays,
    "drafter_answer": lambda book: _answers(book, book.drafter_answers),
    "departure": lambda book: _plain(book, book.departures),
    "timing": _timings,
    "sweep": _sweeps,
    "dropped": lambda book: _plain(book, book.dropped),
}
"""The kinds of a run's lines, and the rows of each."""


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
