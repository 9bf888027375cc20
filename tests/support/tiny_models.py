"""Random-weight models of a few thousand parameters, and the slow, independent ways of using them."""

from __future__ import annotations

import copy

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fairspec_bench.engine.drafters.ngram import NgramDrafter, fit
from fairspec_bench.engine.speculative import Request
from fairspec_bench.models.model import Model, wrap
from fairspec_bench.schemas.io import ids_sha256
from fairspec_bench.schemas.prompts import Encoded

VOCAB = 61
EOS = 7
WINDOW = 12
_SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": EOS,
}


def family(name: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A fresh model of a family, with Transformers' stock attention."""
    shape = {**_SHAPE, **changes}
    wide = {**shape, "head_dim": 8, "sliding_window": WINDOW}
    gpt2 = {
        "vocab_size": VOCAB,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "initializer_range": 0.3,
        "eos_token_id": EOS,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    kind, config = {
        "llama": lambda: (LlamaForCausalLM, LlamaConfig(**shape)),
        "qwen2": lambda: (Qwen2ForCausalLM, Qwen2Config(**shape)),
        "gemma3": lambda: (
            Gemma3ForCausalLM,
            Gemma3TextConfig(**wide, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
        ),
        "gpt2": lambda: (GPT2LMHeadModel, GPT2Config(**{**gpt2, **changes})),
        "gemma2": lambda: (Gemma2ForCausalLM, Gemma2Config(**wide, query_pre_attn_scalar=8)),
        "mistral": lambda: (MistralForCausalLM, MistralConfig(**wide)),
        "qwen3": lambda: (Qwen3ForCausalLM, Qwen3Config(**{**shape, "head_dim": 8})),
        "phi3": lambda: (Phi3ForCausalLM, Phi3Config(**shape)),
    }[name]()
    torch.manual_seed(seed)
    return kind(config).eval()


def stock(model: Model) -> PreTrainedModel:
    """A copy of a model with Transformers' own eager attention, to be used through `generate` or a plain pass."""
    other = copy.deepcopy(model.hf)
    other.set_attn_implementation("eager")
    return other


def noised(model: Model, scale: float, seed: int = 1) -> Model:
    """A copy whose weights are off by a share of their spread: a drafter that often agrees."""
    hf = copy.deepcopy(model.hf)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.dim() > 1:
                weight += scale * weight.std() * torch.randn(weight.shape, generator=generator)
    return wrap(hf, f"noised({scale})")


def prompts(count: int, low: int, high: int, seed: int = 3, vocab: int = VOCAB) -> list[list[int]]:
    """Random prompts of `low`…`high` tokens, free of EOS."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(low, high + 1, (count,), generator=generator).tolist()
    return [torch.randint(EOS + 1, vocab, (length,), generator=generator).tolist() for length in lengths]


def requests(ids: list[list[int]], max_new_tokens: int, stop: object = None) -> list[Request]:
    return [Request(f"p{i}", tuple(x), max_new_tokens, i, stop) for i, x in enumerate(ids)]


def counted(verifier: Model, texts: list[tuple[list[int], tuple[int, ...]]], order: int = 4) -> NgramDrafter:
    """An n-gram drafter of (prompt, output) pairs, all of one group."""
    return NgramDrafter(fit([("l", *text) for text in texts], verifier.vocab_size, order), verifier)


def encode(ids: list[list[int]], max_new_tokens: int) -> list[Encoded]:
    return [
        Encoded(key=f"s/l/{i}", group="l", ids=tuple(x), sha=ids_sha256(x), max_new_tokens=max_new_tokens)
        for i, x in enumerate(ids)
    ]


def generate(hf: PreTrainedModel, ids: list[int], max_new_tokens: int) -> tuple[int, ...]:
    """Transformers' own greedy continuation at batch 1, EOS included."""
    prompt = torch.tensor([ids])
    out = hf.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=0
    )
    return tuple(out[0, len(ids) :].tolist())
