"""What of `generation_config.json` is not followed: told by `run` and `plan`, in run.json and in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import Fake, served
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.api.experiments import agreement_page

OPTIONS: dict[str, Any] = {"languages": ("en",), "limit": 2, "max_new_tokens": 6, "gamma": 2, "batch_size": 2}
WORD = "generation_config.json sets repetition_penalty=1.3, suppress_tokens=[5]"
SET = {"repetition_penalty": 1.3, "suppress_tokens": [5]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pair(plain: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = Path(shutil.copytree(plain[0], tmp_path_factory.mktemp("strict") / "verifier"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | SET | {"top_k": 20, "min_p": 0.1, "do_sample": True}))
    return str(folder), str(plain[1])


def test_a_run_names_what_it_does_not_follow(pair: tuple[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    report = fairspec.run(*pair, ["embedded_math"], tmp_path, cache=None, race_rounds=0, say=said.append, **OPTIONS)
    assert len([line for line in said if WORD in line]) == 1
    assert json.loads((tmp_path / "run.json").read_text())["generation_config_not_followed"] == SET
    assert len([note for note in report.notes if WORD in note]) == 1
    assert any(WORD in each for each in fairspec.plan(*pair, ["embedded_math"], **OPTIONS).assumptions)


def test_a_sampled_run_names_min_p_too(pair: tuple[str, str]) -> None:
    found = fairspec.plan(*pair, ["embedded_math"], temperature=0.5, **OPTIONS)
    assert any("min_p=0.1" in each for each in found.assumptions)


def test_a_plan_without_weights_names_it(pair: tuple[str, str], tmp_path: Path) -> None:
    bare = Path(shutil.copytree(pair[0], tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")))
    found = fairspec.plan(str(bare), "lookup", ["embedded_math"], **OPTIONS)
    assert found.hours is None
    assert any(WORD in each for each in found.assumptions)


def test_a_model_without_such_settings_is_not_warned_of(plain: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    pair = str(plain[0]), str(plain[1])
    fairspec.run(*pair, ["embedded_math"], tmp_path, cache=None, race_rounds=0, say=said.append, **OPTIONS)
    assert not any("generation_config" in line for line in said)
    assert "generation_config_not_followed" not in (tmp_path / "run.json").read_text()


def test_a_served_run_names_it_and_the_server_is_told_not_to_follow_it(pair: tuple[str, str], tmp_path: Path) -> None:
    """vLLM's server takes its defaults from generation_config.json; a request must say otherwise."""
    said: list[str] = []
    verifier, drafter = fairspec.load_pair(*pair)
    fakes = Fake(verifier, None, 2), Fake(verifier, drafter, 2)
    with served(fakes[0]) as one, served(fakes[1]) as other:
        fairspec.run(
            *pair, ["embedded_math"], tmp_path, backend="vllm", race_rounds=1, race_prompts=2, say=said.append,
            model_args={"base_url": one}, drafter_args={"base_url": other}, **OPTIONS,
        )  # fmt: skip
    assert len([line for line in said if WORD in line]) == 1
    assert json.loads((tmp_path / "run.json").read_text())["generation_config_not_followed"] == SET
    assert {body["repetition_penalty"] for fake in fakes for body in fake.bodies} == {1.0}
    assert WORD in agreement_page(fairspec.agree(tmp_path))
