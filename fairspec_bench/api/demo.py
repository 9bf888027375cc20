"""The whole way on the embedded pair: score, fine-tune, score again, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairspec_bench.api.mitigation import mitigate
from fairspec_bench.api.reports import build_site, compare
from fairspec_bench.api.runs import run
from fairspec_bench.models.hub import EMBEDDED
from fairspec_bench.schemas.base import unknown
from fairspec_bench.schemas.report import Report

if TYPE_CHECKING:
    from fairspec_bench.metrics.comparison import Comparison
    from fairspec_bench.scoring.run import ProgressCallback

SUITES = ("embedded_math",)
DEMO: Mapping[str, Any] = {"limit": 16, "batch_size": 16, "race_prompts": 2, "race_rounds": 5}
DEMO_TRAINING: Mapping[str, Any] = {"prompts": SUITES, "limit": 40, "steps": 40, "per_task": 2}
EMBEDDED_SUITES = ("embedded_math", "embedded_story")
FULL: Mapping[str, Any] = {"limit": 20, "batch_size": 20, "race_prompts": 3, "race_rounds": 5}
FULL_TRAINING: Mapping[str, Any] = {**DEMO_TRAINING, "prompts": EMBEDDED_SUITES}
QUICK: Mapping[str, Any] = {"languages": ("en", "ja", "te"), "limit": 6, "batch_size": 6, "race_prompts": 2} | {
    "race_rounds": 2
}
QUICK_TRAINING: Mapping[str, Any] = {"prompts": SUITES, "languages": ("en", "ja", "te"), "limit": 15, "steps": 12}
SIZES = {
    "demo": (SUITES, DEMO, DEMO_TRAINING),
    "full": (EMBEDDED_SUITES, FULL, FULL_TRAINING),
    "quick": (SUITES, QUICK, QUICK_TRAINING),
}
PARTS = {"score": 0.35, "fine-tune": 0.25, "score again": 0.35, "page": 0.05}
"""The share of the time that each part takes, roughly: for progress."""


@dataclass(frozen=True)
class Demo:
    """What the demo made: run folders and reports before and after fine-tuning, and the first page of the site."""

    before: Path
    after: Path
    reports: tuple[Report, Report]
    change: Comparison
    page: Path


def demo(
    out: str | Path = "runs/demo",
    *,
    size: str = "demo",
    on_progress: Callable[[str, float, float], None] = lambda label, done, total: None,
) -> Demo:
    """Score the embedded pair, fine-tune its drafter with s-CDF, score it again, build the site; → all of it.

    `size` is one of `SIZES`. `on_progress` is called with what was just done, how much of all work and 1. The same
    call resumes an interrupted one. Raises `FairspecError`.
    """
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    suites, options, training = SIZES[size]
    root, suffix = Path(out), "" if size == "demo" else f"-{size}"
    before, after = (root / f"{name}{suffix}" for name in ("embedded-pair", "embedded-pair-fine-tuned"))
    verifier, drafter = (EMBEDDED + name for name in ("verifier", "drafter"))

    def part(name: str, label: str, done: float, total: float) -> None:
        first = sum(share for each, share in PARTS.items() if list(PARTS).index(each) < list(PARTS).index(name))
        on_progress(f"{name}: {label}", first + PARTS[name] * done / total, 1.0)

    def scored(name: str) -> ProgressCallback:
        return lambda now: part(name, f"{now.unit.stage} {now.unit.task.language}", now.done, now.total)

    first = run(verifier, drafter, suites, before, on_progress=scored("score"), **options)
    tuned = mitigate(
        verifier,
        drafter,
        "s-cdf",
        root / f"drafter-fine-tuned{suffix}",
        on_progress=lambda now: part("fine-tune", now.label, now.done, now.total),
        **training,
    )
    second = run(verifier, str(tuned.folder), suites, after, on_progress=scored("score again"), **options)
    part("page", "build", 0, 1)
    page = build_site([before, after], root / "site", changes=[(before, after)])
    return Demo(before, after, (first, second), compare(before, after), page)
