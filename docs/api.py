"""Makes the API reference from docstrings: `python docs/api.py OUT`, or `make api`.

The modules that a user meets: the public API, what it takes and returns, and the protocols that a how-to extends.
A name that cannot be documented is an error, not a warning.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pdoc

import fairspec_bench

MODULES = (
    "api.board",
    "api.demo",
    "api.doctor",
    "api.experiments",
    "api.lm_eval",
    "api.mitigation",
    "api.models",
    "api.options",
    "api.reports",
    "api.runs",
    "api.submissions",
    "api.suites",
    "engine.backends.base",
    "engine.drafters.base",
    "engine.drafters.kinds",
    "engine.drafters.registry",
    "engine.drafters.spec",
    "experiments.agreement",
    "experiments.claims",
    "experiments.reproduce",
    "metrics.advice",
    "metrics.comparison",
    "mitigation.finetune",
    "mitigation.losses",
    "mitigation.methods",
    "mitigation.model_card",
    "mitigation.trainer",
    "mitigation.weights",
    "models.model",
    "schemas.base",
    "schemas.config",
    "schemas.lines",
    "schemas.options",
    "schemas.prompts",
    "schemas.report",
    "schemas.submission",
    "scoring.executors.serving.engine",
    "scoring.plan",
    "scoring.prepare",
    "scoring.run",
    "site.board",
    "submissions.check",
    "submissions.findings",
    "suites.listing",
    "suites.pairs",
    "suites.sources.base",
    "suites.suite",
    "suites.tracks",
)


def main(out: Path) -> None:
    """Write the pages into `out`. Raises what pdoc warns of."""
    warnings.filterwarnings("error", module="pdoc")
    # pdoc looks for the names in a NamedTuple's fields where NamedTuple itself stands.
    warnings.filterwarnings("ignore", r"Error parsing type annotation .*\.__init__\.", module="pdoc")
    for name in fairspec_bench.__all__:
        setattr(fairspec_bench, name, getattr(fairspec_bench, name))  # loaded on first use, which pdoc does not do
    pdoc.render.configure(show_source=False, footer_text=f"fairspec-bench {version('fairspec-bench')}")
    pages = [f"fairspec_bench.{module}" for module in MODULES]
    pdoc.pdoc("fairspec_bench", "!fairspec_bench.", *pages, output_directory=out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
