"""A run on a real Ray cluster of this machine: workers are processes, and are killed as such.

The cluster and its two workers are started once. What may be made at once is tried without it, over every order.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray
from tiny_pair import TIMED, contents, lasting, save_pair

import fairspec_bench as fairspec
from fairspec_bench.api.options import run_options
from fairspec_bench.cli.main import main
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.lines import Reference, Timing
from fairspec_bench.schemas.options import RunOptions
from fairspec_bench.schemas.stages import Unit, units
from fairspec_bench.scoring.executors import ray_cluster
from fairspec_bench.scoring.executors.base import Dependencies
from fairspec_bench.scoring.executors.ray_cluster import RayExecutor, RemoteJob, WorkerPlace, gathered, on_ray, places
from fairspec_bench.scoring.prepare import prepare
from fairspec_bench.scoring.report import make_report
from fairspec_bench.scoring.run import Progress, execute, run
from fairspec_bench.scoring.run_folder import RunFolder
from fairspec_bench.scoring.scheduler import Scheduler

SECONDS = 240
OPTIONS: dict[str, Any] = {
    "languages": ("en", "te"),
    "limit": 18,
    "max_new_tokens": 12,
    "gamma": (2, 1),
    "batch_size": (2, 1),
    "dtype": "bfloat16",
    "race_prompts": 10,
    "race_rounds": 2,
    "race_width": 0.0,
    "race_budget": 1e-6,
}
"""Three chunks a task, two of them raced; the first batch ends each race. In bfloat16, so that the stage
`dtype_divergence` is there."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    return str(verifier), str(drafter)


@pytest.fixture(scope="module")
def ask(pair: tuple[str, str]) -> RunOptions:
    return run_options(*pair, ["embedded_math"], **OPTIONS)


@pytest.fixture(scope="module")
def local(ask: RunOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as one process makes it."""
    out = tmp_path_factory.mktemp("local") / "run"
    run(prepare(ask), out)
    return out


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                 object_store_memory=ray_cluster.OBJECT_STORE_BYTES)  # fmt: skip
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def executor(ask: RunOptions, cluster: None, said: list[str]) -> Iterator[RayExecutor]:
    """Two workers; a third of the cluster is left."""
    with on_ray(ask, None, 2, said.append) as started:
        yield started


def place(cpus: int = 1) -> WorkerPlace:
    (node,) = ray.nodes()
    return WorkerPlace(node["NodeID"], node["NodeManagerHostname"], cpus, 0, True)


# --------------------------------------------------------------------------- the same run


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(executor: RayExecutor, local: Path, tmp_path: Path) -> None:
    """Texts, answers, replays, departures to the byte; races and sweeps of the same prompts in the same turns."""
    out, seen = tmp_path / "run", list[Progress]()
    execute(executor, out, watch=seen.append)
    assert lasting(out) == lasting(local)
    assert any(name.endswith("dtype_divergence.jsonl") for name in lasting(out))
    assert untimed(out) == untimed(local)
    assert {unit for unit in RunFolder(out).units if unit.stage == "race" and unit.chunk.endswith("001")}
    assert {timing.chunk for timing in RunFolder(out).lines("race", Timing)} == {
        "embedded_math/en/000", "embedded_math/te/000"
    }  # fmt: skip
    assert report_with_times_of(out, local, tmp_path / "copy") == (out / "report.json").read_bytes()
    shares = [progress.done / progress.total for progress in seen]
    assert all(after > before - 1e-9 for before, after in pairwise(shares))
    assert 0 == shares[0] < shares[-1] <= 1
    order = list(RunFolder(out).units)
    shown = [order.index(progress.unit) for progress in seen]
    assert shown == sorted(shown)
    assert len({worker.process for worker in executor.workers}) == 2


def untimed(out: Path) -> dict[str, list[str]]:
    """The lines of races and sweeps without their clocks, and without how many drafts stood under them."""
    clock = re.compile(r'"(\w+_ns)":\d+')
    return {
        name: [clock.sub("", line) for line in body.decode().splitlines()]
        for name, body in contents(out).items()
        if name.endswith(TIMED)
    }


def report_with_times_of(out: Path, other: Path, copy: Path) -> bytes:
    """The report of the `other` run, were it timed when and where `out` was."""
    shutil.copytree(other, copy)
    for name, body in contents(out).items():
        if name.endswith((*TIMED, "environments.jsonl", "chunks.jsonl")):
            (copy / name).write_bytes(body)
    make_report(RunFolder(copy))
    return (copy / "report.json").read_bytes()


@pytest.mark.slow
def test_a_killed_worker_costs_its_unit_and_no_line(
    executor: RayExecutor, said: list[str], local: Path, tmp_path: Path
) -> None:
    """One is killed amid texts, one amid a race; others take their places, which is said."""
    killed: dict[str, int] = {}

    def watch(progress: Progress) -> None:
        for worker in executor.workers:
            if (
                worker.unit
                and worker.unit.stage in ("reference", "race")
                and worker.unit.stage not in killed
                and worker.lines
            ):
                assert worker.process is not None
                killed[worker.unit.stage] = worker.process
                os.kill(worker.process, signal.SIGKILL)

    execute(executor, tmp_path / "run", watch=watch)
    assert set(killed) == {"reference", "race"}
    assert lasting(tmp_path / "run") == lasting(local)
    assert untimed(tmp_path / "run") == untimed(local)
    assert RunFolder(tmp_path / "run").whole
    assert [int(re.findall(r"process (\d+)\) died at \w+ embedded_math/", line)[0]) for line in said] == [
        *killed.values()
    ]
    assert len(executor.workers) == 2
    assert not {*killed.values()} & {worker.process for worker in executor.workers}


# --------------------------------------------------------------------------- stopped


def arguments(pair: tuple[str, str], out: Path) -> list[str]:
    options = "--suite embedded_math --languages en,te --limit 18 --max_new_tokens 12 --gamma 2,1"
    options += " --batch_size 2,1 --dtype bfloat16"
    races = "--race_prompts 10 --race_rounds 2 --race_width 0 --race_budget 1e-6 --executor ray"
    return ["run", *pair, *options.split(), *races.split(), "--out", str(out)]


def stopped_at(command: list[str], out: Path, marks: int, stop: Callable[[int], None]) -> tuple[int, str]:
    """Exit status and errors of a command that is stopped once so many units are finished; nothing of it is left."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fairspec_bench", *command], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**env, "FAIRSPEC_CACHE_DIR": str(out.parent / "cache")}, start_new_session=True,
        # A shell that starts tests in the background ignores Ctrl-C for them; a command on a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    chunks, end = out / "chunks.jsonl", time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        if chunks.exists() and chunks.read_bytes().count(b"\n") >= marks:
            stop(process.pid)
            break
        time.sleep(0.01)
    told, errors = process.communicate(timeout=SECONDS)
    assert told == ""
    while (left := group(process.pid)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
    return process.returncode, errors


def group(number: int) -> list[str]:
    """What lives of a process group: workers have groups of their own, so they are asked for by their parents too.

    Two small agents of Ray's notice only within a minute that all others are gone.
    """
    found = subprocess.run(["ps", "-eo", "pid=,pgid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 3) for line in found.splitlines()]
    inside = {pid for pid, pgid, *_ in lines if int(pgid) == number}
    alive = [args for pid, _, ppid, args in lines if {pid, ppid} & inside and "<defunct>" not in args]
    return [args for args in alive if not re.fullmatch(r"ray::\w+Agent", args.strip())]


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_with_either_executor(
    pair: tuple[str, str], executor: RayExecutor, ask: RunOptions, local: Path, tmp_path: Path
) -> None:
    """Ctrl-C, then SIGKILL, of a command line with a cluster of its own; no process of it outlives it."""
    out = tmp_path / "run"
    status, errors = stopped_at(arguments(pair, out), out, 2, lambda group: os.killpg(group, signal.SIGINT))
    assert status == 130
    assert errors.splitlines()[-1].startswith("Stopped. Finished work is kept; to resume: fairspec run ")
    assert "Traceback" not in errors
    first = len(RunFolder(out).done)
    status, _ = stopped_at(arguments(pair, out), out, first + 3, lambda driver: os.kill(driver, signal.SIGKILL))
    assert status == -signal.SIGKILL
    assert first < len(RunFolder(out).done) < len(RunFolder(out).units)
    shutil.copytree(out, tmp_path / "other")
    execute(executor, out)
    run(prepare(ask), tmp_path / "other")
    for end in (out, tmp_path / "other"):
        assert lasting(end) == lasting(local)
        assert untimed(end) == untimed(local)


# --------------------------------------------------------------------------- refused


@pytest.mark.slow
def test_an_error_of_a_worker_is_its_one_line(executor: RayExecutor, ask: RunOptions, tmp_path: Path) -> None:
    """While models are loaded, and while lines are made."""
    missing = replace(ask, verifier=replace(ask.verifier, source=str(tmp_path / "none")))
    with pytest.raises(FairspecError) as local_error:
        prepare(missing)
    with pytest.raises(FairspecError) as error:
        gathered(RemoteJob(missing, None, tmp_path, ""), [place()], lambda line: None).__enter__()
    assert str(error.value) == str(local_error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(FairspecError, match=rf"^{tmp_path}/none: No such file or directory on "):
        gathered(RemoteJob(ask, None, tmp_path / "none", ""), [place()], lambda line: None).__enter__()


@pytest.mark.slow
def test_a_worker_that_would_make_another_run_is_refused(executor: RayExecutor) -> None:
    """Of other files, versions, or hardware; by name."""
    worker, first = executor.workers[0], executor.first
    assert first is not None
    config, here = first.config, first.environment
    others = {
        r"verifier.revision: .* there, other here": {
            "config": config.model_copy(update={"verifier": config.verifier.model_copy(update={"revision": "other"})})
        },
        r"torch: .* there, 1.0 here": {
            "environment": here.model_copy(update={"packages": {**here.packages, "torch": "1.0"}})
        },
        r"threads: 1 there, 64 here": {"environment": here.model_copy(update={"threads": 64})},
    }
    for found, changed in others.items():
        with pytest.raises(FairspecError, match=rf"^Ray worker on .*: differs from the others \({found}\)\. Give all"):
            executor._admit(worker, replace(first, **changed))
    executor.first = None
    try:
        other = here.model_copy(update={"python": "3.9.0"})
        with pytest.raises(FairspecError, match=r"python: .* there, 3.9.0 here"):
            executor._admit(worker, replace(first, environment=other))
    finally:
        executor.first = first


class Dying:
    """A worker that does not live to say so."""

    def process(self) -> int:
        os._exit(1)


@pytest.mark.slow
def test_deaths_have_an_end(cluster: None, ask: RunOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_cluster, "Worker", Dying)
    try:
        words = r"^Ray workers died 3 times at loading models, last on .*\. See what ends"
        with pytest.raises(FairspecError, match=words):
            gathered(RemoteJob(ask, None, tmp_path, ""), [place()], said.append).__enter__()
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(said) == ray_cluster.TRIES - 1


@pytest.mark.slow
def test_a_full_cluster_is_not_waited_for_for_ever(
    executor: RayExecutor, ask: RunOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ray_cluster, "START_SECONDS", 0.5)
    with pytest.raises(FairspecError, match=r"no worker starts on .* within 0.5 s; it needs 3 CPUs\. Wait for"):
        gathered(RemoteJob(ask, None, tmp_path, ""), [place(3)], lambda line: None).__enter__()


REFUSED = {
    "unknown executor 'dask'. Known: local, ray.": {"executor": "dask"},
    "workers=0: must be at least 1.": {"executor": "ray", "workers": 0},
    "workers=2: a local run is one process. Give --executor ray, or leave it out.": {"workers": 2},
    "device=cuda:1: Ray gives each worker its GPU. Give --device cuda.": {"executor": "ray", "device": "cuda:1"},
    "device_map: a Ray worker has one GPU. Leave out --executor ray, or the device_map.": {
        "executor": "ray", "model_args": {"device_map": "auto"}
    },
    "gamma=0: must be at least 1.": {"executor": "ray", "gamma": 0},
}  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_is_refused_before_a_cluster_starts(
    line: str, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_connected", lambda: pytest.fail("a cluster was started"))
    with pytest.raises(FairspecError) as error:
        fairspec.run(*pair, ["embedded_math"], tmp_path / "run", **REFUSED[line])
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("address", "line"),
    {
        "127.0.0.1:1": r"no Ray cluster lets us in \(.*refused\)\. Start it",
        "127.0.0.1:port": r"no Ray cluster lets us in \(invalid literal",
        "ray://127.0.0.1:10001": r"a client cannot run this\. Start on a machine of the cluster\.",
    }.items(),
)
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("asked of Ray"))
    with pytest.raises(FairspecError, match=f"^RAY_ADDRESS={re.escape(address)}: {line}"), ray_cluster._connected():
        pass


def test_a_cluster_that_does_not_start_is_started_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def failing(address: str, **options: Any) -> None:
        asked.append(options)
        raise Exception("The current node timed out.\nMore.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", failing)
    with pytest.raises(FairspecError) as error, ray_cluster._connected():
        pass
    assert str(error.value).startswith("executor=ray: Ray does not start here (The current node timed out.). Its logs")
    assert len(asked) == ray_cluster.TRIES
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert asked[0]["include_dashboard"] is False


def test_without_the_package_it_says_what_to_install(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "fairspec_bench.scoring.executors.ray_cluster")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as left:
        main(arguments(pair, tmp_path / "run"))
    assert left.value.code == 2
    wanted = "fairspec: executor=ray: needs the package ray: pip install 'fairspec-bench[ray]'.\n"
    assert capsys.readouterr().err == wanted


# --------------------------------------------------------------------------- without a cluster


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "NodeManagerHostname": f"host-{name}", "Resources": resources}


def test_a_worker_for_each_gpu() -> None:
    """Each times, having a device of its own; cores are shared out within a machine."""
    nodes = [node("a", CPU=16, GPU=4), node("b", CPU=4), node("c", CPU=9, GPU=2), node("d", alive=False, CPU=8, GPU=8)]
    found = places(nodes, "cuda", None)
    assert [(each.node, each.cpus, each.gpus, each.times) for each in found] == [("a", 4, 1, True)] * 4 + [
        ("c", 4, 1, True)
    ] * 2
    assert [each.node for each in places(nodes, "cuda", 3)] == ["a", "a", "c"]
    with pytest.raises(FairspecError, match=r"^workers=7: the Ray cluster has 6 GPUs\. Give at most that\.$"):
        places(nodes, "cuda", 7)
    with pytest.raises(FairspecError, match=r"^device=cuda: the Ray cluster has no GPU \(1 machines\)"):
        places([node("b", CPU=4)], "cuda", None)


def test_a_worker_for_each_machine_or_share_of_it() -> None:
    """One worker a machine times, whoever else lives there."""
    nodes = [node("a", CPU=16), node("b", CPU=4), node("head")]
    assert [(each.node, each.cpus, each.gpus, each.times) for each in places(nodes, "cpu", None)] == [
        ("a", 16, 0, True),
        ("b", 4, 0, True),
    ]
    assert [(each.node, each.cpus, each.times) for each in places(nodes, "cpu", 5)] == [
        *[("a", 4, first == 0) for first in range(4)],
        ("b", 4, True),
    ]
    with pytest.raises(FairspecError, match="21: the Ray cluster has 20 CPUs"):
        places(nodes, "cpu", 21)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_ends_first_nothing_is_made_too_early_or_written_out_of_order(local: Path, seed: int) -> None:
    """Workers of random speed, some of whom die, over what is left of a run that was stopped anywhere."""
    rng = random.Random(seed)
    config = RunFolder(local).config
    everything = list(units(config))
    left = everything[rng.randrange(len(everything)) * (seed % 2) :]
    scheduler, running, written = Scheduler(left), list[Unit](), list[Unit]()
    finished = [unit for unit in everything if unit not in left]
    begun = 0
    while scheduler.unfinished:
        while len(running) < 4 and (unit := scheduler.next()):
            begun += 1
            running.append(unit)
            check_begun(unit, everything, finished, running)
        assert running
        unit = running.pop(rng.randrange(len(running)))
        if rng.random() < 0.1:
            scheduler.again(unit)
            continue
        finished.append(unit)
        written += scheduler.finish(unit)
    assert sorted(written, key=left.index) == left
    for file in {unit.file for unit in left}:
        assert [unit for unit in written if unit.file == file] == [unit for unit in left if unit.file == file]
    for unit in written:
        texts = Unit(unit.chunk, "reference")
        assert unit.stage == "drafter_answer" or texts not in written or written.index(texts) <= written.index(unit)
    assert begun >= len(left)


def check_begun(unit: Unit, everything: list[Unit], finished: list[Unit], running: list[Unit]) -> None:
    if unit.stage in ("answer", "replay", "dtype_divergence"):
        assert Unit(unit.chunk, "reference") in finished
    if unit.stage not in ("race", "sweep"):
        return
    assert {other for other in everything if other.stage not in ("race", "sweep")} <= {*finished}
    before = everything[: everything.index(unit)]
    same = [other for other in before if other.stage == "race" and (unit.stage == "sweep" or other.task == unit.task)]
    assert {*same} <= {*finished}
    assert {other.stage for other in running} == {unit.stage}


def test_a_unit_is_given_what_it_needs_of_what_is_known(local: Path) -> None:
    folder = RunFolder(local)
    known = Dependencies()
    kinds = {"reference": Reference, "race": Timing}
    for kind in kinds:
        known.add(line for lines in folder.read(kind, kinds[kind]).values() for line in lines)
    chunk = "embedded_math/te/001"
    assert [*known.needed(Unit(chunk, "replay"), folder.config).references] == [*folder.config.chunks[chunk]]
    assert not known.needed(Unit(chunk, "replay"), folder.config).timed["embedded_math/te"]
    given = known.needed(Unit(chunk, "race"), folder.config).timed
    assert {timing.chunk for timing in given["embedded_math/te"]} == {"embedded_math/te/000"}
    swept = known.needed(Unit("embedded_math/te/000", "sweep"), folder.config).references
    assert [*swept] == [f"embedded_math/te/{number}" for number in range(10)]
