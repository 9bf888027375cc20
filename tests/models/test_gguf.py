"""GGUF files: the weights written into them come out, by their hash, once, with the ends that llama.cpp takes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from saved_models import refusal
from tiny_models import family
from transformers import PreTrainedModel

from fairspec_bench.api.options import check_model
from fairspec_bench.engine.drafters.spec import drafter_spec
from fairspec_bench.models import gguf as ours
from fairspec_bench.models import hub
from fairspec_bench.models.model import check_vocabulary, load_model
from fairspec_bench.schemas.io import CACHE_DIR

TOKENS = [*(f"<{number}>" for number in range(56)), "b", "ab", "<|im_end|>", "<|eom|>", "a"]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}
Change = Callable[[gguf.GGUFWriter], object]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "cache"))
    return tmp_path / "cache"


def qwen2(**changes: Any) -> PreTrainedModel:
    return family("qwen2", eos_token_id=None, **changes)


def write(
    path: Path, hf: PreTrainedModel, kind: str = "F32", *, arch: str = "qwen2", tokens: bool = True, more: Change = id
) -> Path:
    """A Qwen2 as llama.cpp stores it. `kind`: how its matrices are stored."""
    config, writer = hf.config, gguf.GGUFWriter(path, arch)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(TOKENS)
        writer.add_token_types([gguf.TokenType.NORMAL] * 58 + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(55)
        writer.add_eot_token_id(54)
        writer.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")
    more(writer)
    for name, weight in hf.state_dict().items():
        for theirs, here in NAMES.items():
            name = name.replace(theirs, here)
        data, how = weight.numpy(), gguf.GGMLQuantizationType[kind if weight.dim() > 1 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(data, how), raw_dtype=how)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(hf: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return hf(torch.arange(8, 30)[None]).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_the_weights_of_the_file(tmp_path: Path, kind: str, tied: bool) -> None:
    want = qwen2(tie_word_embeddings=tied)
    file = write(tmp_path / "tiny.gguf", want, kind)
    model = load_model(str(file))
    how = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for weight in want.parameters():
            if weight.dim() > 1:
                rounded = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), how), how)
                weight.copy_(torch.from_numpy(np.ascontiguousarray(rounded)))
    assert torch.equal(logits(model.hf), logits(want)) or (logits(model.hf) - logits(want)).abs().max() < 1e-4
    assert model.dtype == torch.float32
    for name, weight in want.named_parameters():
        assert torch.equal(model.hf.get_parameter(name), weight), name


def test_its_revision_is_the_files_hash_and_it_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path / "tiny.gguf", qwen2(), "Q8_0")
    first = load_model(str(file))
    assert first.identity == first.revision == f"gguf-sha256:{hub.unpack(file).sha256}"
    made = hub.local_folder(str(file))
    assert made == cache / "models" / first.identity.replace("sha256:", "")
    before = (made / "model.safetensors").stat().st_mtime_ns
    copy = shutil.copy(file, tmp_path / "another.gguf")
    assert load_model(str(copy)).identity == first.identity
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    assert load_model(str(file), revision=first.identity).identity == first.identity
    wrong = f"gguf-sha256:{'0' * 64}"
    assert f"its revision is {first.identity}, not {wrong}." in refusal(lambda: load_model(str(file), revision=wrong))
    other = load_model(str(write(tmp_path / "tiny.gguf", qwen2(seed=1), "Q8_0")))
    assert other.identity != first.identity


def test_a_half_written_folder_is_never_used(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "tiny.gguf", qwen2())

    def killed(*args: Any) -> None:
        Path(args[2], "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fairspec_bench.models.checkpoint.save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            load_model(str(file))
    left = next((cache / "models").glob("*.lock")).with_suffix("")
    assert not left.exists()
    partial = left.with_name(f"{left.name}.partial")
    partial.mkdir()
    (partial / "model.safetensors").write_text("half")
    assert load_model(str(file)).vocab_size == 61
    assert not partial.exists()


def test_one_that_stops_waiting_leaves_the_others_work(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "tiny.gguf", qwen2())
    partial = cache / "models" / f"gguf-{ours.file_sha256(file)}.partial"
    partial.mkdir(parents=True)

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ours.FileLock, "__enter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ours.unpack(file)
    assert partial.is_dir()


def test_ends_are_those_of_the_metadata_and_of_known_names(tmp_path: Path) -> None:
    assert load_model(str(write(tmp_path / "tiny.gguf", qwen2()))).eos_ids == {54, 55, TOKENS.index("<|im_end|>")}


def test_its_tokenizer_and_template_come_with_it(tmp_path: Path) -> None:
    folder = hub.locate_tokenizer(str(write(tmp_path / "tiny.gguf", qwen2()))).folder
    assert "message.content" in (folder / "chat_template.jinja").read_text()
    one = load_model(str(tmp_path / "tiny.gguf"))
    assert one.vocabulary is not None
    alone = load_model(str(write(tmp_path / "alone.gguf", qwen2(), tokens=False)))
    assert alone.vocabulary is None
    check_vocabulary(one, alone)  # of one size

    def swapped(writer: gguf.GGUFWriter) -> None:
        writer.add_token_list([TOKENS[1], TOKENS[0], *TOKENS[2:]])

    tokens = write(tmp_path / "swapped.gguf", qwen2(), tokens=False, more=lambda writer: _tokenizer(writer, swapped))
    message = refusal(lambda: check_vocabulary(one, load_model(str(tokens))))
    assert "id 0 is '<1>', not '<0>'" in message


def _tokenizer(writer: gguf.GGUFWriter, tokens: Change) -> None:
    writer.add_tokenizer_model("gpt2")
    tokens(writer)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(55)


def test_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = lambda path: refusal(lambda: load_model(str(path)))  # noqa: E731
    assert "no such file. Give a GGUF file" in load(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("GG")
    assert "not a GGUF file" in load(tmp_path / "text.gguf")
    whole = write(tmp_path / "whole.gguf", qwen2())
    for cut in (6, 40, 900, whole.stat().st_size - 40):
        short = tmp_path / f"short{cut}.gguf"
        short.write_bytes(whole.read_bytes()[:cut])
        assert "truncated or damaged" in load(short)
    unknown = write(tmp_path / "unknown.gguf", qwen2(), arch="plamo")
    assert "architecture plamo is not supported" in load(unknown)
    with monkeypatch.context() as patch:
        patch.setattr(ours, "SPARE_BYTES", 2**60)
        assert "Free some, or set FAIRSPEC_CACHE_DIR." in load(whole)
    with monkeypatch.context() as patch:
        patch.setattr(ours, "find_spec", lambda name: None)
        assert "needs gguf. pip install 'fairspec-bench[gguf]'." in load(whole)
    assert load_model(str(whole)).vocab_size == 61


def test_a_name_is_checked_without_unpacking(tmp_path: Path, cache: Path) -> None:
    file = write(tmp_path / "tiny.gguf", qwen2())
    check_model(str(file))
    check_model("owner/name:folder/file.gguf")
    assert drafter_spec(str(file)).kind == "model"
    assert not cache.exists()
    assert "no such file" in refusal(lambda: check_model("owner/name:../../file.gguf"))


def test_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub" / "models--org--files"
    (home / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("1" * 40)
    file = write(home / "snapshots" / ("1" * 40) / "tiny.gguf", qwen2())
    assert load_model("org/files:tiny.gguf").identity == load_model(str(file)).identity
    assert "cannot be reached" in refusal(lambda: load_model("org/files:other.gguf"))
