"""How many positions a configuration allows: those of a scaled rope count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pair import save_pair
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from fairspec_bench.engine.speculative import Request, decode
from fairspec_bench.models.model import load_model
from fairspec_bench.models.positions import max_positions
from fairspec_bench.schemas.config import SamplingParams
from fairspec_bench.scoring.executors.serving.model_files import read_card

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}


@pytest.mark.parametrize(
    ("rope", "positions", "allowed"),
    [
        (None, 4096, 4096),
        (YARN, 32768, 131072),  # as Qwen2.5 asks its users to write it
        (YARN | {"original_max_position_embeddings": 4096, "factor": 40.0}, 163840, 163840),  # as DeepSeek ships it
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, 2048, 4096),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, 2048, 2048),
        (
            {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_theta": 5e5,
            },
            131072,
            131072,
        ),
    ],
)  # fmt: skip
def test_positions_of_a_scaled_rope_count(rope: dict[str, Any] | None, positions: int, allowed: int) -> None:
    for kind in (LlamaConfig, Qwen2Config):
        assert max_positions(kind(max_position_embeddings=positions, rope_parameters=rope)) == allowed
    assert max_positions(GPT2Config(n_positions=77)) == 77


def test_a_prompt_past_what_was_trained_is_not_dropped_where_yarn_allows_it(tmp_path: Path) -> None:
    folder, _ = save_pair(tmp_path)
    path = folder / "config.json"
    config = LlamaConfig.from_pretrained(folder)
    config.max_position_embeddings = 32
    config.rope_parameters = YARN | {"original_max_position_embeddings": 32, "rope_theta": 1e4}
    path.write_text(config.to_json_string())
    model, card = load_model(str(folder)), read_card("v", str(folder), None, "vllm")
    for each in (model, card):
        assert each.refusal(100, 28) is None
        assert "exceed the 128 positions" in str(each.refusal(100, 29))
    prompt = torch.arange(2, 60).tolist()
    (found,) = decode(
        model, None, [Request("p", tuple(prompt), 8, 0)], sampling=SamplingParams(), gamma=0, batch_size=1, seed=0
    )
    wanted = model.hf.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :]
    assert list(found.ids) == wanted[: len(found.ids)].tolist()
