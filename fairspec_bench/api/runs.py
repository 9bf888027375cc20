"""Runs: planned, made, merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

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


REFERENCES, STATES = "references", "verifier-states"
"""Folders beside the runs of several drafters: the verifier's texts, without a cache of all runs, and its pass over
them."""


@overload
def run(
    verifier: str, drafter: str | None, suites: Sequence[str], out: str | Path | None = None, **options: Any
) -> Report: ...


@overload
def run(
    verifier: str, drafter: Sequence[str], suites: Sequence[str], out: str | Path | None = None, **options: Any
) -> dict[str, Report]: ...


@takes(*RUN)
def run(
    verifier: str,
    drafter: str | Sequence[str] | None,
    suites: Sequence[str],
    out: str | Path | None = None,
    *,
    executor: Literal["local", "ray"] = "local",
    workers: int | None = None,
    cache: Path | Literal["default"] | None = "default",
    on_progress: ProgressCallback | None = None,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Report | dict[str, Report]:
    """Score a pair on suites in the run folder `out`; → its report. The same call resumes an interrupted run.

    Several drafters: each has a run folder of its own below `out`; → their reports by the drafters' names. References
    and the verifier's pass over them are made once. A drafter that is added later costs no more than the others.

    Args:
        verifier: a folder, a Hub id or `embedded:verifier`.
        drafter: likewise, or `lookup`, `lookup:3`, `oracle:0.8`; `None`: the verifier alone; or several of them.
        suites: their names.
        out: the run folder, `runs/VERIFIER--DRAFTER` by default; of several drafters `runs/VERIFIER`.
        executor: `local`, or `ray` with that many `workers` (by default one per GPU, or per machine).
        cache: the folder that keeps references for other runs, `None`: they are not kept.
        on_progress: called after every chunk of work.
        say: called with a line about the backend that was chosen, and about lost workers.
        **options: docs/OPTIONS.md. With `shard=(i, n)` the report is that of one shard; `merge` joins them.

    Raises:
        FairspecError: for anything that the user can correct, in one line.
    """
    folder = Path(out) if out is not None else default_out(verifier, drafter)
    folders = run_folders(folder, drafter)
    asked = {each: run_options(verifier, each, suites, **options) for each in folders}
    check_values(ExecutionOptions(executor=executor, workers=workers))
    for chosen in asked.values():
        check_run(chosen)
    kept, tell = cache_folder() if cache == "default" else cache, say or (lambda line: None)
    several = not (drafter is None or isinstance(drafter, str))
    references, states = (kept or folder / REFERENCES, folder / STATES) if several else (kept, None)

    def made(name: str | None) -> Report:
        """The models of one run go before those of the next come."""
        from fairspec_bench.scoring.executors import registry
        from fairspec_bench.scoring.run import execute

        with registry.start(
            executor, asked[name], cache=references, states=states, workers=workers, say=tell
        ) as started:
            unfollowed = warning(started.config.verifier.name, started.config.generation_config_not_followed)
            found = (*started.config.end_warnings, *started.config.vocabulary_warnings)
            for note in filter(None, (*started.notes, unfollowed, *found)):
                tell(f"note: {note}")
            return execute(started, folders[name], watch=on_progress)

    if drafter is None or isinstance(drafter, str):
        return made(drafter)
    return {name: made(name) for name in drafter}


@overload
def plan(verifier: str, drafter: str | None, suites: Sequence[str], **options: Any) -> Plan: ...


@overload
def plan(verifier: str, drafter: Sequence[str], suites: Sequence[str], **options: Any) -> dict[str, Plan]: ...


@takes(*RUN)
def plan(
    verifier: str, drafter: str | Sequence[str] | None, suites: Sequence[str], **options: Any
) -> Plan | dict[str, Plan]:
    """What the same call of `run` would take: tokens, memory, disk, hours. Raises `FairspecError`.

    Of several drafters: by name, what each adds to those before it; only one pair is in memory at a time.
    """
    asked = {name: run_options(verifier, name, suites, **options) for name in run_folders(Path(), drafter)}
    for chosen in asked.values():
        check_run(chosen)
        if chosen.backend is not None and BACKENDS[chosen.backend].serves:
            raise FairspecError(
                f"backend={chosen.backend}: a plan times this engine, not another. Leave --backend out."
            )
    from fairspec_bench.scoring.plan import plan_run

    if drafter is None or isinstance(drafter, str):
        return plan_run(asked[drafter])
    first = drafter[0]
    return {name: plan_run(asked[name], "makes" if name == first else "uses") for name in drafter}


def default_out(verifier: str, drafter: str | Sequence[str] | None) -> Path:
    """`runs/VERIFIER--DRAFTER`, each by the last part of its name; `runs/VERIFIER` for several drafters."""
    if drafter is None or isinstance(drafter, str):
        return Path("runs") / f"{slug(verifier)}--{slug(drafter or 'none')}"
    return Path("runs") / slug(verifier)


def run_folders(out: Path, drafter: str | Sequence[str] | None) -> dict[str | None, Path]:
    """The run folder of each drafter: `out` itself, or one below it for each of several.

    Raises `FairspecError` for none, or for two of the same folder.
    """
    if drafter is None or isinstance(drafter, str):
        return {drafter: out}
    if not drafter:
        raise FairspecError("no drafter is named. Name at least one, or None for the verifier alone.")
    folders: dict[str | None, Path] = {}
    for name in drafter:
        folder = out / slug(name)
        if folder in folders.values():
            raise FairspecError(f"{name}: another drafter has the folder {folder.name} too. Run one of them by itself.")
        folders[name] = folder
    return folders


def merge(out: str | Path, shards: Sequence[str | Path]) -> Report:
    """Join the shards of a run made with `shard=(i, n)`; → the report of the whole. Raises `FairspecError`."""
    from fairspec_bench.scoring.merge import merge as join

    return report(join(Path(out), [Path(shard) for shard in shards]).path)
