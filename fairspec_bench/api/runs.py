"""Runs: planned, made, merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fairspec_bench.api.names import slug
from fairspec_bench.api.options import RUN, cache_folder, check_run, run_options
from fairspec_bench.api.reports import report
from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.generation_settings import warning
from fairspec_bench.schemas.options import ExecutionOptions, check_values, takes
from fairspec_bench.schemas.report import Report

if TYPE_CHECKING:
    from fairspec_bench.scoring.plan import Plan
    from fairspec_bench.scoring.run import ProgressCallback


@takes(*RUN)
def run(
    verifier: str,
    drafter: str | None,
    suites: Sequence[str],
    out: str | Path | None = None,
    *,
    executor: Literal["local", "ray"] = "local",
    workers: int | None = None,
    cache: Path | Literal["default"] | None = "default",
    on_progress: ProgressCallback | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Report:
    """Score a pair on suites in the run folder `out`; → its report. The same call resumes an interrupted run.

    Args:
        verifier: a folder, a Hub id or `embedded:verifier`.
        drafter: likewise, or `lookup`, `lookup:3`, `oracle:0.8`; `None`: the verifier alone.
        suites: their names.
        out: the run folder, `runs/VERIFIER--DRAFTER` by default.
        executor: `local`, or `ray` with that many `workers` (by default one per GPU, or per machine).
        cache: the folder that keeps references for other runs, `None`: they are not kept.
        on_progress: called after every chunk of work.
        say: called with a line about the backend that was chosen, and about lost workers.
        **options: docs/OPTIONS.md. With `shard=(i, n)` the report is that of one shard; `merge` joins them.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    chosen = run_options(verifier, drafter, suites, **options)
    check_values(ExecutionOptions(executor=executor, workers=workers))
    check_run(chosen)
    from fairspec_bench.scoring.executors import registry
    from fairspec_bench.scoring.run import execute

    folder = Path(out) if out is not None else default_out(verifier, drafter)
    kept, tell = cache_folder() if cache == "default" else cache, say or (lambda line: None)
    with registry.start(executor, chosen, cache=kept, workers=workers, say=tell) as started:
        unfollowed = warning(started.config.verifier.name, started.config.generation_config_not_followed)
        found = (*started.config.end_warnings, *started.config.vocabulary_warnings)
        for note in filter(None, (*started.notes, unfollowed, *found)):
            tell(f"note: {note}")
        return execute(started, folder, watch=on_progress)


@takes(*RUN)
def plan(verifier: str, drafter: str | None, suites: Sequence[str], **options: Any) -> Plan:
    """What the same call of `run` would take: tokens, memory, disk, hours. Raises `FairspecError`."""
    chosen = run_options(verifier, drafter, suites, **options)
    check_run(chosen)
    if chosen.backend is not None and BACKENDS[chosen.backend].serves:
        raise FairspecError(f"backend={chosen.backend}: a plan times this engine, not another. Leave --backend out.")
    from fairspec_bench.scoring.plan import plan_run

    return plan_run(chosen)


def default_out(verifier: str, drafter: str | None) -> Path:
    """`runs/VERIFIER--DRAFTER`, each by the last part of its name."""
    return Path("runs") / f"{slug(verifier)}--{slug(drafter or 'none')}"


def merge(out: str | Path, shards: Sequence[str | Path]) -> Report:
    """Join the shards of a run made with `shard=(i, n)`; → the report of the whole. Raises `FairspecError`."""
    from fairspec_bench.scoring.merge import merge as join

    return report(join(Path(out), [Path(shard) for shard in shards]).path)
