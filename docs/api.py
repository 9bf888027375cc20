"""Makes the API reference from docstrings: `python docs/api.py OUT`, or `make api`.

Knows which modules a user meets: the public face, what it takes and hands out, and the protocols that a how-to adds to.
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
    "records",
    "face",
    "desk",
    "health",
    "harness",
    "entries",
    "engine.backends",
    "engine.drafters",
    "engine.drafting",
    "engine.model",
    "measure.compare",
    "mitigation.card",
    "mitigation.losses",
    "mitigation.methods",
    "mitigation.trainer",
    "mitigation.weights",
    "score.plan",
    "score.prepare",
    "score.run",
    "serving.engine",
    "site.board",
    "studies.agreement",
    "studies.mend",
    "studies.reproduce",
    "submit.check",
    "submit.findings",
    "suite.data",
    "suite.pairs",
    "suite.tasks",
    "suite.tracks",
)


def main(out: Path) -> None:
    """Write the pages into `out`. Raises what pdoc warns of."""
    warnings.filterwarnings("error", module="pdoc")
    # pdoc looks for the names in a NamedTuple's fields where NamedTuple itself stands.
    warnings.filterwarnings("ignore", r"Error parsing type annotation .*\.__init__\.", module="pdoc")
    for name in fairspec_bench.__all__:
        setattr(fairspec_bench, name, getattr(fairspec_bench, name))  # they are loaded when used, which pdoc does not
    pdoc.render.configure(show_source=False, footer_text=f"fairspec-bench {version('fairspec-bench')}")
    pages = [f"fairspec_bench.{module}" for module in MODULES]
    pdoc.pdoc("fairspec_bench", "!fairspec_bench.", *pages, output_directory=out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
