"""Packed weights are the same weights: the greedy text of the packed model whatever drafter, batch and backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from saved_models import refusal, saved
from tiny_models import counted, family, generate, noised, prompts, requests
from tiny_pair import save_pair

import fairspec_bench as fairspec
from fairspec_bench.engine.drafters.base import Drafter
from fairspec_bench.engine.drafters.lookup import LookupDrafter
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.speculative import decode
from fairspec_bench.mitigation.finetune import FineTuneOptions, load_student
from fairspec_bench.models import packing
from fairspec_bench.models.model import Model, load_model, wrap
from fairspec_bench.schemas.config import RunConfig, SamplingParams
from fairspec_bench.schemas.io import read_record
from fairspec_bench.schemas.options import model_spec
from fairspec_bench.scoring.backend import choose
from fairspec_bench.scoring.reference import _common

PROMPTS = prompts(24, 3, 30)
CAP = 12
ON, OFF = {"packing": "on"}, {"packing": "off"}


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Among them biases, and a head that is tied to the embedding."""
    return saved(tmp_path_factory.mktemp("model"), family(request.param, tie_word_embeddings=request.param == "gemma3"))


def _logits(model: Model, rows: int) -> torch.Tensor:
    ids = torch.tensor([prompts(1, 20, 20)[0]] * rows)
    with torch.no_grad():
        return model.hf(ids, use_cache=False).logits


def test_the_same_model(folder: Path) -> None:
    plain, packed = load_model(str(folder)), load_model(str(folder), options=ON)
    assert (plain.packed, packed.packed) == (False, True)
    for rows in (1, 7):
        torch.testing.assert_close(_logits(packed, rows), _logits(plain, rows), rtol=1e-5, atol=1e-5)
    assert packed.identity == plain.identity
    assert packed.parameters == plain.parameters
    assert packed.dtype == torch.float32


def test_in_place_of_the_plain_weights(folder: Path) -> None:
    """A weight is kept once, but for one that is read as an embedding too."""
    hf = load_model(str(folder), options=ON).hf
    layers = {name: module for name, module in hf.named_modules() if isinstance(module, torch.nn.Linear)}
    assert len(layers) == 2 * 7 + 1
    tied = hf.config.tie_word_embeddings
    for name, layer in layers.items():
        assert type(layer) is packing.PackedLinear
        beside = tied and name == "lm_head"
        assert (layer.weight.is_mkldnn, layer.beside is None) == (not beside, not beside)
        assert layer.beside is None or layer.beside.is_mkldnn


def _drafters(verifier: Model, plain: Model, texts: list[tuple[int, ...]]) -> dict[str, Drafter | None]:
    pairs = list(zip(PROMPTS[::2], texts[::2], strict=True))
    small = noised(plain, 0.02)
    packing.pack(small.hf)
    return {
        "none": None,
        "model": ModelDrafter(small, verifier),
        "lookup": LookupDrafter(),
        "ngram": counted(verifier, pairs),
    }


@pytest.mark.parametrize("backend", ["eager", "graph"])
def test_greedy_ids_are_its_own_whatever_the_drafter_and_the_batch(folder: Path, backend: str) -> None:
    plain, verifier = load_model(str(folder)), replace(load_model(str(folder), options=ON), backend=backend)
    want = [generate(verifier.hf, ids, CAP) for ids in PROMPTS]
    for kind, drafter in _drafters(verifier, plain, want).items():
        for batch in (1, 3, 8):
            options = {"sampling": SamplingParams(), "gamma": 3, "batch_size": batch, "seed": 0}
            done = {row.key: row for row in decode(verifier, drafter, requests(PROMPTS, CAP), **options)}
            assert [done[f"p{i}"].ids for i in range(len(PROMPTS))] == want, (kind, batch)
        if kind == "model":
            blocks = [block for row in done.values() for block in row.blocks]
            assert sum(block.accepted for block in blocks) > len(blocks)


def test_what_is_packed_follows_from_size_and_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = lambda **options: load_model(str(folder), **options)  # noqa: E731
    assert not load().packed
    size = sum(each.weight.numel() for each in load().hf.modules() if isinstance(each, torch.nn.Linear))
    monkeypatch.setattr(packing, "PACKS_FROM", size)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not load().packed
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert load().packed
    assert load(options={"packing": "auto"}).packed
    assert not load(options=OFF).packed
    assert not load(dtype="bfloat16").packed
    monkeypatch.setattr(packing, "PACKS_FROM", size + 1)
    assert not load().packed
    assert "packing=on: only unquantized float32" in refusal(lambda: load(dtype="bfloat16", options=ON))
    assert "packing=maybe: unknown. Known: auto, on, off." in refusal(lambda: load(options={"packing": "maybe"}))
    chosen, word = choose(None, load(options=ON), None, SamplingParams(), 3, 10**9)
    assert chosen.backend == "eager"
    assert "packed" in str(word)


def test_what_is_trained_is_plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACKS_FROM", 0)
    spec = model_spec(str(folder))
    asked = FineTuneOptions(spec, spec, "uniform", ("embedded_math",))
    student = load_student(asked, load_model(str(folder)))
    assert not student.packed
    student.hf(torch.ones(1, 2, dtype=torch.long)).logits.sum().backward()


def test_references_of_packed_and_plain_weights_are_not_mixed() -> None:
    common = [_common(model, SamplingParams(), 0) for model in (wrap(family("llama"), "a"), _packed("a"))]
    assert common[0] != common[1]
    assert common[0]["content"] == common[1]["content"]


def _packed(name: str) -> Model:
    hf = family("llama")
    packing.pack(hf)
    return wrap(hf, name)


def test_in_the_record(tmp_path: Path) -> None:
    verifier, drafter = map(str, save_pair(tmp_path))
    options = {"languages": ("en",), "limit": 2, "max_new_tokens": 8, "race_rounds": 0, "cache": None}
    for name, args in (("on", {"model_args": ON}), ("off", {})):
        fairspec.run(verifier, drafter, ["embedded_math"], tmp_path / name, **args, **options)
    on, off = (read_record(tmp_path / name / "run.json", RunConfig) for name in ("on", "off"))
    assert (on.verifier.packed, on.drafter.packed, off.verifier.packed) == (True, False, False)
    assert "packed" not in (tmp_path / "off" / "run.json").read_text()
    assert on.verifier.revision == off.verifier.revision


def test_a_planted_bug_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs meet the weights of others."""
    whole = torch.ops.mkldnn._linear_pointwise
    wrong = lambda layer, given: whole(given.flip(-1), layer.weight, layer.bias, "none", [], "")  # noqa: E731
    monkeypatch.setattr(packing.PackedLinear, "forward", wrong)
    with pytest.raises(AssertionError):
        test_the_same_model(folder)
