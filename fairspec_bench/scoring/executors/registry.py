"""Who makes the lines of a run: executors by name, each a file of its own and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path

from fairspec_bench.schemas.backends import BACKENDS
from fairspec_bench.schemas.base import FairspecError, unknown
from fairspec_bench.schemas.options import RunOptions
from fairspec_bench.scoring.executors.base import Executor
from fairspec_bench.scoring.executors.local import LocalExecutor
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.scheduler import Say

LOCAL = "local"
Start = Callable[[RunOptions, Path | None, Path | None, int | None, Say], AbstractContextManager[Executor]]


def start(
    name: str, ask: RunOptions, *, cache: Path | None, states: Path | None = None, workers: int | None, say: Say
) -> AbstractContextManager[Executor]:
    """An executor by its name, for as long as the context lasts; with a serving backend that engine's.

    `cache` keeps references for other runs and `states`, if the executor is local, the verifier's pass over them.
    `workers`: how many, where that is a choice; `say` gets a line for what went wrong and was worked around. Raises
    `FairspecError`.
    """
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if workers is not None and workers < 1:
        raise FairspecError(f"workers={workers}: must be at least 1.")
    engine = BACKENDS[ask.backend].engine if ask.backend else None
    if engine is None:
        return EXECUTORS[name](ask, cache, states, workers, say)
    if name != LOCAL:
        raise FairspecError(
            f"executor={name}: not with backend={ask.backend}, which has executors of its own. Leave out one."
        )
    from fairspec_bench.scoring.executors.serving.executor import serving

    module, _, attribute = engine.partition(":")
    return serving(getattr(import_module(module), attribute), ask)


def _local(
    ask: RunOptions, cache: Path | None, states: Path | None, workers: int | None, say: Say
) -> AbstractContextManager[Executor]:
    if workers is not None:
        raise FairspecError(f"workers={workers}: a local run is one process. Give --executor ray, or leave it out.")
    return nullcontext(LocalExecutor(prepare(ask), cache=cache, states=states))


def _ray(
    ask: RunOptions, cache: Path | None, states: Path | None, workers: int | None, say: Say
) -> AbstractContextManager[Executor]:
    try:
        from fairspec_bench.scoring.executors.ray_cluster import on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise FairspecError("executor=ray: needs the package ray: pip install 'fairspec-bench[ray]'.") from None
    return on_ray(ask, cache, workers, say)


EXECUTORS: Mapping[str, Start] = {LOCAL: _local, "ray": _ray}
