"""vLLM itself, on this machine's CPU: what serves people counts what this engine counts, offline and as a server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_pair import lasting

import fairspec_bench as fairspec
import fairspec_bench as fb
from fairspec_bench.api.experiments import agreement_page
from fairspec_bench.models.hub import local_folder
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import read_lines
from fairspec_bench.schemas.lines import Timing
from fairspec_bench.scoring.executors.serving.vllm_offline import QUIET

pytestmark = pytest.mark.vllm

PAIR = ("embedded:verifier", "embedded:drafter")
ASKED: dict[str, Any] = {
    "languages": ("en", "te"),
    "limit": 8,
    "race_prompts": 8,
    "race_rounds": 2,
    "race_width": 0.0,
    "batch_size": (4, 1),
    "backend": "vllm",
}
EAGER = {"enforce_eager": True}
START = 180


def timings(folder: Path) -> list[Timing]:
    return [*read_lines(folder / "race.jsonl", Timing)]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "run"
    fairspec.run(*PAIR, ["embedded_math"], out, model_args=EAGER, **ASKED)
    return out


def test_vllm_and_this_engine_agree_to_the_last_count(scored: Path) -> None:
    found = fb.agree(scored)
    assert found.holds, agreement_page(found)
    for task in found.tasks:
        assert task.prompts == task.same_text == task.same_text_drafted == task.same_rounds == 8
        assert task.served == task.live
        assert task.live_inside == task.replayed
    english, telugu = (task.served for task in found.tasks)
    assert english.rounds < telugu.rounds, "what this benchmark is about"


def test_each_arrival_of_a_lone_request_is_a_block(scored: Path) -> None:
    drafted = [line for line in timings(scored) if line.mode == "speculative"]
    assert drafted
    for line in drafted:
        assert line.counters is not None
        assert len(line.blocks) == line.counters.rounds
        assert sum(block.raw_accepted for block in line.blocks) == line.counters.accepted
        assert line.diverged_at is None


def test_a_stopped_run_goes_on_to_the_same_texts(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(scored, out)
    marks = (out / "chunks.jsonl").read_text().splitlines(keepends=True)
    (out / "chunks.jsonl").write_text("".join(marks[:2]))
    fairspec.run(*PAIR, ["embedded_math"], out, model_args=EAGER, **ASKED)
    assert lasting(out) == lasting(scored)


def test_prompt_lookup_is_vllms_ngram(tmp_path: Path) -> None:
    asked = {**ASKED, "languages": ("en",), "batch_size": 4, "race_rounds": 1}
    report = fairspec.run(PAIR[0], "lookup:2", ["embedded_math"], tmp_path / "run", model_args=EAGER, **asked)
    lines = [line for line in timings(tmp_path / "run") if line.mode == "speculative"]
    assert sum(line.counters.drafts for line in lines if line.counters) > 0
    assert all(line.diverged_at is None for line in lines)
    assert report.suites[0].tasks[0].measures["speedup"].value is not None


def test_what_vllm_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match=r"this vLLM runs on cpu. Give --device cpu"):
        fairspec.run(*PAIR, ["embedded_math"], tmp_path / "a", device="cuda", **ASKED)
    with pytest.raises(FairspecError, match="vLLM refuses it") as refused:
        fairspec.run(*PAIR, ["embedded_math"], tmp_path / "b", model_args={**EAGER, "max_num_seqs": -1}, **ASKED)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("room", "said"), [(48, "vLLM refuses it"), (80, "vLLM ended it after")])
def test_what_vllm_has_no_room_for_is_refused(tmp_path: Path, room: int, said: str) -> None:
    asked = {**ASKED, "languages": ("en",), "batch_size": 4}
    given = {**EAGER, "max_model_len": room}
    with pytest.raises(FairspecError, match=said) as refused:
        fairspec.run(*PAIR, ["embedded_math"], tmp_path / "run", model_args=given, **asked)
    assert "\n" not in str(refused.value)


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A `vllm serve` of the built-in verifier, from its start to its end."""
    verifier, _ = map(str, map(local_folder, PAIR))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "vllm.entrypoints.openai.api_server"  # `vllm serve`, which the build for CPUs lacks
    command = [sys.executable, "-m", module, "--model", verifier, "--port", str(port), "--host", "127.0.0.1"]
    common = ["--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching"]
    process = subprocess.Popen([*command, *common, *arguments], env={**os.environ, **QUIET})
    try:
        until = time.monotonic() + START
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server did not start"
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def test_a_server_counts_what_the_offline_engine_counts(scored: Path, tmp_path: Path) -> None:
    drafter = str(local_folder(PAIR[1]))
    speculation = json.dumps({"method": "draft_model", "model": drafter, "num_speculative_tokens": 4})
    with server() as plain, server("--speculative-config", speculation) as drafted:
        report = fairspec.run(
            *PAIR,
            ["embedded_math"],
            tmp_path / "run",
            model_args={"base_url": plain},
            drafter_args={"base_url": drafted},
            **ASKED,
        )
    served, offline = (
        {(line.key, line.round): line.counters for line in timings(each) if line.mode == "speculative"}
        for each in (tmp_path / "run", scored)
    )
    assert served == offline
    assert fb.agree(tmp_path / "run").holds
    assert report.suites[0].sweep is not None
