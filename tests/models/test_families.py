"""Families beyond those of tests/engine/test_losslessness.py: greedy ids are those of `generate`, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from saved_models import refusal
from tiny_models import EOS, VOCAB, generate, noised, prompts, requests, stock
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from fairspec_bench.engine.drafters.model import ModelDrafter
from fairspec_bench.engine.speculative import decode
from fairspec_bench.models import model as module
from fairspec_bench.models.kv_cache import RowCache
from fairspec_bench.models.model import wrap
from fairspec_bench.schemas.config import SamplingParams

CAP = 8
PROMPTS = prompts(3, 5, 30)
AROUND_THE_WINDOW = [prompts(1, length, length, seed=length)[0] for length in (5, 8, 13, 17, 30)]
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": EOS,
}
WINDOW = {"sliding_window": 8}
ALTERNATING = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {**YARN, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
EXTRA = {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8}

FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "bert": {"is_decoder": True},
    "biogpt": {},
    "codegen": {**GPT, "rotary_dim": 8},
    "cohere": {},
    "cohere2": ALTERNATING,
    "deepseek_v3": {
        **EXPERTS,
        **LATENT,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "exaone4": ALTERNATING,
    "falcon": {"alibi": False, "bos_token_id": 1, "head_dim": None},
    "gemma": {},
    "gemma4_text": {**ALTERNATING, **EXTRA, "global_head_dim": 8},
    "glm4": {},
    "gpt_bigcode": GPT,
    "gpt_neox": {},
    "gpt_oss": {**ALTERNATING, **EXPERTS, "num_local_experts": 4},
    "gptj": {**GPT, "rotary_dim": 8, "initializer_range": 0.6},
    "granite": {},
    "helium": {},
    "llama with llama3 rope": {"rope_parameters": LLAMA3},
    "llama with yarn": {"rope_parameters": YARN},
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 128},
    "nemotron": {},
    "olmo2": {},
    "olmo3": ALTERNATING,
    "olmoe": {**EXPERTS, "num_experts": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "qwen3_moe": {**EXPERTS, "num_experts": 4},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": WINDOW,
    "xglm": {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4},
}
WINDOWED = {
    **{name: options for name, options in FAMILIES.items() if "sliding_window" in options},
    "gemma2": {**WINDOW, "query_pre_attn_scalar": 8},
    "gemma3_text": {**ALTERNATING, "query_pre_attn_scalar": 8},
    "mistral": WINDOW,
    "phi3": WINDOW,
    "qwen2": {**WINDOW, "use_sliding_window": True, "max_window_layers": 0},
}


def config_of(name: str, options: dict[str, Any]) -> PreTrainedConfig:
    """Of the family that the first word of `name` is the type of, tiny."""
    asked = {**SHAPE, **options}
    return AutoConfig.for_model(
        name.split()[0], **{key: asked[key] for key in asked if key != "head_dim" or asked[key]}
    )


def built(name: str, options: dict[str, Any]) -> PreTrainedModel:
    """A model with random weights."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(name, options)).eval()


def check(name: str, options: dict[str, Any], ids: list[list[int]], gammas: tuple[int, ...]) -> None:
    """Decode with a drafter that often agrees, one prompt at a time and three, and compare with `generate`."""
    model = wrap(built(name, options), name)
    drafter = ModelDrafter(noised(model, 0.02), model)
    want = [generate(stock(model), each, CAP) for each in ids]
    for gamma, batch in ((gamma, batch) for gamma in gammas for batch in (1, 3)):
        asked = requests(ids, CAP)
        done = decode(model, drafter, asked, sampling=SamplingParams(), gamma=gamma, batch_size=batch, seed=0)
        rows = sorted(done, key=lambda row: row.key)
        assert [row.ids for row in rows] == want, (gamma, batch)
        assert sum(block.accepted for row in rows for block in row.blocks) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_ids_are_those_of_generate(name: str) -> None:
    check(name, FAMILIES[name], PROMPTS, (4,))


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_reached_inside_a_block(name: str) -> None:
    """Prompts shorter than a window of 8, as long, and longer; γ below the window and above it."""
    check(name, WINDOWED[name], AROUND_THE_WINDOW, (4, 16))


def test_a_window_that_is_off_by_one_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: every token looks one further back than its window."""
    begin = RowCache.__init__

    def planted(self: RowCache, *args: Any) -> None:
        begin(self, *args)
        self.window += 1

    monkeypatch.setattr(RowCache, "__init__", planted)
    assert "off by" in refusal(lambda: wrap(built("mistral", WINDOW), "mistral"))
    monkeypatch.setattr(module, "_probe_rollback", lambda model: None)
    with pytest.raises(AssertionError):
        check("mistral", WINDOW, AROUND_THE_WINDOW, (4,))


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {}, "bert is an encoder"),
    ("bloom", {"n_layer": 2, "n_head": 4}, "bloom has ALiBi"),
    ("falcon", {"alibi": True, "head_dim": None}, "falcon has ALiBi"),
    ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}, "end of the cache"),
    ("jamba", {}, "cannot be rolled back"),
    ("qwen3_next", {}, "cannot be rolled back"),
]


@pytest.mark.parametrize(("name", "options", "reason"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_cannot_be_stepped_is_refused_by_its_reason(name: str, options: dict[str, Any], reason: str) -> None:
    """By its configuration, before weights are read."""
    message = refusal(lambda: module.check_config(config_of(name, options), "models/mine"))
    assert message.startswith("models/mine: ")
    assert reason in message
    assert ". Choose a" in message
