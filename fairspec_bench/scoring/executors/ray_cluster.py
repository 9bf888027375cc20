"""A run over a Ray cluster: a worker for each GPU, or each share of a machine's cores, that loads both models once.

The process that started it writes all files; a worker that dies costs the unit it was at.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fairspec_bench.schemas.base import FairspecError, Record
from fairspec_bench.schemas.config import Environment, RunConfig
from fairspec_bench.schemas.lines import Dropped
from fairspec_bench.schemas.options import RunOptions, check
from fairspec_bench.schemas.resumable import difference
from fairspec_bench.schemas.stages import STAGES, Unit, units
from fairspec_bench.scoring.environment import describe
from fairspec_bench.scoring.executors.base import Dependencies, OnProgress, UnitResult
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.run_folder import same_machine
from fairspec_bench.scoring.scheduler import Say, Scheduler
from fairspec_bench.scoring.stages import UnitRunner

ADDRESS, THREADS = "RAY_ADDRESS", "OMP_NUM_THREADS"
OBJECT_STORE_BYTES = 100 * 2**20
START_SECONDS = 300
TRIES = 3


# --------------------------------------------------------------------------- where


@dataclass(frozen=True)
class WorkerPlace:
    """Where a worker runs: a machine of the cluster and its share of it. `times`: whether it runs races and sweeps.

    Wall-clock is taken by every worker that has a GPU of its own, and by one worker a machine where they share cores.
    """

    node: str
    host: str
    cpus: int
    gpus: int
    times: bool


def places(nodes: Sequence[Mapping[str, Any]], device: str, workers: int | None) -> list[WorkerPlace]:
    """Where workers go, of `ray.nodes()`: by default one a GPU, or one a machine. Raises `FairspecError`."""
    kind = "GPU" if device.startswith("cuda") else "CPU"
    capacity = {node["NodeID"]: int(node["Resources"].get(kind, 0)) for node in nodes if node["Alive"]}
    most = sum(capacity.values())
    if not most:
        raise FairspecError(
            f"device={device}: the Ray cluster has no {kind} ({len(capacity)} machines). Add one to it."
        )
    if workers is not None and workers > most:
        raise FairspecError(f"workers={workers}: the Ray cluster has {most} {kind}s. Give at most that.")
    if workers is None:
        counts = Counter(capacity) if kind == "GPU" else Counter({node: 1 for node, size in capacity.items() if size})
    else:
        counts = Counter[str]()
        for _ in range(workers):
            free = [name for name, size in capacity.items() if counts[name] < size]
            counts[max(free, key=lambda name: capacity[name] / (counts[name] + 1))] += 1
    return [
        WorkerPlace(
            node["NodeID"],
            node["NodeManagerHostname"],
            int(node["Resources"].get("CPU", 0))
            // (capacity[node["NodeID"]] if kind == "GPU" else counts[node["NodeID"]]),
            int(kind == "GPU"),
            kind == "GPU" or not number,
        )
        for node in nodes
        for number in range(counts[node["NodeID"]])
    ]


@contextmanager
def _connected() -> Iterator[None]:
    """The cluster that `RAY_ADDRESS` names, or that this process is in already; else one of this machine's own."""
    if ray.is_initialized():
        yield
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address := os.environ.get(ADDRESS):
        _join(address)
    else:
        _start()
    # Ray prints deaths of workers on standard output, whatever its logging level; we report them ourselves.
    printing = sys.modules["ray._private.worker"]
    printed, printing.print_to_stdstream = printing.print_to_stdstream, lambda *_, **__: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ray.shutdown()
        printing.print_to_stdstream = printed  # type: ignore[attr-defined]


def _join(address: str) -> None:
    if "://" in address:
        raise FairspecError(f"{ADDRESS}={address}: a client cannot run this. Start on a machine of the cluster.")
    host, _, port = address.rpartition(":")
    try:
        if host:
            # Ray itself tries for a quarter of an hour where nothing answers.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise FairspecError(
            f"{ADDRESS}={address}: no Ray cluster lets us in ({_first_line(error)}). "
            f"Start it with the token that is here, or unset {ADDRESS}."
        ) from None


def _start() -> None:
    """A cluster of this process's own. On a busy machine Ray gives up on its own agents after 15 s: then once more."""
    # Workers would be niced, and their clocks with them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    for left in reversed(range(TRIES)):
        try:
            ray.init("local", log_to_driver=False, logging_level=logging.ERROR, **own)
            return
        except Exception as error:  # a plain Exception is what Ray raises
            ray.shutdown()
            if not left:
                line = f"executor=ray: Ray does not start here ({_first_line(error)}). Its logs say more."
                raise FairspecError(line) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


# --------------------------------------------------------------------------- a worker's own process


@dataclass(frozen=True)
class RemoteJob:
    """What every worker gets: the options of the run, and where relative paths begin."""

    ask: RunOptions
    cache: Path | None
    folder: Path
    started: str


@dataclass(frozen=True)
class Ready:
    """What a worker made of it."""

    config: RunConfig
    dropped: tuple[Dropped, ...]
    environment: Environment
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """An error of the user's, in its line."""

    line: str


class Worker:
    """Both models, and whatever unit it is given. Errors of the user's are returned: Ray would wrap them."""

    def process(self) -> int:
        return os.getpid()

    def prepare(self, job: RemoteJob) -> Ready | Refused:
        try:
            os.chdir(job.folder)
            prepared = prepare(job.ask)
        except FairspecError as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(
                f"{job.folder}: {error.strerror} on {socket.gethostname()}. Start where all machines can read."
            )
        self.work = UnitRunner(prepared, job.cache)
        here = describe(prepared.config.device).model_copy(update={"started": job.started})
        return Ready(prepared.config, prepared.dropped, here, prepared.notes)

    def make(self, unit: Unit, known: Dependencies) -> Iterator[Record | Refused]:
        try:
            self.work.use(known)
            yield from self.work.lines(unit)
        except FairspecError as error:
            yield Refused(str(error))


# --------------------------------------------------------------------------- the driver's side


@dataclass(eq=False)
class WorkerHandle:
    """A worker as the driver sees it: its current unit, and the lines received of it."""

    place: WorkerPlace
    actor: Any
    pending: Any
    process: int | None = None
    ready: Ready | None = None
    unit: Unit | None = None
    lines: list[Record] = field(default_factory=list)

    @property
    def named(self) -> str:
        return f"{self.place.host} (process {self.process})" if self.process else self.place.host


class RayExecutor:
    """The workers of one run, each with the models loaded; made by `gathered`."""

    def __init__(self, job: RemoteJob, where: Sequence[WorkerPlace], say: Say):
        self.job, self.say, self.driver = job, say, describe("cpu")
        self.first: Ready | None = None
        self.deaths: Counter[Unit | WorkerPlace] = Counter()
        self.workers = [self._start_worker(place) for place in where]
        self.idle: list[WorkerHandle] = []

    def gather(self) -> None:
        """Wait until all are ready. Raises `FairspecError` if one is refused or does not start."""
        self._wait_for_start()
        while len(self.idle) < len(self.workers):
            for worker in self._heard():
                self._receive(worker)
        assert self.first is not None
        self.config: RunConfig = self.first.config
        self.dropped, self.notes = self.first.dropped, self.first.notes

    @property
    def environments(self) -> list[Environment]:
        """Of all workers, each once: alike machines are one line."""
        found: list[Environment] = []
        for ready in (worker.ready for worker in self.workers):
            if ready and ready.environment not in found:
                found.append(ready.environment)
        return found

    def make(self, left: Sequence[Unit], known: Dependencies, on_progress: OnProgress) -> Iterator[UnitResult]:
        """See `Executor.make`. A unit is made whole before it is handed on."""
        scheduler, made = Scheduler(left), dict[Unit, UnitResult]()
        while scheduler.unfinished:
            self._assign(scheduler, known, on_progress)
            for worker in self._heard():
                unit, whole = worker.unit, self._receive(worker)
                if unit is None:
                    continue
                if whole is not None:
                    known.add(whole.lines)
                    made[unit] = whole
                    for each in scheduler.finish(unit):
                        yield made.pop(each)
                elif worker.unit is None:
                    scheduler.again(unit)
                else:
                    on_progress(unit, len(worker.lines))

    def close(self) -> None:
        for worker in self.workers:
            ray.kill(worker.actor)

    def _start_worker(self, place: WorkerPlace) -> WorkerHandle:
        """A worker is started and prepares itself."""
        variables = {name: value for name, value in os.environ.items() if name.startswith(("FAIRSPEC_", "HF_"))}
        options = {
            "num_cpus": place.cpus,
            "num_gpus": place.gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False),
            "runtime_env": {
                "env_vars": {
                    **{name: value for name, value in variables.items() if "TOKEN" not in name},
                    THREADS: os.environ.get(THREADS, str(max(1, place.cpus))),
                }
            },
        }
        actor = ray.remote(Worker).options(**options).remote()
        return WorkerHandle(place, actor, actor.process.remote())

    def _wait_for_start(self) -> None:
        """Raises `FairspecError` if something else holds what a worker needs."""
        _, waiting = ray.wait(
            [worker.pending for worker in self.workers], num_returns=len(self.workers), timeout=START_SECONDS
        )
        for worker in self.workers:
            if worker.pending in waiting:
                what = f"{worker.place.cpus} CPUs" + " and a GPU" * worker.place.gpus
                raise FairspecError(
                    f"executor=ray: no worker starts on {worker.place.host} within {START_SECONDS} s; it needs {what}. "
                    "Wait for what else runs there, or give fewer --workers."
                )

    def _heard(self) -> list[WorkerHandle]:
        """The workers that have sent something; waits for one."""
        pending = {worker.pending: worker for worker in self.workers if worker.pending is not None}
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(pending), num_returns=1)
        return [pending[each] for each in ready]

    def _assign(self, scheduler: Scheduler, known: Dependencies, on_progress: OnProgress) -> None:
        """Work for idle workers, the latest first, so that the races of a task stay on one worker."""
        for worker in reversed(self.idle[:]):
            if scheduler.unfinished and scheduler.timing and not worker.place.times:
                continue
            unit = scheduler.next() if scheduler.unfinished else None
            if unit is None:
                return
            self.idle.remove(worker)
            worker.unit, worker.lines = unit, []
            stream = worker.actor.make.options(num_returns="streaming")
            worker.pending = stream.remote(unit, known.needed(unit, self.config))
            on_progress(unit, 0)

    def _receive(self, worker: WorkerHandle) -> UnitResult | None:
        """Take what has come; → its unit once that is whole. Raises `FairspecError` if the worker was refused."""
        try:
            message = ray.get(next(worker.pending) if worker.unit else worker.pending)
        except StopIteration:
            assert worker.unit is not None
            assert worker.ready is not None
            made = UnitResult(worker.unit, tuple(worker.lines), worker.ready.environment)
            self.deaths.pop(worker.unit, None)
            self._rest(worker)
            return made
        except RayTaskError as error:
            raise error.cause or error from error
        except RayError:
            self._replace(worker)
            return None
        if isinstance(message, Refused):
            raise FairspecError(message.line)
        if isinstance(message, Ready):
            self._admit(worker, message)
        elif isinstance(message, Record):
            worker.lines.append(message)
        else:
            worker.process = message
            worker.pending = worker.actor.prepare.remote(self.job)
        return None

    def _admit(self, worker: WorkerHandle, ready: Ready) -> None:
        """Raises `FairspecError` for a worker that would make other lines, or other times, than the first."""
        first = self.first = self.first or ready
        timed = any(STAGES[unit.stage].timed for unit in units(ready.config))
        found = (
            difference(first.config, ready.config)
            or _other_versions(first.environment, ready.environment)
            or _other_versions(self.driver, ready.environment)
            or same_machine(first.environment, ready.environment, timed=timed)
        )
        if found:
            raise FairspecError(
                f"Ray worker on {worker.named}: differs from the others ({found}). "
                "Give all machines the same files, versions and hardware."
            )
        worker.ready = ready
        self.deaths.pop(worker.place, None)
        self._rest(worker)

    def _rest(self, worker: WorkerHandle) -> None:
        worker.unit, worker.pending = None, None
        self.idle.append(worker)

    def _replace(self, worker: WorkerHandle) -> None:
        """A worker died: another takes its place, if the machine is there and it did not die of this before."""
        doing = f"{worker.unit.stage} {worker.unit.chunk}" if worker.unit else "loading models"
        cause = worker.unit or worker.place
        self.deaths[cause] += 1
        if self.deaths[cause] == TRIES:
            raise FairspecError(
                f"Ray workers died {TRIES} times at {doing}, last on {worker.named}. See what ends processes there "
                "(memory?), then rerun the command: finished work is kept."
            )
        self.say(f"note: Ray worker on {worker.named} died at {doing}, which is done again.")
        ray.kill(worker.actor)
        self.workers.remove(worker)
        worker.unit = None
        if worker.place.node in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
            self.workers.append(self._start_worker(worker.place))
        if not any(other.place.times for other in self.workers):
            raise FairspecError("executor=ray: no machine is left. Start the cluster, then rerun the command.")


def _other_versions(there: Environment, here: Environment) -> str | None:
    """The first version in which two machines differ."""
    old, new = ({"python": each.python, "commit": each.commit, **each.packages} for each in (there, here))
    names = (name for name in {**old, **new} if old.get(name) != new.get(name))
    return next((f"{name}: {old.get(name)} there, {new.get(name)} here" for name in names), None)


@contextmanager
def on_ray(ask: RunOptions, cache: Path | None, workers: int | None, say: Say) -> Iterator[RayExecutor]:
    """An executor of a cluster's workers, which end with the context. Raises `FairspecError`."""
    check(ask)
    if ask.device not in ("cpu", "cuda"):
        raise FairspecError(f"device={ask.device}: Ray gives each worker its GPU. Give --device cuda.")
    if "device_map" in ask.verifier.options:
        raise FairspecError("device_map: a Ray worker has one GPU. Leave out --executor ray, or the device_map.")
    job = RemoteJob(ask, cache, Path.cwd(), datetime.now(UTC).isoformat(timespec="seconds"))
    with _connected(), gathered(job, places(ray.nodes(), ask.device, workers), say) as executor:
        yield executor


@contextmanager
def gathered(job: RemoteJob, where: Sequence[WorkerPlace], say: Say) -> Iterator[RayExecutor]:
    """A worker at each of these places, ready; they end with the context. Raises `FairspecError`."""
    executor = RayExecutor(job, where, say)
    try:
        executor.gather()
        yield executor
    finally:
        executor.close()
