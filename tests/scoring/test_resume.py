"""Killed with SIGKILL at random moments, a run ends with the same bytes: real processes, a real pair on disk.

Children are forked from a warm parent, so that twenty kills cost seconds; one more is a command line of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pair import lasting, save_pair

import fairspec_bench as fairspec
from fairspec_bench.cli.main import main
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.schemas.base import RecordError
from fairspec_bench.schemas.options import RunOptions, model_spec
from fairspec_bench.scoring import prepare as preparing
from fairspec_bench.scoring import stages
from fairspec_bench.scoring.prepare import RunContext, prepare
from fairspec_bench.scoring.replay import replay
from fairspec_bench.scoring.run import Progress, run
from fairspec_bench.scoring.run_folder import RunFolder

FORK = multiprocessing.get_context("fork")
KILLS = 20


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def prepared(pair: tuple[Path, Path]) -> Iterator[RunContext]:
    """Two languages, six prompts, three chunks each; one thread, as a forked child must have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "CHUNK_LEAST", 2)
        patch.setattr(preparing, "CHUNK_BATCHES", 1)
        yield prepare(
            RunOptions(
                verifier=model_spec("v", str(pair[0])),
                drafter=drafter_spec("d", str(pair[1])),
                suites=("embedded_math",),
                languages=("en", "te"),
                limit=6,
                max_new_tokens=24,
                batch_size=2,
                race_prompts=2,
                race_rounds=1,
            )
        )
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def wanted(prepared: RunContext, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a run that nothing stopped; making it also warms the parent up."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    run(prepared, out)
    return lasting(out)


def in_child(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    child = FORK.Process(target=work)
    child.start()
    return child


def die_after(lines: int) -> Callable[[Progress], None]:
    """Kills its own process once so many lines were made."""
    count = 0

    def watch(progress: Progress) -> None:
        nonlocal count
        count += 1
        if count > lines:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


@pytest.mark.slow
def test_twenty_kills_end_with_the_same_bytes(prepared: RunContext, wanted: dict[str, bytes], tmp_path: Path) -> None:
    """Half the kills come after a random number of lines, half at a random time; a run that ends is begun anew."""
    rng = random.Random(20)
    number, kills, stopped_at = 0, 0, set()
    while kills < KILLS:
        out = tmp_path / f"run{number}"
        if kills % 2:
            child = in_child(lambda out=out: run(prepared, out, watch=die_after(rng.randrange(12))))
        else:
            child = in_child(lambda out=out: run(prepared, out))
            time.sleep(rng.uniform(0, 0.5))
            child.kill()
        child.join(60)
        rng.random()
        assert child.exitcode in (-signal.SIGKILL, 0)
        kills += child.exitcode == -signal.SIGKILL
        done = RunFolder(out) if (out / "run.json").exists() else None
        stopped_at.add(len(done.done) if done else -1)
        if done and done.complete:
            run(prepared, out)
            assert lasting(out) == wanted
            number += 1
    run(prepared, out)
    assert lasting(out) == wanted
    assert RunFolder(out).complete
    assert len(stopped_at) > 5


def test_a_resume_that_keeps_what_it_should_redo_would_be_seen(
    prepared: RunContext, wanted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = in_child(lambda: run(prepared, tmp_path / "run", watch=die_after(1)))
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.setattr("fairspec_bench.scoring.run_folder._cut", lambda folder: None)
    with pytest.raises(RecordError, match="embedded_math"):
        run(prepared, tmp_path / "run")


def arguments(pair: tuple[Path, Path], out: Path) -> list[str]:
    options = "--suite embedded_math --languages en,te --limit 6 --max_new_tokens 24 --batch_size 2 --race_rounds 0"
    return ["run", str(pair[0]), str(pair[1]), *options.split(), "--out", str(out)]


def test_a_killed_command_line_goes_on(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRSPEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(preparing, "CHUNK_LEAST", 8)
    monkeypatch.setattr(preparing, "CHUNK_BATCHES", 4)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "fairspec_bench", *arguments(pair, out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)
    reference = out / "reference.jsonl"
    while process.poll() is None and not (reference.exists() and reference.stat().st_size):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not RunFolder(out).complete
    with pytest.raises(SystemExit) as left:
        main(arguments(pair, out))
    assert left.value.code == 0
    fairspec.run(str(pair[0]), str(pair[1]), ["embedded_math"], tmp_path / "clean", cache=None,
               languages=("en", "te"), limit=6, max_new_tokens=24, batch_size=2, race_rounds=0)  # fmt: skip
    assert lasting(out) == lasting(tmp_path / "clean")


def test_ctrl_c_is_one_line_that_says_how_to_go_on(
    pair: tuple[Path, Path], prepared: RunContext, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """The parent already holds all modules, so the child is soon at work."""
    out = tmp_path / "run"

    def work() -> None:
        with (tmp_path / "errors").open("w") as errors:
            os.dup2(errors.fileno(), 2)
            os.environ["FAIRSPEC_CACHE_DIR"] = str(tmp_path / "cache")
            sys.stderr = errors
            # Ignored is what a job in the background inherits.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            stages.replay = interrupted  # type: ignore[attr-defined]
            main(arguments(pair, out))

    def interrupted(*given: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return replay(*given, **options)

    child = in_child(work)
    child.join(60)
    assert child.exitcode == 130
    assert (out / "run.json").exists()
    last = (tmp_path / "errors").read_text().splitlines()[-1]
    assert last.startswith("Stopped. Finished work is kept; to resume: fairspec run ")
    assert str(out) in last
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_two_writers_one_wins(prepared: RunContext, wanted: dict[str, bytes], tmp_path: Path) -> None:
    """Both start at once; one is refused in one line, and the run is whole."""
    replies = FORK.Queue()

    def work() -> None:
        try:
            run(replace(prepared), tmp_path / "run")
            replies.put("done")
        except Exception as error:
            replies.put(str(error))

    children = [in_child(work), in_child(work)]
    found = sorted(replies.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    assert found[1] == "done"
    assert found[0] == "done" or "another process is writing here" in found[0]
    assert lasting(tmp_path / "run") == wanted
