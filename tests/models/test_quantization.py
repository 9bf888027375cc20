"""A verifier of rounded weights: its own greedy text whatever the drafter, its rounding told, refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from saved_models import refusal, saved
from tiny_models import EOS, family, generate, prompts, requests

from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.speculative import decode
from fairspec_bench.models import quantization
from fairspec_bench.models.model import Model, load_model, weights_sha256
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.scoring.backend import choose

INT8 = {"quantization": "quanto-int8"}
PROMPTS = prompts(12, 3, 30)
CAP = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), family("llama", initializer_range=0.1, eos_token_id=EOS))


@pytest.fixture(scope="module")
def verifier(folder: Path) -> Model:
    return load_model(str(folder), options=INT8)


def texts(model: Model) -> list[tuple[int, ...]]:
    return [generate(model.hf, ids, CAP) for ids in PROMPTS]


def test_its_text_is_its_own_and_not_the_unrounded_models(folder: Path, verifier: Model) -> None:
    plain = load_model(str(folder))
    assert verifier.quantized
    assert not plain.quantized
    want = texts(verifier)
    assert want != texts(plain)
    for batch in (1, 5):
        drafting = ModelDrafter(plain, verifier)
        done = decode(
            verifier, drafting, requests(PROMPTS, CAP), sampling=SamplingParams(), gamma=3, batch_size=batch, seed=0
        )
        rows = sorted(done, key=lambda row: int(row.key[1:]))
        assert [row.ids for row in rows] == want
    blocks = [block for row in rows for block in row.blocks]
    assert sum(block.accepted for block in blocks) > len(blocks)


def test_as_drafter(folder: Path, verifier: Model) -> None:
    plain = load_model(str(folder))
    drafting = ModelDrafter(verifier, plain)
    done = decode(plain, drafting, requests(PROMPTS, CAP), sampling=SamplingParams(), gamma=3, batch_size=5, seed=0)
    assert {row.key: row.ids for row in done} == {f"p{i}": ids for i, ids in enumerate(texts(plain))}


def test_identity_says_how_it_was_rounded(folder: Path, verifier: Model) -> None:
    plain = load_model(str(folder))
    assert verifier.identity.endswith("+quantization:quanto-int8")
    assert verifier.identity == load_model(str(folder), options=INT8).identity
    assert verifier.weights_sha256 == weights_sha256(verifier.hf) != plain.weights_sha256
    assert plain.identity == plain.content
    assert verifier.parameters == plain.parameters


def test_hash_sees_into_a_rounded_weight() -> None:
    """A weight of parts, as quantizers have it, is hashed by its parts."""

    class Rounded(torch.Tensor):
        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["codes", "scale"], None

    weight = torch.zeros(2).as_subclass(Rounded)
    weight.codes, weight.scale = torch.ones(2, dtype=torch.int8), torch.ones(1)
    assert [part.tolist() for part in quantization.stored(weight)] == [[1, 1], [1.0]]
    assert [part.tolist() for part in quantization.stored(torch.ones(1))] == [[1.0]]


def test_blocks_of_rounded_weights_run_as_they_are(folder: Path, verifier: Model) -> None:
    plain = load_model(str(folder))
    for one, other in ((verifier, plain), (plain, verifier)):
        chosen, word = choose(None, one, ModelDrafter(other, one), SamplingParams(), 3, 10**9)
        assert chosen.backend == "eager"
        assert "quantized" in str(word)


def test_refused_in_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = lambda where, name: refusal(lambda: load_model(str(where), options={"quantization": name}))  # noqa: E731
    assert "quantization=int3: unknown. Known: torchao-int8, bnb-8bit, bnb-4bit, quanto-int8" in load(folder, "int3")
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    assert "needs optimum-quanto. pip install optimum-quanto accelerate." in load(folder, "quanto-int8")
    monkeypatch.undo()
    saved(tmp_path, family("llama"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "its files are quantized already (gptq). Leave it out." in load(tmp_path, "quanto-int8")
    message = refusal(lambda: load_model(str(tmp_path)))
    assert "cannot be loaded" in message
    assert "gptq" in message.lower()


def test_a_planted_bug_is_seen(folder: Path, verifier: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounding asked for is not done."""
    monkeypatch.setattr("fairspec_bench.models.model.asked_quantization", lambda *rest: None)
    with pytest.raises(AssertionError):
        test_its_text_is_its_own_and_not_the_unrounded_models(folder, load_model(str(folder), options=INT8))
