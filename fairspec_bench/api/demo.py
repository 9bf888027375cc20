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
from fairspec_bench.schemas.report import Report

if TYPE_CHECKING:
    from fairspec_bench.metrics.comparison import Comparison
    from fairspec_bench.mitigation.finetune import FineTuneProgress
    from fairspec_bench.scoring.run import ProgressCallback

DEMO_SUITES = ("embedded_math", "embedded_story")
DEMO: Mapping[str, Any] = {"limit": 20, "batch_size": 20, "race_prompts": 3, "race_rounds": 5}
DEMO_QUICK: Mapping[str, Any] = {
    "languages": ("en", "ja", "te"),
    "limit": 6,
    "batch_size": 6,
    "race_prompts": 2,
    "race_rounds": 2,
}
DEMO_TRAINING: Mapping[str, Any] = {
    "prompts": ("embedded_math", "embedded_story"),
    "limit": 40,
    "steps": 40,
    "per_task": 2,
}
DEMO_QUICK_TRAINING: Mapping[str, Any] = {
    "prompts": ("embedded_math",),
    "languages": ("en", "ja", "te"),
    "limit": 15,
    "steps": 12,
}


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
    quick: bool = False,
    on_progress: ProgressCallback | None = None,
    on_training: Callable[[FineTuneProgress], None] = lambda progress: None,
) -> Demo:
    """Score the embedded pair, fine-tune its drafter with s-CDF, score it again, build the site; → all of it.

    The same call resumes an interrupted one. Raises `FairspecError`.
    """
    root, suffix = Path(out), "-quick" if quick else ""
    options, training = (DEMO_QUICK, DEMO_QUICK_TRAINING) if quick else (DEMO, DEMO_TRAINING)
    before, after = (root / f"{name}{suffix}" for name in ("embedded-pair", "embedded-pair-fine-tuned"))
    verifier, drafter = (EMBEDDED + name for name in ("verifier", "drafter"))
    first = run(verifier, drafter, DEMO_SUITES, before, on_progress=on_progress, **options)
    tuned = mitigate(
        verifier, drafter, "s-cdf", root / f"drafter-fine-tuned{suffix}", on_progress=on_training, **training
    )
    second = run(verifier, str(tuned.folder), DEMO_SUITES, after, on_progress=on_progress, **options)
    page = build_site([before, after], root / "site", changes=[(before, after)])
    return Demo(before, after, (first, second), compare(before, after), page)
