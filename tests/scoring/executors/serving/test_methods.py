"""What vLLM is told of a drafter, and what the run's configuration keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.api.options import run_options
from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.schemas.io import write_record
from fairspec_bench.scoring.executors.serving import vllm
from fairspec_bench.scoring.executors.serving.executor import prepare_served
from fairspec_bench.scoring.executors.serving.model_files import read_card


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    verifier, drafter = save_pair(tmp_path_factory.mktemp("pair"))
    return str(verifier), str(drafter)


@pytest.fixture(autouse=True)
def _vllm_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "check_offline", lambda device: None)


def prepared(verifier: str, drafter: str, monkeypatch: pytest.MonkeyPatch, **options: Any):
    """The configuration, and what the engine with a drafter would be started with."""
    asked = run_options(verifier, drafter, ["embedded_math"], languages=("en",), limit=1, backend="vllm", **options)
    ready = prepare_served(vllm.VLLM, asked)
    told: dict[str, Any] = {}
    monkeypatch.setattr(vllm, "Offline", lambda model, **given: told.update(given, model=model))
    ready.start(True)
    return ready.config, told


@pytest.mark.parametrize("method", ["draft_model", "eagle", "eagle3", "medusa"])
def test_a_model_is_told_by_its_folder_and_method(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    given = {} if method == "draft_model" else {"drafter_args": {"method": method}}
    config, told = prepared(*pair, monkeypatch, gamma=3, **given)
    assert told["speculation"] == {"method": method, "num_speculative_tokens": 3, "model": pair[1]}
    assert told["model"] == pair[0]
    assert config.drafter is not None
    assert config.drafter.options == given.get("drafter_args", {})
    assert config.drafter.revision == read_card("d", pair[1], None, "vllm").identity
    assert config.backend == "vllm"


def head(folder: Path, config: dict[str, Any], **tensors: np.ndarray) -> str:
    """A drafter's checkpoint of a kind that Transformers need not know."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"fc.weight": np.zeros((2, 2), dtype=np.float32), **tensors}, folder / "model.safetensors")
    return str(folder)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"speculators_model_type": "eagle3"}, "eagle3"),
        ({"speculators_model_type": "of_next_year", "architectures": ["Eagle3Speculator"]}, "of_next_year"),
        ({"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama"}, "eagle3"),
        ({"architectures": ["EagleLlamaForCausalLM"], "model_type": "eagle"}, "eagle"),
        ({"architectures": ["DFlashDraftModel"], "model_type": "qwen3"}, "dflash"),
        ({"architectures": ["P_EagleDraftModel"]}, "peagle"),
        ({"model_type": "mlp_speculator"}, "mlp_speculator"),
        ({"model_type": "medusa"}, "medusa"),
    ],
)
def test_the_method_of_a_checkpoint_is_read_and_recorded(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, Any], method: str
) -> None:
    folder = head(tmp_path / "head", config)
    recorded, told = prepared(pair[0], folder, monkeypatch)
    assert told["speculation"] == {"method": method, "num_speculative_tokens": 4, "model": folder}
    assert recorded.drafter is not None
    assert recorded.drafter.options == {"method": method}
    recorded, told = prepared(pair[0], folder, monkeypatch, drafter_args={"method": "other"})
    assert told["speculation"]["method"] == "other"
    assert recorded.drafter is not None
    assert recorded.drafter.options == {"method": "other"}


@pytest.mark.parametrize("name", ["suffix", "mtp", "of_next_year"])
def test_a_method_without_weights_is_passed_on_by_its_name(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    numbers = {"suffix_decoding_max_tree_depth": 24, "suffix_decoding_min_token_prob": 0.1}
    config, told = prepared(pair[0], name, monkeypatch, drafter_args=numbers)
    assert told["speculation"] == {"method": name, "num_speculative_tokens": 4, **numbers}
    assert config.drafter is not None
    assert (config.drafter.name, config.drafter.revision, config.drafter.options) == (name, None, numbers)


def test_lookup_on_a_gpu_is_lookup(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = prepared(pair[0], "lookup:2", monkeypatch, drafter_args={"method": "ngram_gpu"})
    assert (told["speculation"]["method"], told["speculation"]["prompt_lookup_max"]) == ("ngram_gpu", 2)


@pytest.mark.parametrize(
    "option", [{"model": "elsewhere/weights"}, {"trust_remote_code": True}, {"draft_load_config": "x"}]
)
def test_only_numbers_are_passed_on_unread(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, option: dict[str, Any]
) -> None:
    """A word could name other weights, a switch run foreign code."""
    with pytest.raises(FairspecError, match="not an option of vLLM's here"):
        prepared(*pair, monkeypatch, drafter_args=option)
    _, told = prepared(*pair, monkeypatch, gamma=3, drafter_args={"num_speculative_tokens": 9})
    assert told["speculation"]["num_speculative_tokens"] == 3


def test_the_draft_vocabulary_is_read_as_offsets_or_as_a_mask(tmp_path: Path) -> None:
    config = {"speculators_model_type": "eagle3"}
    offsets = head(tmp_path / "d2t", config, d2t=np.array([0, 4, 5], dtype=np.int64))
    mask = head(tmp_path / "t2d", config, t2d=np.array([1, 0, 0, 0, 0, 1, 0, 1], dtype=np.bool_))
    whole = head(tmp_path / "whole", config)
    cards = [read_card("d", folder, None, "vllm", head=True) for folder in (offsets, mask, whole)]
    assert [card.draft_vocabulary for card in cards] == [{0, 5, 7}, {0, 5, 7}, None]


def test_lookup_and_mtp_have_no_weights(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = prepared(pair[0], "lookup:2", monkeypatch)
    assert told["speculation"] == {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 2,
        "prompt_lookup_min": 1,
    }
    config, told = prepared(pair[0], "mtp", monkeypatch)
    assert told["speculation"] == {"method": "mtp", "num_speculative_tokens": 4}
    assert config.drafter is not None
    assert (config.drafter.name, config.drafter.revision, config.drafter.parameters) == ("mtp", None, None)


def test_how_to_run_a_model_is_passed_on_and_recorded(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    spread = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    config, told = prepared(*pair, monkeypatch, model_args=spread)
    assert told["settings"] == spread
    assert config.verifier.options == spread


def test_a_drafter_that_vllm_does_not_have_is_refused(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FairspecError, match=r"vLLM has no such drafter\. Give a model, lookup"):
        prepared(pair[0], "oracle:0.8", monkeypatch)


def test_another_tokenizer_is_refused(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, other = save_pair(tmp_path, vocabulary=320)
    with pytest.raises(FairspecError, match="its vocabulary is not that of"):
        prepared(pair[0], str(other), monkeypatch)


def test_an_address_is_not_recorded(pair: tuple[str, str]) -> None:
    sides = {name: {"base_url": "http://10.0.0.1:8000"} for name in ("model_args", "drafter_args")}
    asked = run_options(*pair, ["embedded_math"], languages=("en",), limit=1, backend="vllm", **sides)
    text = prepare_served(vllm.VLLM, asked).config.model_dump_json()
    assert "10.0.0.1" not in text
    assert '"served":true' in text


def test_an_identity_follows_from_the_files(pair: tuple[str, str], tmp_path: Path) -> None:
    verifier, drafter = (read_card(name, name, None, "vllm") for name in pair)
    assert verifier.identity != drafter.identity
    assert verifier.parameters == drafter.parameters == fairspec.load_pair(*pair)[0].parameters
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in Path(pair[0]).iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    assert read_card("c", str(changed), None, "vllm").identity == verifier.identity
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert read_card("c", str(changed), None, "vllm").identity != verifier.identity


def test_a_plan_does_not_time_another_engine(pair: tuple[str, str]) -> None:
    with pytest.raises(FairspecError, match="a plan times this engine"):
        fairspec.plan(*pair, ["embedded_math"], backend="vllm")


def test_agreement_is_with_the_commits_that_were_run(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, _ = prepared(*pair, monkeypatch)
    assert config.drafter is not None
    pinned = config.model_copy(
        update={
            "verifier": config.verifier.model_copy(update={"name": "org/big", "revision": "a" * 40}),
            "drafter": config.drafter.model_copy(update={"revision": "files-sha256:" + "b" * 64}),
        }
    )
    write_record(tmp_path / "run.json", pinned)
    asked: list[Any] = []
    monkeypatch.setattr("fairspec_bench.experiments.agreement.agree", lambda path, *models: asked.extend(models))
    fairspec.agree(tmp_path)
    assert [(each.source, each.revision) for each in asked] == [("org/big", "a" * 40), (pair[1], None)]
