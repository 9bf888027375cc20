"""A run over a Ray cluster: a worker for each GPU, or each share of a machine's cores, that loads both models once.

Knows Ray and where workers are. The process that asked writes all files; a worker that dies costs the unit it was at.
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

from fairspec_bench.records import Dropped, Environment, FairspecError, Record, RunConfig
from fairspec_bench.score.agenda import Agenda, Say
from fairspec_bench.score.environment import describe
from fairspec_bench.score.folder import TIMED, Unit, difference, same_machine, units
from fairspec_bench.score.prepare import Ask, check, prepare
from fairspec_bench.score.run import Known, Made, Seen, Work

ADDRESS, THREADS = "RAY_ADDRESS", "OMP_NUM_THREADS"
OBJECT_STORE_BYTES = 100 * 2**20
START_SECONDS = 300
TRIES = 3


# --------------------------------------------------------------------------- where


@dataclass(frozen=True)
class Place:
    """Where a worker runs: a machine of the cluster and its share of it. `times`: whether it is one of those that time.

    Wall-clock is taken by every worker that has a GPU of its own, and by one worker a machine where they share cores.
    """

    node: str
    host: str
    cpus: int
    gpus: int
    times: bool


def places(nodes: Sequence[Mapping[str, Any]], device: str, workers: int | None) -> list[Place]:
    """Where workers go, of `ray.nodes()`: by default one a GPU, or one a machine. Raises `FairspecError`."""
    kind = "GPU" if device.startswith("cuda") else "CPU"
    room = {node["NodeID"]: int(node["Resources"].get(kind, 0)) for node in nodes if node["Alive"]}
    most = sum(room.values())
    if not most:
        raise FairspecError(f"device={device}: the Ray cluster has no {kind} ({len(room)} machines). Add one to it.")
    if workers is not None and workers > most:
        raise FairspecError(f"workers={workers}: the Ray cluster has {most} {kind}s. Give at most that.")
    if workers is None:
        counts = Counter(room) if kind == "GPU" else Counter({node: 1 for node, size in room.items() if size})
    else:
        counts = Counter[str]()
        for _ in range(workers):
            roomy = [name for name, size in room.items() if counts[name] < size]
            counts[max(roomy, key=lambda name: room[name] / (counts[name] + 1))] += 1
    return [
        Place(
            node["NodeID"],
            node["NodeManagerHostname"],
            int(node["Resources"].get("CPU", 0)) // (room[node["NodeID"]] if kind == "GPU" else counts[node["NodeID"]]),
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
    # Ray prints deaths of workers on standard output, whatever it is told of logs; we tell them ourselves.
    printing = sys.modules["ray._private.worker"]
    told, printing.print_to_stdstream = printing.print_to_stdstream, lambda *_, **__: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        ray.shutdown()
        printing.print_to_stdstream = told  # type: ignore[attr-defined]


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
class Job:
    """What every worker is told: the run as asked for, and where relative paths begin."""

    ask: Ask
    cache: Path | None
    folder: Path
    started: str


@dataclass(frozen=True)
class Ready:
    """What a worker made of it."""

    config: RunConfig
    dropped: tuple[Dropped, ...]
    environment: Environment
    note: str | None


@dataclass(frozen=True)
class Refused:
    """An error of the user's, in its line."""

    line: str


class Worker:
    """Both models, and whatever unit it is given. Errors of the user's are returned: Ray would wrap them."""

    def process(self) -> int:
        return os.getpid()

    def prepare(self, job: Job) -> Ready | Refused:
        try:
            os.chdir(job.folder)
            prepared = prepare(job.ask)
        except FairspecError as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(
                f"{job.folder}: {error.strerror} on {socket.gethostname()}. Start where all machines can read."
            )
        self.work = Work(prepared, job.cache)
        here = describe(prepared.config.device).model_copy(update={"started": job.started})
        return Ready(prepared.config, prepared.dropped, here, prepared.note)

    def make(self, unit: Unit, known: Known) -> Iterator[Record | Refused]:
        try:
            self.work.know(known)
            yield from self.work.lines(unit)
        except FairspecError as error:
            yield Refused(str(error))


# --------------------------------------------------------------------------- the driver's side


@dataclass(eq=False)
class Seat:
    """A worker as the driver sees it: what it was asked last, and what of that has come."""

    place: Place
    actor: Any
    pending: Any
    process: int | None = None
    ready: Ready | None = None
    unit: Unit | None = None
    lines: list[Record] = field(default_factory=list)

    @property
    def named(self) -> str:
        return f"{self.place.host} (process {self.process})" if self.process else self.place.host


class OnRay:
    """Workers that hold the models of one run; made by `gathered`."""

    def __init__(self, job: Job, where: Sequence[Place], say: Say):
        self.job, self.say, self.driver = job, say, describe("cpu")
        self.first: Ready | None = None
        self.deaths: Counter[Unit | Place] = Counter()
        self.seats = [self._seated(place) for place in where]
        self.idle: list[Seat] = []

    def gather(self) -> None:
        """Wait until all are ready. Raises `FairspecError` if one is refused or does not start."""
        self._wait_for_room()
        while len(self.idle) < len(self.seats):
            for seat in self._heard():
                self._receive(seat)
        assert self.first is not None
        self.config: RunConfig = self.first.config
        self.dropped, self.note = self.first.dropped, self.first.note

    @property
    def environments(self) -> list[Environment]:
        """Of all workers, each once: alike machines are told in one line."""
        found: list[Environment] = []
        for ready in (seat.ready for seat in self.seats):
            if ready and ready.environment not in found:
                found.append(ready.environment)
        return found

    def make(self, left: Sequence[Unit], known: Known, seen: Seen) -> Iterator[Made]:
        """See `Executor.make`. A unit is made whole before it is handed on."""
        agenda, made = Agenda(left), dict[Unit, Made]()
        while agenda.unfinished:
            self._assign(agenda, known, seen)
            for seat in self._heard():
                unit, whole = seat.unit, self._receive(seat)
                if unit is None:
                    continue
                if whole is not None:
                    known.add(whole.lines)
                    made[unit] = whole
                    for each in agenda.finish(unit):
                        yield made.pop(each)
                elif seat.unit is None:
                    agenda.again(unit)
                else:
                    seen(unit, len(seat.lines))

    def close(self) -> None:
        for seat in self.seats:
            ray.kill(seat.actor)

    def _seated(self, place: Place) -> Seat:
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
        return Seat(place, actor, actor.process.remote())

    def _wait_for_room(self) -> None:
        """Raises `FairspecError` if something else holds what a worker needs."""
        _, waiting = ray.wait([seat.pending for seat in self.seats], num_returns=len(self.seats), timeout=START_SECONDS)
        for seat in self.seats:
            if seat.pending in waiting:
                what = f"{seat.place.cpus} CPUs" + " and a GPU" * seat.place.gpus
                raise FairspecError(
                    f"executor=ray: no worker starts on {seat.place.host} within {START_SECONDS} s; it needs {what}. "
                    "Wait for what else runs there, or give fewer --workers."
                )

    def _heard(self) -> list[Seat]:
        """Those of whom something has come; waits for it."""
        pending = {seat.pending: seat for seat in self.seats if seat.pending is not None}
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(pending), num_returns=1)
        return [pending[each] for each in ready]

    def _assign(self, agenda: Agenda, known: Known, seen: Seen) -> None:
        """Work for those who are free, the last to become so first: a task's race stays where it is warm."""
        for seat in reversed(self.idle[:]):
            if agenda.unfinished and agenda.timing and not seat.place.times:
                continue
            unit = agenda.next() if agenda.unfinished else None
            if unit is None:
                return
            self.idle.remove(seat)
            seat.unit, seat.lines = unit, []
            stream = seat.actor.make.options(num_returns="streaming")
            seat.pending = stream.remote(unit, known.needed(unit, self.config))
            seen(unit, 0)

    def _receive(self, seat: Seat) -> Made | None:
        """Take what has come; → its unit once that is whole. Raises `FairspecError` if the worker was refused."""
        try:
            told = ray.get(next(seat.pending) if seat.unit else seat.pending)
        except StopIteration:
            assert seat.unit is not None
            assert seat.ready is not None
            made = Made(seat.unit, tuple(seat.lines), seat.ready.environment)
            self.deaths.pop(seat.unit, None)
            self._rest(seat)
            return made
        except RayTaskError as error:
            raise error.cause or error from error
        except RayError:
            self._replace(seat)
            return None
        if isinstance(told, Refused):
            raise FairspecError(told.line)
        if isinstance(told, Ready):
            self._admit(seat, told)
        elif isinstance(told, Record):
            seat.lines.append(told)
        else:
            seat.process = told
            seat.pending = seat.actor.prepare.remote(self.job)
        return None

    def _admit(self, seat: Seat, ready: Ready) -> None:
        """Raises `FairspecError` for a worker that would make other lines, or other times, than the first."""
        first = self.first = self.first or ready
        timed = any(unit.stage in TIMED for unit in units(ready.config))
        found = (
            difference(first.config, ready.config)
            or _other_versions(first.environment, ready.environment)
            or _other_versions(self.driver, ready.environment)
            or same_machine(first.environment, ready.environment, timed=timed)
        )
        if found:
            raise FairspecError(
                f"Ray worker on {seat.named}: differs from the others ({found}). "
                "Give all machines the same files, versions and hardware."
            )
        seat.ready = ready
        self.deaths.pop(seat.place, None)
        self._rest(seat)

    def _rest(self, seat: Seat) -> None:
        seat.unit, seat.pending = None, None
        self.idle.append(seat)

    def _replace(self, seat: Seat) -> None:
        """A worker died: another takes its place, if the machine is there and this is not what always happens."""
        doing = f"{seat.unit.stage} {seat.unit.shard}" if seat.unit else "loading models"
        cause = seat.unit or seat.place
        self.deaths[cause] += 1
        if self.deaths[cause] == TRIES:
            raise FairspecError(
                f"Ray workers died {TRIES} times at {doing}, last on {seat.named}. See what ends processes there "
                "(memory?), then give the same command: it goes on from here."
            )
        self.say(f"note: Ray worker on {seat.named} died at {doing}, which is done again.")
        ray.kill(seat.actor)
        self.seats.remove(seat)
        seat.unit = None
        if seat.place.node in {node["NodeID"] for node in ray.nodes() if node["Alive"]}:
            self.seats.append(self._seated(seat.place))
        if not any(other.place.times for other in self.seats):
            raise FairspecError("executor=ray: no machine is left. Start the cluster, then give the same command.")


def _other_versions(there: Environment, here: Environment) -> str | None:
    """The first version in which two machines differ."""
    old, new = ({"python": each.python, "commit": each.commit, **each.packages} for each in (there, here))
    names = (name for name in {**old, **new} if old.get(name) != new.get(name))
    return next((f"{name}: {old.get(name)} there, {new.get(name)} here" for name in names), None)


@contextmanager
def on_ray(ask: Ask, cache: Path | None, workers: int | None, say: Say) -> Iterator[OnRay]:
    """An executor of a cluster's workers, which end with the context. Raises `FairspecError`."""
    check(ask)
    if ask.device not in ("cpu", "cuda"):
        raise FairspecError(f"device={ask.device}: Ray gives each worker its GPU. Give --device cuda.")
    if "device_map" in ask.verifier.options:
        raise FairspecError("device_map: a Ray worker has one GPU. Leave out --executor ray, or the device_map.")
    job = Job(ask, cache, Path.cwd(), datetime.now(UTC).isoformat(timespec="seconds"))
    with _connected(), gathered(job, places(ray.nodes(), ask.device, workers), say) as crew:
        yield crew


@contextmanager
def gathered(job: Job, where: Sequence[Place], say: Say) -> Iterator[OnRay]:
    """A worker at each of these places, ready; they end with the context. Raises `FairspecError`."""
    crew = OnRay(job, where, say)
    try:
        crew.gather()
        yield crew
    finally:
        crew.close()
