"""A Llama of ours as GGUF in float32, and llama.cpp's own server with it: for tests where `xllamacpp` is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from safetensors import safe_open

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(folder: Path, out: Path) -> Path:
    """The safetensors Llama of `folder` with its byte-level BPE tokenizer, converted."""
    import gguf

    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(out), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(keys)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = tokenizer["model"]["vocab"]
    special = {each["content"] for each in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens += [f"<unused{place}>" for place in range(len(tokens), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(
        [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    )
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            stem = name.removesuffix(".weight")
            values = file.get_tensor(name).float().numpy()
            if stem in WHOLE:
                writer.add_tensor(f"{WHOLE[stem]}.weight", values)
                continue
            _, _, layer, part = stem.split(".", 3)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                values = _interleaved(values, heads if "q_proj" in part else keys)
            writer.add_tensor(f"blk.{layer}.{LAYER[part]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in llama.cpp's order, in which the two numbers that a position rotates stand together."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


@contextmanager
def llama_server(verifier: Path, drafter: Path | None, gamma: int) -> Iterator[str]:
    """The address of llama.cpp's server while the context lasts; with a drafter it speculates γ tokens."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path = str(verifier)
    given.n_ctx, given.n_parallel, given.warmup = 2048, 1, False
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = 1
    given.cache_type_k = given.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    given.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    given.port = 0
    given.endpoint_metrics = True
    if drafter is not None:
        given.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        draft: Any = given.speculative.draft
        draft.mparams.path = str(drafter)
        draft.n_max, draft.n_min, draft.p_min = gamma, 0, 0.0
        draft.cache_type_k = draft.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(given)
    address = str(server.listening_address)
    address = address if address.startswith("http") else f"http://{address}"
    for _ in range(300):
        if requests.get(f"{address}/health", timeout=5).status_code == 200:
            break
        time.sleep(0.1)
    yield address
    del server
