"""Trains one small causal language model from a source of batches, resumably.

A source is a function from the step's number to a batch, so that a resumed training gets the batches it would have had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from fairspec_bench.models.checkpoint import load_checkpoint, save_checkpoint
from fairspec_bench.testbed.muon import Muon
from fairspec_bench.testbed.tokenizer import EOS_ID, PAD_ID

TrainingBatch = tuple[Tensor, Tensor]
"""Token ids [B, L] int64 and the weight [B, L] float32 of predicting each; weight 0 marks padding."""
Source = Callable[[int], TrainingBatch]


@dataclass(frozen=True)
class Shape:
    """The size of a Llama-style model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int


@dataclass(frozen=True)
class Schedule:
    """Steps and rates: warm-up, constant, then linear decay. Muon moves the matrices, AdamW the rest."""

    warmup: int
    constant: int
    decay: int
    matrix_rate: float
    other_rate: float

    @property
    def steps(self) -> int:
        """All steps."""
        return self.warmup + self.constant + self.decay

    def factor(self, step: int) -> float:
        """The rate at `step` as a share of the full one, in (0, 1]."""
        rising = (step + 1) / self.warmup if step < self.warmup else 1.0
        falling = (self.steps - step) / (self.decay + 1) if step >= self.warmup + self.constant else 1.0
        return min(rising, falling)


def build(shape: Shape, vocabulary: int, positions: int, seed: int) -> LlamaForCausalLM:
    """A freshly initialised Llama with tied embeddings, float32; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        initializer_range=0.04,
    )
    return LlamaForCausalLM(config)


def optimisers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the layers, AdamW on embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        Muon(matrices, lr=schedule.matrix_rate),
        torch.optim.AdamW(others, lr=schedule.other_rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def train(
    model: LlamaForCausalLM,
    source: Source,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    every: int = 100,
    say: Callable[[str], None] = lambda line: None,
) -> LlamaForCausalLM:
    """Train `model` in place by weighted cross-entropy and return it in eval mode.

    The state is written to `checkpoint` every `every` steps; a training whose state is there resumes. Raises
    `FairspecError` for a state that is damaged or cannot be written.
    """
    steppers = optimisers(model, schedule)
    first = 0

    def restore(state: dict[str, Any]) -> None:
        nonlocal first
        model.load_state_dict(state["model"])
        for stepper, kept in zip(steppers, state["optimisers"], strict=True):
            stepper.load_state_dict(kept)
        first = int(state["step"])

    if checkpoint is not None:
        load_checkpoint(checkpoint, restore)
    model.train()
    started, seen = time.monotonic(), 0
    for step in range(first, schedule.steps):
        for stepper, rate in zip(steppers, (schedule.matrix_rate, schedule.other_rate), strict=True):
            for group in stepper.param_groups:
                group["lr"] = rate * schedule.factor(step)
        ids, weights = source(step)
        loss = weighted_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        model.zero_grad()
        seen += ids.numel()
        if (step + 1) % every == 0 or step + 1 == schedule.steps:
            rate_now = seen / (time.monotonic() - started)
            say(f"step {step + 1}/{schedule.steps} loss {loss.item():.4f} {rate_now:.0f} tokens/s")
            if checkpoint is not None:
                optimiser_states = [stepper.state_dict() for stepper in steppers]
                state = {"step": step + 1, "model": model.state_dict(), "optimisers": optimiser_states}
                save_checkpoint(checkpoint, state)
    return model.eval()


def weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of the next tokens under their weights; logits only where a weight is positive."""
    hidden = model.model(ids).last_hidden_state[:, :-1]
    wanted = weights[:, 1:] > 0
    logits = model.lm_head(hidden[wanted]).float()
    losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    return (losses * weight).sum() / weight.sum()
