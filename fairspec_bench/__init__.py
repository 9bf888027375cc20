"""fairspec-bench: who gets the speed-up of speculative decoding, measured per language, with intervals.

    import fairspec_bench as fairspec
    report = fairspec.run("embedded:verifier", "embedded:drafter", ["embedded_math"], "runs/first", limit=8)
    fairspec.report_frame(report)

The names below are the public API. They are loaded when first used, so that importing is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairspec_bench.api.board import board, build_board
    from fairspec_bench.api.demo import demo
    from fairspec_bench.api.doctor import doctor, examine_pair
    from fairspec_bench.api.experiments import agree, reproduce, study
    from fairspec_bench.api.mitigation import list_methods, mitigate, train_testbed
    from fairspec_bench.api.models import list_pairs, load_pair
    from fairspec_bench.api.reports import advise, build_site, compare, export, lines_frame, report, report_frame
    from fairspec_bench.api.runs import merge, plan, run
    from fairspec_bench.api.submissions import (
        list_tracks,
        new_track,
        submit_audit,
        submit_check,
        submit_new,
        submit_pack,
        submit_score,
    )
    from fairspec_bench.api.suites import list_suites, load_suite
    from fairspec_bench.schemas.base import FairspecError
    from fairspec_bench.schemas.config import SamplingParams
    from fairspec_bench.schemas.report import Report

__all__ = [
    "FairspecError",
    "Report",
    "SamplingParams",
    "advise",
    "agree",
    "board",
    "build_board",
    "build_site",
    "compare",
    "demo",
    "doctor",
    "examine_pair",
    "export",
    "lines_frame",
    "list_methods",
    "list_pairs",
    "list_suites",
    "list_tracks",
    "load_pair",
    "load_suite",
    "merge",
    "mitigate",
    "new_track",
    "plan",
    "report",
    "report_frame",
    "reproduce",
    "run",
    "study",
    "submit_audit",
    "submit_check",
    "submit_new",
    "submit_pack",
    "submit_score",
    "train_testbed",
]


_HOMES = {
    "api.board": (
        "board",
        "build_board",
    ),
    "api.demo": ("demo",),
    "api.doctor": ("doctor", "examine_pair"),
    "api.experiments": (
        "agree",
        "reproduce",
        "study",
    ),
    "api.mitigation": (
        "list_methods",
        "mitigate",
        "train_testbed",
    ),
    "api.models": (
        "list_pairs",
        "load_pair",
    ),
    "api.reports": (
        "advise",
        "build_site",
        "compare",
        "export",
        "lines_frame",
        "report",
        "report_frame",
    ),
    "api.runs": (
        "merge",
        "plan",
        "run",
    ),
    "api.submissions": (
        "list_tracks",
        "new_track",
        "submit_audit",
        "submit_check",
        "submit_new",
        "submit_pack",
        "submit_score",
    ),
    "api.suites": (
        "list_suites",
        "load_suite",
    ),
    "schemas.base": ("FairspecError",),
    "schemas.config": ("SamplingParams",),
    "schemas.report": ("Report",),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
