"""Executors by name: who makes the lines of a run. Another one is a file of its own and an entry in `EXECUTORS`.

Knows how each is started; knows no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fairspec_bench.records import FairspecError
from fairspec_bench.score.agenda import Say
from fairspec_bench.score.prepare import Ask, prepare
from fairspec_bench.score.run import Executor, Local

Start = Callable[[Ask, Path | None, int | None, Say], AbstractContextManager[Executor]]


def start(
    name: str, ask: Ask, *, cache: Path | None, workers: int | None, say: Say
) -> AbstractContextManager[Executor]:
    """An executor by its name, for as long as the context lasts. Raises `FairspecError`.

    `cache` keeps references for other runs; `workers`: how many, where it is for the user to say; `say` is told what
    goes wrong and is mended.
    """
    if name not in EXECUTORS:
        raise FairspecError(f"executor={name}: unknown. Known: {', '.join(EXECUTORS)}.")
    if workers is not None and workers < 1:
        raise FairspecError(f"workers={workers}: must be at least 1.")
    return EXECUTORS[name](ask, cache, workers, say)


def _local(ask: Ask, cache: Path | None, workers: int | None, say: Say) -> AbstractContextManager[Executor]:
    if workers is not None:
        raise FairspecError(f"workers={workers}: a local run is one process. Give --executor ray, or leave it out.")
    return nullcontext(Local(prepare(ask), cache=cache))


def _ray(ask: Ask, cache: Path | None, workers: int | None, say: Say) -> AbstractContextManager[Executor]:
    try:
        from fairspec_bench.score.ray_executor import on_ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise FairspecError("executor=ray: needs the package ray: pip install 'fairspec-bench[ray]'.") from None
    return on_ray(ask, cache, workers, say)


EXECUTORS: Mapping[str, Start] = {"local": _local, "ray": _ray}
