"""fairspec-bench: who gets the speed-up of speculative decoding, measured per language, with intervals.

    import fairspec_bench as fb
    report = fb.run("embedded:verifier", "embedded:drafter", ["embedded_math"], "runs/first", limit=8)
    fb.report_frame(report)

The names below are the public face; nothing else is. They are loaded when first used, so that importing is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairspec_bench.desk import (
        board,
        build_board,
        list_tracks,
        new_track,
        submit_audit,
        submit_check,
        submit_new,
        submit_pack,
        submit_score,
    )
    from fairspec_bench.face import (
        agree,
        build_site,
        compare,
        demo,
        export,
        lines_frame,
        list_methods,
        list_pairs,
        list_suites,
        load_pair,
        load_suite,
        merge,
        mitigate,
        plan,
        report,
        report_frame,
        reproduce,
        run,
        study,
        train_testbed,
    )
    from fairspec_bench.health import doctor
    from fairspec_bench.records import FairspecError, Report, Rule

__all__ = [
    "FairspecError",
    "Report",
    "Rule",
    "agree",
    "board",
    "build_board",
    "build_site",
    "compare",
    "demo",
    "doctor",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fairspec_bench import desk, face, health, records

    return getattr(next(room for room in (face, desk, health, records) if hasattr(room, name)), name)
