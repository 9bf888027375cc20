"""Made-up submissions for the site's tests: one real report and its sums, moved about.

Knows the committed run of the built-in pair. Every figure that is ranked follows from the moved sums, so that tables
and ranks agree; the rest is the real drafter's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fairspec_bench.metrics.prompt_sums import prompt_sums
from fairspec_bench.metrics.run_data import Lines
from fairspec_bench.schemas.keys import PromptKey
from fairspec_bench.schemas.lines import Answer, Reference, Replay
from fairspec_bench.schemas.report import Estimate, RaceVerdict, Report
from fairspec_bench.schemas.submission import (
    Audit,
    AuditedTask,
    DrafterEntry,
    FreshTask,
    PromptSums,
    Submission,
    Verified,
)
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.site.board import Entry
from fairspec_bench.suites.tracks import Track, load_track

RUN = Path(__file__).parents[2] / "docs" / "results" / "embedded-pair"
SUITES = ("embedded_math", "embedded_story")
HALF = 0.012  # of every interval of a ranked figure
VERDICTS = (
    RaceVerdict(status="quiet", ratio=Estimate(value=1.002, low=0.995, high=1.009), rounds=5),
    RaceVerdict(status="noisy", ratio=Estimate(value=1.09, low=1.05, high=1.13), rounds=5),
)


@cache
def real() -> tuple[Report, PromptSums]:
    """The committed report and the sums of all its prompts."""
    folder = RunFolder(RUN)
    lines = Lines(
        references=folder.lines("reference", Reference),
        answers=folder.lines("answer", Answer),
        replays=folder.lines("replay", Replay),
    )
    return make_report(folder), prompt_sums(folder.config, lines)


@cache
def ground(prompts: int, languages: tuple[str, ...] = ()) -> tuple[Report, PromptSums]:
    """The first `prompts` of every task, in these languages (all by default)."""
    report, sums = real()
    kept = [
        place
        for place, key in enumerate(sums.keys)
        if int(PromptKey(key).number) < prompts and (not languages or PromptKey(key).language in languages)
    ]
    small = PromptSums(
        keys=tuple(sums.keys[place] for place in kept),
        clusters=tuple(sums.clusters[place] for place in kept),
        columns={name: tuple(values[place] for place in kept) for name, values in sums.columns.items()},
    )
    if not languages:
        return report, small
    suites = tuple(s.model_copy(update={"languages": languages}) for s in report.config.suites)
    config = report.config.model_copy(update={"suites": suites})
    reports = tuple(
        s.model_copy(update={"tasks": tuple(t for t in s.tasks if t.language in languages)}) for s in report.suites
    )
    return report.model_copy(update={"config": config, "suites": reports}), small


def track(**changes: Any) -> Track:
    """The track of the built-in pair."""
    return load_track("embedded").model_copy(update=changes)


def entry(slug: str, number: int = 0, *, audit: Audit | None = None, **options: Any) -> Entry:
    return Entry(slug, verified(slug, number, **options), (), audit)


def verified(
    slug: str,
    number: int = 0,
    *,
    prompts: int = 6,
    languages: tuple[str, ...] = (),
    shift: float | None = None,
    raced: bool = False,
    quiet: bool = True,
    q: bool = True,
    submission: dict[str, Any] | None = None,
    drafter: dict[str, Any] | None = None,
) -> Verified:
    """Submission `number`: acceptance moved by `shift` (drawn by default) and a little by language."""
    report, sums = ground(prompts, languages)
    generator = np.random.default_rng(number)
    tasks = [task.task for suite in report.suites for task in suite.tasks]
    base = generator.normal(0, 0.05) if shift is None else shift
    moves = {task: base + float(generator.normal(0, 0.03)) for task in tasks}
    widths = {task: float(generator.normal(0, 0.35)) for task in tasks}
    columns = _moved(sums, moves, widths, q, generator)
    figures = {task: _acceptance(sums, columns, task) for task in tasks}
    fields = submission or {}
    made = Submission(
        schema_version=2,
        name=fields.get("name", slug.replace("-", " ").capitalize()),
        description=fields.get("description", f"A drafter made up for a test, number {number}."),
        authors=fields.get("authors", ["A. Nother", "ปิยะ"]),
        contact=fields.get("contact", "a@example.org"),
        licence="Apache-2.0",
        url=fields.get("url", "https://example.org/drafter"),
        track=fields.get("track", "embedded"),
        drafter=DrafterEntry(
            **{
                "kind": "model",
                "repo": "example/drafter",
                "revision": "a" * 40,
                "parameters": 463_232,
                "files": {"model.safetensors": _digest(slug, "weights")},
                "training_data": "The embedded corpus",
                "trained_on_suite_data": False,
                **(drafter or {}),
            }
        ),
    )
    return Verified(
        manifest_sha256=_digest(slug, "manifest"),
        reference_sha256=track().reference_sha256 or "",
        entry=made,
        report=_report(report, figures, widths, raced, quiet, q),
        sums=sums.model_copy(update={"columns": columns}),
    )


def _digest(*parts: str) -> str:
    return sha256("/".join(parts).encode()).hexdigest()


def _moved(
    sums: PromptSums, moves: dict[str, float], widths: dict[str, float], q: bool, generator: np.random.Generator
) -> dict[str, tuple[float | None, ...]]:
    """The columns with alpha and KL moved; without a `q`, KL and cross-entropy are unknown."""
    move, width = (np.array([each[PromptKey(key).task] for key in sums.keys]) for each in (moves, widths))
    contexts = np.array(sums.columns["contexts"], dtype=float)
    luck = generator.normal(0, 0.03, len(move))
    alpha = np.clip(np.array(sums.columns["alpha"], dtype=float) + (move + luck) * contexts, 0, contexts)
    kl = np.array(sums.columns["kl"], dtype=float) * np.exp(width)
    columns: dict[str, tuple[float | None, ...]] = dict(sums.columns)
    columns["alpha"], columns["kl"] = tuple(alpha.tolist()), tuple(kl.tolist())
    if not q:
        columns["kl"] = columns["cross_entropy"] = (None,) * len(sums.keys)
    return columns


def _acceptance(sums: PromptSums, columns: dict[str, tuple[float | None, ...]], task: str) -> float:
    places = [place for place, key in enumerate(sums.keys) if PromptKey(key).task == task]
    return sum(columns["alpha"][p] or 0 for p in places) / sum(columns["contexts"][p] or 0 for p in places)


def around(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - half), high=value + half)


def _report(
    report: Report, figures: dict[str, float], widths: dict[str, float], raced: bool, quiet: bool, q: bool
) -> Report:
    suites = []
    for suite in report.suites:
        tasks = []
        for task in suite.tasks:
            value = figures[task.task]
            measures = {**task.measures, "acceptance": around(value, HALF)}
            misfit = (task.measures["misfit"].value or 0.0) * float(np.exp(widths[task.task]))
            measures["misfit"] = around(misfit, 0.05) if q else Estimate()
            if raced:
                measures |= _race(value)
            tasks.append(task.model_copy(update={"measures": measures}))
        suites.append(suite.model_copy(update={"tasks": tuple(tasks), **_between(tasks, raced, q)}))
    verdict = VERDICTS[not quiet] if raced else report.race_verdict
    return report.model_copy(update={"suites": tuple(suites), "race_verdict": verdict})


def _race(value: float) -> dict[str, Estimate]:
    speedup = 0.55 + 1.5 * value
    alone = 2.4 - 0.8 * value
    return {
        "speedup": around(speedup, 0.04),
        "speedup_end_to_end": around(0.95 * speedup, 0.04),
        "seconds_per_answer_autoregressive": around(alone, 0.03),
        "seconds_per_answer": around(alone / speedup, 0.03),
    }


def _between(tasks: Sequence[Any], raced: bool, q: bool) -> dict[str, Any]:
    """The figures across languages, from theirs."""
    value = [task.measures["acceptance"].value for task in tasks]
    misfit = [task.measures["misfit"].value or 0.0 for task in tasks]
    across = {"mean_acceptance": around(float(np.mean(value)), HALF / 2), "worst_acceptance": around(min(value), HALF)}
    if q:
        u = float(np.mean((np.array(misfit) - min(misfit)) ** 2))
        across["unfairness"] = around(u, 0.08 * u)
    if raced:
        pace = [task.measures["speedup"].value for task in tasks]
        across["mean_speedup"], across["worst_speedup"] = around(float(np.mean(pace)), 0.02), around(min(pace), 0.05)
    order = sorted(range(len(tasks)), key=lambda place: -value[place])
    ranks = {tasks[place].task: (max(1, n), min(len(tasks), n + 2)) for n, place in enumerate(order)}
    return {"across": across, "noise_floor": 0.0021 if q else None, "ranks": ranks}


def audit(verified: Verified, **changes: Any) -> Audit:
    """An audit that reproduced this submission."""
    tasks = sorted({PromptKey(key).task for key in verified.sums.keys})
    sample = tuple(
        AuditedTask(
            task=task,
            prompts=45,
            contexts=410,
            same_drafts=0.999,
            chance_difference=0.0004,
            acceptance_claimed=0.81,
            acceptance_found=0.809,
            misfit_claimed=0.71,
            misfit_found=0.712,
            overlap_claimed=0.78,
            overlap_found=0.78,
        )
        for task in tasks
    )
    fresh = tuple(
        FreshTask(
            task=task, prompts=10, public=around(0.81, 0.01), fresh=around(0.8, 0.02), difference=around(0.01, 0.005)
        )
        for task in tasks
    )
    return Audit(
        manifest_sha256=verified.manifest_sha256,
        auditor="M. Aintainer",
        date="2026-11-21",
        seed=17,
        rule="99 % of drafts the same; public − fresh below .03",
        machine="Example CPU",
        sample=sample,
        reproduced=True,
        fresh=fresh,
        fresh_over_all=around(0.01, 0.005),
        generalises=True,
    ).model_copy(update=changes)


def many(count: int, **options: Any) -> list[Entry]:
    """Entries of one track: a third raced, some tuned from the first, some without a q."""
    found = [entry("baseline", 0, shift=0.0, raced=True, **options)]
    for number in range(1, count):
        tuned = number % 5 == 1
        found.append(
            entry(
                f"drafter-{number:04}",
                number,
                raced=number % 3 == 0,
                quiet=number % 9 != 0,
                q=number % 11 != 7,
                drafter={
                    "kind": "model" if number % 11 != 7 else "lookup",
                    "fine_tuned_from": "baseline" if tuned else None,
                    "method": "s-cdf" if tuned else None,
                },
                **options,
            )
        )
    return found
