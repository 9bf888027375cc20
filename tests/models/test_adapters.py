"""PEFT adapters: merged into the base they name, with the distribution of PEFT's own; refused in one line if not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import refusal, saved, word_level
from tiny_models import VOCAB, family, generate, prompts, requests, stock
from tiny_pair import save_pair
from transformers import AutoModelForCausalLM

import fairspec_bench as fairspec
from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.drafters.registry import load_drafter
from fairspec_bench.engine.speculative import decode
from fairspec_bench.models import adapters, hub
from fairspec_bench.models.codec import Codec
from fairspec_bench.models.model import load_model
from fairspec_bench.schemas.config import SamplingParams

WORDS = [f"w{i}" for i in range(VOCAB)]
PROMPTS = prompts(8, 3, 20)
CAP = 10


def adapted(base: Path, folder: Path, seed: int = 0, **changes: object) -> Path:
    """Save a LoRA adapter, random in all its weights, for the model in `base`."""
    config = peft.LoraConfig(
        **{"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes},
        init_lora_weights=False,
    )
    hf = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    peft.get_peft_model(hf, config).save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = saved(tmp_path / "base", family("llama"))
    word_level(folder, WORDS)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return adapted(base, tmp_path / "adapter")


def unmerged(adapter: Path, base: Path) -> peft.PeftModel:
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_it_is_the_model_that_peft_makes(base: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    adapter = adapted(base, tmp_path / "adapter", **changes)
    model, plain = load_model(str(adapter)), load_model(str(base))
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        want, got = unmerged(adapter, base)(ids).logits, stock(model)(ids).logits
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
        assert (stock(plain)(ids).logits - want).abs().max() > 0.1
    assert not any("lora" in name for name, _ in model.hf.named_parameters())
    assert model.parameters == plain.parameters


def test_as_drafter_and_as_verifier(base: Path, adapter: Path) -> None:
    """Lossless either way; the adapter has no tokenizer, so its base's is compared."""
    models = load_model(str(base)), load_model(str(adapter))
    wanted = [generate(hf, ids, CAP) for hf in (unmerged(adapter, base).base_model.model,) for ids in PROMPTS]
    for verifier, other in (models, models[::-1]):
        drafter = load_drafter("model", other.name, None, verifier)
        assert isinstance(drafter, ModelDrafter)
        done = decode(
            verifier, drafter, requests(PROMPTS, CAP), sampling=SamplingParams(), gamma=3, batch_size=4, seed=0
        )
        got = {row.key: row.ids for row in done}
        want = wanted if verifier is models[1] else [generate(stock(verifier), ids, CAP) for ids in PROMPTS]
        assert [got[f"p{i}"] for i in range(len(PROMPTS))] == want
    assert models[0].vocabulary == models[1].vocabulary is not None
    assert Codec(str(adapter)).tokenizer_sha256 == Codec(str(base)).tokenizer_sha256


def test_identity_is_of_the_base_and_of_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    first = load_model(str(adapter)).identity
    assert first == f"{load_model(str(base)).identity}+adapter-sha256:{adapters.adapter_sha256(adapter)}"
    moved = adapter.rename(tmp_path / "elsewhere")
    assert load_model(str(moved)).identity == first
    other = adapted(base, tmp_path / "other", seed=1)
    assert load_model(str(other)).identity not in (first, load_model(str(base)).identity)
    edit(moved, lora_alpha=17)
    assert load_model(str(moved)).identity != first
    edit(moved, lora_alpha=16)
    assert load_model(str(moved)).identity == first
    saved(base, family("llama", seed=1))
    assert load_model(str(moved)).identity != first


def test_its_own_tokenizer_goes_before_its_bases(base: Path, adapter: Path) -> None:
    word_level(adapter, [WORDS[1], WORDS[0], *WORDS[2:]])
    verifier = load_model(str(base))
    message = refusal(lambda: load_drafter("model", str(adapter), None, verifier))
    assert "same tokenizer" in message
    assert "id 0 is 'w1', not 'w0'" in message


def test_it_is_mended_like_any_drafter(tmp_path: Path) -> None:
    """What comes of it is a model of its own, in the dtype of its base."""
    verifier, base = save_pair(tmp_path / "pair")
    adapter = adapted(base, tmp_path / "adapter", r=1)
    prompts_folder = tmp_path / "prompts"
    prompts_folder.mkdir()
    (prompts_folder / "en.txt").write_text("".join(f"Ann has {n} apples.\n" for n in range(8)))
    options = {"prompts": (str(prompts_folder),), "steps": 2, "max_new_tokens": 8, "lr": 1e-4, "cache": None}
    tuned = fairspec.mitigate(str(verifier), str(adapter), "s-cdf", tmp_path / "tuned", **options)
    assert not (tuned.folder / hub.ADAPTER).exists()
    assert load_model(str(tuned.folder)).parameters == load_model(str(base)).parameters


# --------------------------------------------------------------------------- refusals


def edit(folder: Path, **changes: object) -> None:
    path = folder / hub.ADAPTER
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _pickle_only(adapter: Path) -> None:
    (adapter / hub.ADAPTER_WEIGHTS).rename(adapter / "adapter_model.bin")


def _lost_weight(adapter: Path) -> None:
    weights = load_file(adapter / hub.ADAPTER_WEIGHTS)
    weights.pop(min(weights))
    save_file(weights, adapter / hub.ADAPTER_WEIGHTS)


def _torn_weights(adapter: Path) -> None:
    file = adapter / hub.ADAPTER_WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _other_base(adapter: Path) -> None:
    other = saved(adapter.parent / "wide", family("llama", hidden_size=64))
    edit(adapter, base_model_name_or_path=str(other))


def _on_an_adapter(adapter: Path) -> None:
    other = adapted(adapter.parent / "base", adapter.parent / "second")
    edit(adapter, base_model_name_or_path=str(other))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "other formats are refused": _pickle_only,
    "adapter_model.safetensors lacks": _lost_weight,
    "cannot be merged into": _torn_weights,
    "size mismatch": _other_base,
    "is an adapter itself": _on_an_adapter,
    "the base that adapter_config.json names is not available: /nowhere": lambda a: edit(
        a, base_model_name_or_path="/nowhere"
    ),
    "not in the Hub cache": lambda a: edit(a, base_model_name_or_path="nobody/nothing"),
    "names no base": lambda a: edit(a, base_model_name_or_path=None),
    "must be text": lambda a: edit(a, revision=3),
    "a PREFIX_TUNING adapter; only LORA": lambda a: edit(a, peft_type="PREFIX_TUNING"),
    "a Megatron adapter": lambda a: edit(a, megatron_config={"x": 1}, megatron_core="os"),
    "damaged": lambda a: (a / hub.ADAPTER).write_text('{"peft_type": "LO'),
    "larger than": lambda a: (a / hub.ADAPTER).write_text(" " * (hub.MAX_ADAPTER_BYTES + 1)),
}


@pytest.mark.parametrize("word", DAMAGES)
def test_refused_in_one_line(word: str, adapter: Path) -> None:
    DAMAGES[word](adapter)
    assert word in refusal(lambda: load_model(str(adapter)))


def test_without_peft_it_is_said_what_to_install(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "pip install 'fairspec-bench[lora]'" in refusal(lambda: load_model(str(adapter)))


def test_an_adapter_without_any_tokenizer_is_refused(adapter: Path) -> None:
    edit(adapter, base_model_name_or_path=None)
    assert "Add its tokenizer" in refusal(lambda: Codec(str(adapter)))


def test_a_planted_bug_is_seen(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base without what the adapter adds."""
    monkeypatch.setattr("fairspec_bench.models.model.merged", lambda base, folder, name: base)
    with pytest.raises(AssertionError):
        test_it_is_the_model_that_peft_makes(base, tmp_path, {})
