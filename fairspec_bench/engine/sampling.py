"""Temperature, top-k and top-p: logits in, the log-probabilities that tokens are drawn from out.

Greedy decoding is not a distribution here but an `argmax`, whose first maximum (lowest id) wins a tie.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from fairspec_bench.schemas.config import SamplingParams

NEVER = float("-inf")


def log_probs(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """Log-probabilities under sampling parameters: logits [..., V] of any float dtype → float32 [..., V].

    Temperature first, then top-k (ties with the k-th are kept), then top-p (the smallest set of most likely tokens
    whose mass reaches p; the lower id goes first among equals). What is excluded has −inf. Raises `ValueError` for
    greedy decoding.
    """
    if sampling.greedy:
        raise ValueError("greedy decoding is an argmax, not a distribution")
    scores = logits.float() / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        kth = scores.topk(sampling.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < kth, NEVER)
    if sampling.top_p < 1.0:
        ranked, order = scores.sort(dim=-1, descending=True, stable=True)
        mass = ranked.softmax(-1)
        outside = mass.cumsum(-1) - mass >= sampling.top_p
        scores = scores.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), NEVER)
    return scores.log_softmax(-1)


def fit_vocabulary(logits: Tensor, size: int) -> Tensor:
    """Logits [..., V'] on a vocabulary of `size`: surplus ids are cut, missing ones get −inf.

    Models that share a tokenizer may pad their embedding to different sizes; the padding stands for no token.
    """
    return pad(logits[..., :size], (0, max(0, size - logits.shape[-1])), value=NEVER)
