"""What is loaded, what is refused, and in how many lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from saved_models import refusal, saved, word_level
from tiny_models import EOS, VOCAB, family
from transformers import (
    Lfm2Config,
    Lfm2ForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    PreTrainedModel,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
)

from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models import hub
from fairspec_bench.models import model as module
from fairspec_bench.models.model import check_vocabulary, load_model, wrap
from fairspec_bench.schemas.config import SamplingParams, revision_difference


def test_a_folder_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    hf = family("llama")
    model = load_model(str(saved(tmp_path, hf)))
    assert (model.vocab_size, model.max_positions, model.eos_ids) == (VOCAB, 128, {EOS})
    assert (model.dtype, model.device.type, model.revision, model.vocabulary) == (torch.float32, "cpu", None, None)
    assert model.weights_sha256 == wrap(hf, "the same").weights_sha256
    assert model.parameters == sum(weight.numel() for weight in hf.parameters())
    assert load_model(str(tmp_path), dtype="bfloat16").dtype == torch.bfloat16
    assert load_model(str(tmp_path), options={"attention": "eager"}).hf.config._attn_implementation == "eager"


def test_weights_hash_sees_one_bit() -> None:
    one, other = (wrap(family("gpt2"), "gpt2") for _ in range(2))
    with torch.no_grad():
        next(other.hf.parameters()).view(-1)[0] += 1e-3
    assert one.weights_sha256 != other.weights_sha256


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
        ("config.json", {"rms_norm_eps": 0.1}),
        ("config.json", {"hidden_act": "gelu"}),
        ("generation_config.json", {"eos_token_id": [1, 9]}),
    ],
)
def test_a_configuration_is_part_of_the_identity(file: str, change: dict[str, Any], tmp_path: Path) -> None:
    """The same weights under another configuration are another model: a hash of weights alone took it for the same."""
    before = load_model(str(saved(tmp_path)))
    path = tmp_path / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    after = load_model(str(tmp_path))
    assert after.weights_sha256 == before.weights_sha256
    assert revision_difference(before.identity, after.identity) == f"{file} differs"


def test_where_a_model_lies_and_how_it_is_stored_is_not_part_of_its_identity(tmp_path: Path) -> None:
    first = load_model(str(saved(tmp_path / "a"))).identity
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    other = {"_name_or_path": "elsewhere", "transformers_version": "5.0.0", "dtype": "bfloat16"}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config | other))
    assert load_model(str((tmp_path / "a").rename(tmp_path / "b"))).identity == first
    assert load_model(str(tmp_path / "b"), options={"attention": "eager"}).identity == first
    assert load_model(str(tmp_path / "b"), dtype="bfloat16").identity != first


def test_eos_ids_of_the_generation_config_come_first() -> None:
    hf = family("llama")
    hf.generation_config.eos_token_id = [3, 9]
    assert wrap(hf, "llama").eos_ids == {3, 9}
    hf.generation_config.eos_token_id = None
    assert wrap(hf, "llama").eos_ids == {EOS}


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _torn_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')


def _contradicting_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba2"}))


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _torn_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _lost_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002.safetensors"}}))


def _own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mystery", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('ran foreign code')")


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_no_config, "no config.json"),
        (_torn_config, "cannot be loaded"),
        (_contradicting_config, "Inconsistent configuration"),
        (_pickle_only, "pickled"),
        (_torn_weights, "cannot be loaded"),
        (_lost_shard, "model-00002.safetensors is missing"),
        (_own_code, "cannot be loaded"),
        (_other_shape, "weights lack"),
    ],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], None], word: str, tmp_path: Path) -> None:
    damage(saved(tmp_path))
    assert word in refusal(lambda: load_model(str(tmp_path)))


def test_other_refusals(tmp_path: Path) -> None:
    folder = str(saved(tmp_path))
    assert "no such folder" in refusal(lambda: load_model("./nowhere"))
    assert "unknown dtype" in refusal(lambda: load_model(folder, dtype="int8"))
    assert "unknown model option 'x'" in refusal(lambda: load_model(folder, options={"x": 1}))
    if not torch.cuda.is_available():
        assert "no CUDA device" in refusal(lambda: load_model(folder, device="cuda"))
    T5Config(num_layers=1, d_model=8, d_kv=4, d_ff=8, num_heads=2).save_pretrained(tmp_path)
    assert "encoder-decoder" in refusal(lambda: load_model(folder))


def test_layers_are_spread_where_accelerate_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU all of them go to the CPU; the same tokens come out."""
    folder = str(saved(tmp_path))
    spread = load_model(folder, options={"device_map": "auto"})
    assert not spread.spread
    assert first(spread, [9, 10, 11], 6).ids == first(load_model(folder), [9, 10, 11], 6).ids
    assert "Known: auto, balanced" in refusal(lambda: load_model(folder, options={"device_map": "mine"}))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert "pip install accelerate" in refusal(lambda: load_model(folder, options={"device_map": "auto"}))


def test_a_missing_hub_model_is_refused_at_once() -> None:
    started = time.perf_counter()
    assert "not in the Hub cache" in refusal(lambda: load_model("nobody/nothing"))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, ("https://huggingface.co/some/model", "licence", "HF_TOKEN")),
        (RepositoryNotFoundError, ("neither a folder nor a model", "HF_TOKEN")),
        (RevisionNotFoundError, ("no revision 'v9'",)),
        (ConnectionError, ("cannot be fetched",)),
    ],
)
def test_what_the_hub_says_is_passed_on_in_one_line(
    error: type[Exception], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, local_files_only: bool = False, **kwargs: object) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise error.__new__(error)

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    message = refusal(lambda: load_model("some/model", revision="v9"))
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Mamba2ForCausalLM(
            Mamba2Config(
                vocab_size=31, hidden_size=32, num_heads=8, head_dim=8, state_size=8, n_groups=1, num_hidden_layers=2
            )
        ),
        lambda: RwkvForCausalLM(
            RwkvConfig(vocab_size=31, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
        ),
        lambda: Lfm2ForCausalLM(
            Lfm2Config(
                vocab_size=31,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                layer_types=["conv", "full_attention"],
            )
        ),
    ],
)
def test_a_recurrent_model_is_refused(build: Callable[[], PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be rolled back" in refusal(lambda: wrap(build(), "recurrent"))
    monkeypatch.setattr(module, "_refuse_recurrent", lambda hf, name: None)
    assert "Choose another" in refusal(lambda: wrap(build(), "flags ignored"))


def test_the_probe_trusts_no_flag() -> None:
    """A layer that quietly keeps the last hidden state: no flag tells, but a rollback shows."""
    hf = family("llama")
    layer = hf.model.layers[0]
    layer.memory = torch.zeros(1)
    plain = layer.forward

    def forward(hidden: torch.Tensor, **kwargs: object) -> torch.Tensor:
        out = plain(hidden + 0.1 * layer.memory, **kwargs)
        layer.memory = out[:, -1:].detach()
        return out

    layer.forward = forward
    assert "keeps a state" in refusal(lambda: wrap(hf, "sly"))


def test_vocabularies_are_compared_by_meaning(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(VOCAB)]
    models = {}
    for name, tokens, size in [
        ("a", words, VOCAB),
        ("same", words, VOCAB),
        ("padded", words, VOCAB + 3),
        ("swapped", [words[1], words[0], *words[2:]], VOCAB),
    ]:
        folder = saved(tmp_path / name, family("llama", vocab_size=size))
        word_level(folder, tokens)
        models[name] = load_model(str(folder))
    bare = wrap(family("llama"), "bare")
    check_vocabulary(models["a"], models["same"])
    check_vocabulary(models["a"], models["padded"])
    check_vocabulary(models["a"], bare)
    assert "same tokenizer" in refusal(lambda: check_vocabulary(models["a"], models["swapped"]))
    assert "same tokenizer" in refusal(lambda: check_vocabulary(models["padded"], bare))


def first(model: module.Model, ids: list[int], max_new_tokens: int, batch_size: int = 1) -> object:
    asked = [Request(f"p{i}", tuple(ids), max_new_tokens, i) for i in range(batch_size)]
    return next(decode(model, None, asked, sampling=SamplingParams(), gamma=0, batch_size=batch_size, seed=0))


def test_a_prompt_id_past_the_vocabulary() -> None:
    """As from a tokenizer that was extended without its model."""
    model = wrap(family("llama"), "llama")
    assert first(model, [9, VOCAB - 1], 2).ids
    for ids, wrong in (([9, VOCAB, 70], VOCAB), ([-1, 9], -1)):
        message = refusal(lambda ids=ids: first(model, ids, 2))
        assert message.startswith(f"p0: prompt id {wrong} is not one of the {VOCAB} of llama.")
        assert "was its tokenizer extended and the model not resized?" in message


def test_a_prompt_must_fit() -> None:
    model = wrap(family("llama"), "llama")
    assert model.refusal(100, 28) is None
    assert model.refusal(100, 29) is not None
    assert "128 positions" in refusal(lambda: first(model, [9] * 100, 29))
    assert "prompt id" in refusal(lambda: first(model, [VOCAB], 3))


def test_longrope_goes_alone_and_stays_on_one_side_of_its_switch() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 600,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "factor": 4.0,
    }
    hf = family("llama", rope_parameters=rope, max_position_embeddings=2400, eos_token_id=None)
    model = wrap(hf, "longrope")
    assert model.rope_switch == 600
    assert "--batch_size 1" in refusal(lambda: first(model, [9, 10], 3, batch_size=2))
    assert "LongRoPE switch" in refusal(lambda: first(model, [9] * 590, 20))
    ids = torch.randint(0, VOCAB, (1, 700), generator=torch.Generator().manual_seed(0))
    done = first(model, ids[0].tolist(), 6)
    with torch.no_grad():
        want = hf.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert done.ids == tuple(want[0, 700:].tolist())


def test_dynamic_rope_is_exact_up_to_the_last_position() -> None:
    """It changes only beyond the positions a model has, which are refused: so a batch cannot change a row."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    hf = family("llama", rope_parameters=rope, eos_token_id=None)
    model = wrap(hf, "dynamic")
    asked = [[9, 10, 11], [12] * 60, [*range(8, 58)] * 2]
    want = [hf.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=128 - len(ids))[0] for ids in asked[2:]]
    for count in (1, 3):
        requests = [Request(f"p{i}", tuple(ids), 128 - len(ids), i) for i, ids in enumerate(asked[3 - count :])]
        done = {
            r.key: r.ids
            for r in decode(model, None, requests, sampling=SamplingParams(), gamma=0, batch_size=3, seed=0)
        }
        assert done[f"p{count - 1}"] == tuple(want[0][100:].tolist())
    assert "positions" in refusal(lambda: first(model, [9] * 100, 29))
