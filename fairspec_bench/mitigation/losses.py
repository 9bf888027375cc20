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


def rkl(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Reverse KL, Σ q ln(q/p): follows the verifier's main modes, and does not ask for its tail."""
    return kl(log_q, log_p, y)


def jsd(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """Jensen–Shannon divergence, ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q)/2: at most ln 2."""
    middle = ((log_p.exp() + log_q.exp()) / 2).clamp_min(torch.finfo(log_p.dtype).tiny).log()
    return (kl(log_p, middle, y) + kl(log_q, middle, y)) / 2


def kl_tv(log_p: Tensor, log_q: Tensor, y: Tensor) -> Tensor:
    """λ KL + (1 − λ) TV with λ = exp(−3 α) (LK losses, 2602.23881): KL while acceptance is low, where TV is flat.

    λ is a constant to the gradient.
    """
    share = (-3 * overlap(log_p, log_q).detach()).exp()
    return share * kl(log_p, log_q, y) + (1 - share) * tv(log_p, log_q, y)


def overlap(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ min(p, q) in [0, 1]."""
    return torch.minimum(log_p, log_q).exp().sum(-1)


LOSSES: Mapping[str, Loss] = {
    "kl": kl,
    "cross_entropy": cross_entropy,
    "tv": tv,
    "neg_log_alpha": neg_log_alpha,
    "token": token,
    "rkl": rkl,
    "jsd": jsd,
    "kl_tv": kl_tv,
}
