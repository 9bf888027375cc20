"""Losses of a drafter at single contexts, each one entry in `LOSSES`.

A loss gets two distributions and the verifier's token. Shapes: log p and log q [C, V] float32 (float64 in tests) at
temperature 1, full softmax, the verifier's token y [C]; → [C], nats or probability. Gradients flow through log q.
An id that one model lacks has log q = −inf there and counts for nothing, as in the measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
_LEAST = 1e-12
"""An acceptance below which its logarithm is not followed further: float32 has no digits left there."""


def kl(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Forward KL, Σ p ln(p/q): the misfit of METRICS; distillation (DistillSpec, 2310.08461)."""
    absent = (log_p == -torch.inf) | (log_q == -torch.inf)
    return (log_p.exp() * (log_p.masked_fill(absent, 0.0) - log_q.masked_fill(absent, 0.0))).sum(-1)


def cross_entropy(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """−Σ p ln q: the gradient of `kl`, another value, hence other gaps (probably the form of 2510.02128)."""
    return -(log_p.exp() * log_q.masked_fill(log_q == -torch.inf, 0.0)).sum(-1)


def tv(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Total variation, 1 − Σ min(p, q): the chance that a draft is refused (Leviathan et al., 2211.17192)."""
    return 1 - overlap(log_p, log_q)


def neg_log_alpha(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """−ln Σ min(p, q): steep where acceptance is small, where total variation is flat."""
    return -overlap(log_p, log_q).clamp_min(_LEAST).log()


def token(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """−ln q(y) of the verifier's token: plain fine-tuning, the verifier's distribution unused."""
    return -log_q.gather(-1, y[:, None]).squeeze(-1)


def overlap(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ min(p, q) in [0, 1]."""
    return torch.minimum(log_p, log_q).exp().sum(-1)


LOSSES: Mapping[str, Loss] = {
    "kl": kl,
    "cross_entropy": cross_entropy,
    "tv": tv,
    "neg_log_alpha": neg_log_alpha,
    "token": token,
}
